-- What `modeltiers approve|rollback|retry|suspend|resume` would refuse is disabled.
local spec = obj.spec or {}
local status = obj.status or {}
local promotion = status.promotion or {}
local state = promotion.state
local tier = ((spec.promotion or {}).tierRef or {}).name
local packaged = (status.artifact or {}).digest ~= nil and tier ~= nil
local underWay = state == "Canary" or state == "Settling" or state == "Live"

local complete = {}
for _, condition in ipairs(status.conditions or {}) do
  if condition.type == "Complete" then
    complete = condition
  end
end

local failed = false
for _, stage in ipairs(status.stages or {}) do
  failed = failed or stage.state == "Failed"
end

local actions = {}
actions["approve"] = {
  ["iconClass"] = "fa fa-fw fa-check",
  ["displayName"] = "Approve the packaged student",
  ["disabled"] = not (packaged and (state == "AwaitingApproval" or state == "RolledBack"))
}
actions["rollback"] = {
  ["iconClass"] = "fa fa-fw fa-rotate-left",
  ["displayName"] = "Take the student back",
  ["disabled"] = not (packaged and underWay)
}
actions["retry"] = {
  ["iconClass"] = "fa fa-fw fa-repeat",
  ["displayName"] = "Run the failed stage once more",
  ["disabled"] = not failed or complete.reason == "BudgetExhausted"
}
actions["suspend"] = {
  ["iconClass"] = "fa fa-fw fa-pause",
  ["displayName"] = "Stop after what is durable",
  ["disabled"] = spec.suspend == true or complete.status == "True" or state ~= nil
}
actions["resume"] = {
  ["iconClass"] = "fa fa-fw fa-play",
  ["displayName"] = "Go on",
  ["disabled"] = spec.suspend ~= true
}
return actions
