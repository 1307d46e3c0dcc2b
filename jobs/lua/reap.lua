-- ARGV: server run id, lease ms, max attempts, retention ms, error JSON, id of this call, time of this server
-- at which it was made, and at which the caller's round before was (0: none), ms that a tombstone lasts.
-- Returns {requeued or ended jobs, waiting jobs, files to remove...}.
local lease, call = tonumber(ARGV[2]), 'dmft:reaped:' .. ARGV[6]
local asked, before = tonumber(ARGV[7]), tonumber(ARGV[8])
local restarted = redis.call('GET', 'dmft:run_id') ~= ARGV[1]
-- A beat comes every quarter of a lease: only a silence of three quarters can end one that is kept.
local silent = now - asked > lease * 0.75 or (before > 0 and now - before > lease * 0.75)
if restarted or silent then
  -- While this server was away or frozen nobody could beat, so every lease starts afresh.
  redis.call('SET', 'dmft:run_id', ARGV[1])
  for _, id in ipairs(redis.call('ZRANGE', 'dmft:leases', 0, -1)) do
    redis.call('ZADD', 'dmft:leases', now + lease, id)
  end
end
local lost = redis.call('ZRANGEBYSCORE', 'dmft:leases', 0, now)
for _, id in ipairs(lost) do
  local epoch = redis.call('HGET', job_key(id), 'epoch')
  -- Whatever the lost attempt wrote is nobody's: only a final transition makes files count.
  discard(id .. '.' .. epoch)
  attempt_failed(id, epoch, 'reap', ARGV[5], tonumber(ARGV[3]), tonumber(ARGV[4]))
end
if #lost > 0 then redis.call('SET', call, #lost, 'PX', REPEATED_MS) end
local waiting = 0
for _, owner in ipairs(redis.call('SMEMBERS', 'dmft:waiting')) do
  waiting = waiting + redis.call('ZCARD', 'dmft:queue:' .. owner)
end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', 'dmft:expiring', 0, now, 'LIMIT', 0, 100)) do
  forget(id, 'expired', tonumber(ARGV[9]))
end
local answer = {tonumber(redis.call('GET', call) or 0), waiting}
for _, name in ipairs(redis.call('SRANDMEMBER', 'dmft:discarded', 500)) do answer[#answer + 1] = name end
return answer
