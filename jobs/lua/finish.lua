-- ARGV: id, epoch, status, error JSON or '', artifact or '', retention ms, reuse key and content
-- hash of the result if they are others than the record's, else ''. Returns ok or lost.
local id, epoch = ARGV[1], ARGV[2]
local call = 'finish:' .. ARGV[3] .. ':' .. ARGV[5] .. ':' .. redis.sha1hex(ARGV[4])
if not holds(id, epoch) then return answered(id, epoch, call) end
end_attempt(id, epoch, call, 'ok')
if ARGV[7] ~= '' then redis.call('HSET', job_key(id), 'reuse_key', ARGV[7], 'content_hash', ARGV[8]) end
settle(id, ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6]))
return 'ok'
