-- ARGV: worker, lease ms, running cap per user, token of this claim, most bytes that a solve may take here or '',
-- JSON list of the methods known here or ''. Returns {id, epoch} or nothing.
-- Serves the user with the fewest running jobs, then the one served longest ago, among those with a job that fits.
-- The answer is kept under the token: the same claim sent again, even out of order, takes no second job.
local worker, lease, cap, token = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local most, methods = tonumber(ARGV[5]), nil
if ARGV[6] ~= '' then
  methods = {}
  for _, name in ipairs(cjson.decode(ARGV[6])) do methods[name] = true end
end
local kept = redis.call('GET', claim_key(token))
if kept then
  if kept == '' then return {} end
  local answer = cjson.decode(kept)
  -- The holder hears of the job only now.
  if holds(answer[1], answer[2]) then redis.call('ZADD', 'dmft:leases', now + lease, answer[1]) end
  return answer
end

-- Records of earlier versions do not say what they need.
local function fits(id)
  local needs = redis.call('HMGET', job_key(id), 'memory', 'method')
  return (not most or not needs[1] or tonumber(needs[1]) <= most)
    and (not methods or not needs[2] or methods[needs[2]])
end

local function first_that_fits(owner)
  local from, batch = 0, 50
  while true do
    local ids = redis.call('ZRANGE', 'dmft:queue:' .. owner, from, from + batch - 1)
    for _, id in ipairs(ids) do
      if fits(id) then return id end
    end
    if #ids < batch then return nil end
    from = from + batch
  end
end

local owners = {}
for _, owner in ipairs(redis.call('SMEMBERS', 'dmft:waiting')) do
  local running = redis.call('SCARD', 'dmft:running:' .. owner)
  local served = tonumber(redis.call('ZSCORE', 'dmft:served', owner) or 0)
  if running < cap then owners[#owners + 1] = {name = owner, running = running, served = served} end
end
table.sort(owners, function(a, b)
  if a.running ~= b.running then return a.running < b.running end
  if a.served ~= b.served then return a.served < b.served end
  return a.name < b.name
end)
local chosen, id
for _, owner in ipairs(owners) do
  id = first_that_fits(owner.name)
  if id then
    chosen = owner.name
    break
  end
end
if not chosen then
  redis.call('SET', claim_key(token), '', 'PX', REPEATED_MS)
  return {}
end
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
