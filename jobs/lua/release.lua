-- The worker drains: back to the queue, the attempt not counted. ARGV: id, epoch, retention ms. Returns ok or lost.
local id = ARGV[1]
if not holds(id, ARGV[2]) then return 'lost' end
if redis.call('HGET', job_key(id), 'cancel_requested') == '1' then
  stop_running(id)
  settle(id, 'cancelled', '', '', tonumber(ARGV[3]))
  return 'ok'
end
redis.call('HINCRBY', job_key(id), 'attempts', -1)
requeue(id)
return 'ok'
