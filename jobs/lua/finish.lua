-- ARGV: id, epoch, status, error JSON or '', artifact or '', retention ms. Returns ok or lost.
local id = ARGV[1]
if not holds(id, ARGV[2]) then return 'lost' end
stop_running(id)
settle(id, ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6]))
return 'ok'
