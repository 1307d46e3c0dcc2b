-- ARGV: id, epoch, lease ms, progress JSON or '', number that grows with the holder's beats.
-- Returns lost, cancel or ok. A beat that comes again, or after a later one, publishes nothing.
local id, epoch, number = ARGV[1], ARGV[2], tonumber(ARGV[5])
if not holds(id, epoch) then return 'lost' end
redis.call('ZADD', 'dmft:leases', now + tonumber(ARGV[3]), id)
if number > tonumber(redis.call('HGET', job_key(id), 'beat') or -1) then
  redis.call('HSET', job_key(id), 'beat', ARGV[5])
  if ARGV[4] ~= '' then
    redis.call('HSET', job_key(id), 'progress', ARGV[4])
    event(id, 'progress', ARGV[4])
  end
end
if redis.call('HGET', job_key(id), 'cancel_requested') == '1' then return 'cancel' end
return 'ok'
