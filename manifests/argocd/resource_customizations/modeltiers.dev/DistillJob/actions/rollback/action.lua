-- The annotation that `modeltiers rollback` writes: the tier serves the incumbent again.
-- An annotation is followed once: what was said before is said again as DIGEST@2, DIGEST@3 and so on.
local function again(digest, before)
  if before == digest then
    return digest .. "@2"
  end
  for number = 1, 9999 do
    if before == digest .. "@" .. number then
      return digest .. "@" .. (number + 1)
    end
  end
  return digest
end

local digest = ((obj.status or {}).artifact or {}).digest
if digest == nil then
  error("no student is packaged yet: there is nothing to roll back", 0)
end
obj.metadata.annotations = obj.metadata.annotations or {}
obj.metadata.annotations["modeltiers.dev/rollback"] = again(digest, (obj.status.promotion or {}).takenBack)
return obj
