-- ARGV: worker. It is gone.
redis.call('ZREM', 'dmft:workers', ARGV[1])
redis.call('HDEL', 'dmft:workers:facts', ARGV[1])
