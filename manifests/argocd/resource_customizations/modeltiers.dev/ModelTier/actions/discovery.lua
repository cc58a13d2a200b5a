-- A new rolloutToken rolls the tier once and takes what is newer: plan, catalogue, image, defaults.
local actions = {}
actions["restart"] = {
  ["iconClass"] = "fa fa-fw fa-rotate-right",
  ["displayName"] = "Restart, with what is newer",
  ["disabled"] = obj.spec.external ~= nil
}
return actions
