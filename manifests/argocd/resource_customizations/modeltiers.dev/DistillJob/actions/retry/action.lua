-- The annotation that `modeltiers retry` writes: the stage that failed runs once more.
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

local digest = nil
for _, stage in ipairs((obj.status or {}).stages or {}) do
  if digest == nil and stage.state == "Failed" then
    digest = stage.digest
  end
end
if digest == nil then
  error("no stage has failed: there is nothing to try again", 0)
end
obj.metadata.annotations = obj.metadata.annotations or {}
obj.metadata.annotations["modeltiers.dev/retry"] = again(digest, obj.metadata.annotations["modeltiers.dev/retry"])
return obj
