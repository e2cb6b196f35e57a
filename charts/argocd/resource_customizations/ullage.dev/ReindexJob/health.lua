-- Health of a ReindexJob, for Argo CD.

local function health(status, message)
  return { status = status, message = message }
end

local function find(kind)
  for _, condition in ipairs(obj.status.conditions) do
    if condition.type == kind then
      return condition
    end
  end
  return { status = "Unknown", reason = "Pending", message = "condition " .. kind .. " is missing" }
end

if obj.status == nil or obj.status.conditions == nil then
  return health("Progressing", "waiting for the operator")
end
if obj.status.observedGeneration ~= obj.metadata.generation then
  return health("Progressing", "waiting for the operator to see this version of the spec")
end

local complete = find("Complete")
if complete.status == "True" then
  return health("Healthy", complete.message)
end
local failed = find("Failed")
if failed.status == "True" then
  return health("Degraded", failed.reason .. ": " .. failed.message)
end
-- It ended as somebody wished, and searches are where they were before.
if obj.status.phase == "Cancelled" then
  return health("Healthy", complete.message)
end
local suspended = find("Suspended")
if suspended.status == "True" then
  return health("Suspended", suspended.message)
end
local bad = { UnknownCollection = true, UnknownPool = true, PoolHasReplicas = true, WorkerMissing = true }
if bad[complete.reason] then
  return health("Degraded", complete.reason .. ": " .. complete.message)
end
return health("Progressing", complete.message)
