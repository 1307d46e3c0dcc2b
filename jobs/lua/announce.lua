-- ARGV: worker, ms for which it counts as live, what it says of itself as JSON or ''.
-- Whoever has been silent for a day is forgotten.
redis.call('ZADD', 'dmft:workers', now + tonumber(ARGV[2]), ARGV[1])
if ARGV[3] ~= '' then redis.call('HSET', 'dmft:workers:facts', ARGV[1], ARGV[3]) end
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', 'dmft:workers', 0, now - 86400000)) do
  redis.call('ZREM', 'dmft:workers', gone)
  redis.call('HDEL', 'dmft:workers:facts', gone)
end
