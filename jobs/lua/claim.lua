-- ARGV: worker, lease ms, running cap per user. Returns {id, epoch} or nothing.
-- Serves the user with the fewest running jobs, then the one served longest ago.
local worker, lease, cap = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local chosen, fewest, longest
for _, owner in ipairs(redis.call('SMEMBERS', 'dmft:waiting')) do
  local running = redis.call('SCARD', 'dmft:running:' .. owner)
  local served = tonumber(redis.call('ZSCORE', 'dmft:served', owner) or 0)
  if running < cap and (not chosen or running < fewest or (running == fewest and served < longest)) then
    chosen, fewest, longest = owner, running, served
  end
end
if not chosen then return {} end
local id = redis.call('ZRANGE', 'dmft:queue:' .. chosen, 0, 0)[1]
dequeue(id, chosen)
local epoch = redis.call('HINCRBY', job_key(id), 'epoch', 1)
redis.call('HINCRBY', job_key(id), 'attempts', 1)
redis.call('HSETNX', job_key(id), 'started_at', now)
redis.call('HSET', job_key(id), 'status', 'running', 'worker', worker)
redis.call('SADD', 'dmft:running:' .. chosen, id)
redis.call('ZADD', 'dmft:leases', now + lease, id)
redis.call('ZADD', 'dmft:served', redis.call('INCR', 'dmft:servings'), chosen)
status_event(id, 'running')
return {id, tostring(epoch)}
