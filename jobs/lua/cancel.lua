-- ARGV: id, retention ms. Returns the status, or nothing for an unknown job. Idempotent.
local id = ARGV[1]
local job = redis.call('HMGET', job_key(id), 'status', 'owner', 'cancel_requested')
if not job[1] then return false end
if job[1] == QUEUED then
  dequeue(id, job[2])
  redis.call('HSET', job_key(id), 'cancel_requested', 1)
  settle(id, CANCELLED, '', '', tonumber(ARGV[2]))
  return CANCELLED
end
if job[1] == RUNNING and job[3] ~= '1' then
  redis.call('HSET', job_key(id), 'cancel_requested', 1)
  event(id, 'status', cjson.encode({status = RUNNING, cancel_requested = true}))
end
return job[1]
