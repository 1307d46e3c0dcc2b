-- ARGV: server run id, lease ms, max attempts, retention ms, error JSON.
-- Returns {requeued or ended jobs, waiting jobs, files to remove...}.
local lease = tonumber(ARGV[2])
if redis.call('GET', 'dmft:run_id') ~= ARGV[1] then
  -- Redis was restarted: while it was away nobody could beat, so every lease starts afresh.
  redis.call('SET', 'dmft:run_id', ARGV[1])
  for _, id in ipairs(redis.call('ZRANGE', 'dmft:leases', 0, -1)) do
    redis.call('ZADD', 'dmft:leases', now + lease, id)
  end
end
local expired = redis.call('ZRANGEBYSCORE', 'dmft:leases', 0, now)
local files = {}
for _, id in ipairs(expired) do
  -- Whatever the lost attempt wrote is nobody's: only a final transition makes files count.
  files[#files + 1] = id .. '.' .. redis.call('HGET', job_key(id), 'epoch')
  attempt_failed(id, ARGV[5], tonumber(ARGV[3]), tonumber(ARGV[4]))
end
local waiting = 0
for _, owner in ipairs(redis.call('SMEMBERS', 'dmft:waiting')) do
  waiting = waiting + redis.call('ZCARD', 'dmft:queue:' .. owner)
end
local answer = {#expired, waiting}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', 'dmft:expiring', 0, now, 'LIMIT', 0, 100)) do
  redis.call('ZREM', 'dmft:expiring', id)
  redis.call('HSET', job_key(id), 'expired', 1)
  local artifact = unref(id)
  if artifact ~= '' then files[#files + 1] = artifact end
end
for _, name in ipairs(files) do answer[#answer + 1] = name end
return answer
