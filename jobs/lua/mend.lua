-- Puts jobs that another version stored or changed into the lists by status and tag. May run beside anything.
-- ARGV: number to go on from, most jobs. Returns {how many jobs the lists are off by, number to go on from or '',
-- jobs without a summary...}.
local off = redis.call('ZCARD', 'dmft:jobs')
for _, status in ipairs(STATUSES) do off = off - redis.call('ZCARD', list_key(status)) end
local queued = redis.call('ZCARD', list_key(QUEUED))
for _, owner in ipairs(redis.call('SMEMBERS', 'dmft:waiting')) do
  queued = queued - redis.call('ZCARD', 'dmft:queue:' .. owner)
end
local running = redis.call('ZCARD', list_key(RUNNING)) - redis.call('ZCARD', 'dmft:leases')
local answer = {math.abs(off) + math.abs(queued) + math.abs(running), ''}
if answer[1] == 0 and ARGV[1] == '0' then return answer end
local part = redis.call('ZRANGEBYSCORE', 'dmft:jobs', '(' .. ARGV[1], '+inf', 'WITHSCORES', 'LIMIT', 0, tonumber(ARGV[2]))
for i = 1, #part, 2 do
  local id = part[i]
  answer[2] = part[i + 1]
  local job = redis.call('HMGET', job_key(id), 'status', 'listed', 'summary')
  if job[1] and job[1] ~= job[2] then set_status(id, job[1]) end
  if job[1] and not job[3] then answer[#answer + 1] = id end
end
return answer
