-- ARGV: id, epoch, lease ms, progress JSON or ''. Returns lost, cancel or ok.
local id, epoch = ARGV[1], ARGV[2]
if not holds(id, epoch) then return 'lost' end
redis.call('ZADD', 'dmft:leases', now + tonumber(ARGV[3]), id)
if ARGV[4] ~= '' then
  redis.call('HSET', job_key(id), 'progress', ARGV[4])
  event(id, 'progress', ARGV[4])
end
if redis.call('HGET', job_key(id), 'cancel_requested') == '1' then return 'cancel' end
return 'ok'
