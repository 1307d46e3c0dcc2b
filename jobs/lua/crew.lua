-- Returns {live workers, what each of them says of itself as JSON...}. Changes nothing.
local live = redis.call('ZRANGEBYSCORE', 'dmft:workers', now, '+inf')
local answer = {#live}
for _, worker in ipairs(live) do
  answer[#answer + 1] = redis.call('HGET', 'dmft:workers:facts', worker) or nil
end
return answer
