-- DistillJob follows kstatus: observedGeneration, and the conditions Reconciling, Stalled and Ready.
-- A job at its end is Healthy however it ended: Rejected and Inconclusive are answers, and the message has them.
-- Only Lua's base library is used, so that the script also runs from argocd-cm.
local status = obj.status or {}
if status.observedGeneration == nil or status.observedGeneration ~= obj.metadata.generation then
  return {status = "Progressing", message = "Waiting for the operator to look at the present spec"}
end

local conditions = {}
for _, condition in ipairs(status.conditions or {}) do
  conditions[condition.type] = condition
end

local function said(type)
  return conditions[type] ~= nil and conditions[type].status == "True"
end

local function why(type)
  if conditions[type] == nil then
    return "No condition " .. type .. " yet"
  end
  return conditions[type].reason .. ": " .. conditions[type].message
end

if said("Stalled") then
  return {status = "Degraded", message = why("Stalled")}
end
if said("AwaitingApproval") then
  return {status = "Suspended", message = why("AwaitingApproval")}
end
if said("Reconciling") and conditions.Reconciling.reason == "Suspended" then
  return {status = "Suspended", message = why("Reconciling")}
end
if said("Reconciling") then
  return {status = "Progressing", message = why("Reconciling")}
end
if said("Ready") and said("Complete") then
  return {status = "Healthy", message = why("Complete")}
end
return {status = "Progressing", message = why("Ready")}
