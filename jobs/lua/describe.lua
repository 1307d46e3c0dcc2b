-- Completes a record that an earlier version wrote. ARGV: id, field, value, ...
-- What it has already stays, and a job that is gone stays gone.
local id = ARGV[1]
if redis.call('EXISTS', job_key(id)) == 0 then return 0 end
for i = 2, #ARGV, 2 do redis.call('HSETNX', job_key(id), ARGV[i], ARGV[i + 1]) end
return 1
