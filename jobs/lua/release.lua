-- The worker drains: back to the queue, the attempt not counted. ARGV: id, epoch, retention ms. Returns ok or lost.
local id, epoch = ARGV[1], ARGV[2]
if not holds(id, epoch) then return answered(id, epoch, 'release') end
end_attempt(id, epoch, 'release', 'ok')
if redis.call('HGET', job_key(id), 'cancel_requested') == '1' then
  settle(id, CANCELLED, '', '', tonumber(ARGV[3]))
  return 'ok'
end
redis.call('HINCRBY', job_key(id), 'attempts', -1)
requeue(id)
return 'ok'
