-- ARGV: worker, lease ms, running cap per user, token of this claim. Returns {id, epoch} or nothing.
-- Serves the user with the fewest running jobs, then the one served longest ago.
-- The answer is kept under the token: the same claim sent again, even out of order, takes no second job.
local worker, lease, cap, token = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local kept = redis.call('GET', claim_key(token))
if kept then
  if kept == '' then return {} end
  local answer = cjson.decode(kept)
  -- The holder hears of the job only now.
  if holds(answer[1], answer[2]) then redis.call('ZADD', 'dmft:leases', now + lease, answer[1]) end
  return answer
end
local chosen, fewest, longest
for _, owner in ipairs(redis.call('SMEMBERS', 'dmft:waiting')) do
  local running = redis.call('SCARD', 'dmft:running:' .. owner)
  local served = tonumber(redis.call('ZSCORE', 'dmft:served', owner) or 0)
  if running < cap and (not chosen or running < fewest or (running == fewest and served < longest)) then
    chosen, fewest, longest = owner, running, served
  end
end
if not chosen then
  redis.call('SET', claim_key(token), '', 'PX', REPEATED_MS)
  return {}
end
local id = redis.call('ZRANGE', 'dmft:queue:' .. chosen, 0, 0)[1]
dequeue(id, chosen)
local epoch = tostring(redis.call('HINCRBY', job_key(id), 'epoch', 1))
redis.call('HINCRBY', job_key(id), 'attempts', 1)
redis.call('HSETNX', job_key(id), 'started_at', now)
set_status(id, RUNNING)
redis.call('HSET', job_key(id), 'worker', worker, 'claim', token)
redis.call('HDEL', job_key(id), 'beat')
redis.call('SET', claim_key(token), cjson.encode({id, epoch}))  -- ends some time after the attempt
redis.call('SADD', 'dmft:running:' .. chosen, id)
redis.call('ZADD', 'dmft:leases', now + lease, id)
redis.call('ZADD', 'dmft:served', redis.call('INCR', 'dmft:servings'), chosen)
status_event(id, RUNNING)
return {id, epoch}
