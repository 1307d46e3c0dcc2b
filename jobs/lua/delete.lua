-- ARGV: id. Returns {outcome, files to remove or ''}: deleted, unfinished or unknown.
local id = ARGV[1]
local job = redis.call('HMGET', job_key(id), 'status', 'owner')
if not job[1] then return {'unknown', ''} end
if job[1] == 'queued' or job[1] == 'running' then return {'unfinished', ''} end
local artifact = unref(id)
redis.call('ZREM', 'dmft:jobs', id)
redis.call('ZREM', 'dmft:jobs:' .. job[2], id)
redis.call('ZREM', 'dmft:expiring', id)
redis.call('DEL', job_key(id), 'dmft:events:' .. id)
return {'deleted', artifact}
