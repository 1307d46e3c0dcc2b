-- ARGV: id, epoch, status, error JSON or '', artifact or '', retention ms. Returns ok or lost.
local id, epoch = ARGV[1], ARGV[2]
local call = 'finish:' .. ARGV[3] .. ':' .. ARGV[5] .. ':' .. redis.sha1hex(ARGV[4])
if not holds(id, epoch) then return answered(id, epoch, call) end
end_attempt(id, epoch, call, 'ok')
settle(id, ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6]))
return 'ok'
