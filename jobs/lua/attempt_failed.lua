-- The solver died. ARGV: id, epoch, error JSON, max attempts, retention ms. Returns the new status or lost.
local id, epoch = ARGV[1], ARGV[2]
local call = 'attempt_failed:' .. redis.sha1hex(ARGV[3])
if not holds(id, epoch) then return answered(id, epoch, call) end
return attempt_failed(id, epoch, call, ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]))
