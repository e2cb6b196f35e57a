-- Health of a VectorCollection, for Argo CD.

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
if ready.reason == "Deleting" then
  return health("Progressing", ready.message)
end
if ready.status == "False" then
  return health("Degraded", ready.reason .. ": " .. ready.message)
end
if ready.status ~= "True" then
  return health("Progressing", ready.message)
end

-- It answers; is it what the spec asks for? What is still being indexed is found all the same.
local in_sync = find("InSync")
if in_sync.reason == "Reindexing" then
  return health("Progressing", in_sync.message)
end
if in_sync.status == "False" then
  return health("Degraded", in_sync.reason .. ": " .. in_sync.message)
end
if in_sync.status ~= "True" then
  return health("Progressing", in_sync.message)
end
return health("Healthy", ready.message)
