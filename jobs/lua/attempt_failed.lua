-- The solver died. ARGV: id, epoch, error JSON, max attempts, retention ms. Returns the new status or lost.
local id = ARGV[1]
if not holds(id, ARGV[2]) then return 'lost' end
attempt_failed(id, ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]))
return redis.call('HGET', job_key(id), 'status')
