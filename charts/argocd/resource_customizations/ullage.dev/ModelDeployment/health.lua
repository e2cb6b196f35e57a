-- Health of a ModelDeployment, for Argo CD.

local function health(status, message)
  return { status = status, message = message }
end

local function find(kind)
  for _, condition in ipairs(obj.status.conditions) do
    if condition.type == kind then
      return condition
    end
  end
  return { status = "Unknown", message = "condition " .. kind .. " is missing" }
end

if obj.status == nil or obj.status.conditions == nil then
  return health("Progressing", "waiting for the operator")
end
if obj.status.observedGeneration ~= obj.metadata.generation then
  return health("Progressing", "waiting for the operator to see this version of the spec")
end

local ready = find("Ready")
if ready.status == "False" then
  return health("Degraded", ready.reason .. ": " .. ready.message)
end
if ready.reason == "Suspended" then
  return health("Suspended", ready.message)
end
if ready.status ~= "True" then
  return health("Progressing", ready.message)
end

-- It answers; does the revision that the spec asks for?
local progressing = find("Progressing")
local transition = obj.status.transition
if transition == "BlockedByFailedLoad" then
  return health("Degraded", progressing.message)
end
if transition == "RolledBack" then
  local annotations = obj.metadata.annotations or {}
  local by_hand = annotations["ullage.dev/rollback-to"] ~= nil
  return health(by_hand and "Suspended" or "Degraded", progressing.message)
end
if transition == "InProgress" then
  return health("Progressing", progressing.message)
end
return health("Healthy", ready.message)
