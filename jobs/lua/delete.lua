-- ARGV: id, ms that its tombstone lasts, id of this call. Returns {outcome, files to remove or ''}: deleted, unfinished
-- or unknown. A call that was refused and comes again after the job's end is refused still.
local id, refused = ARGV[1], 'dmft:refused:' .. ARGV[3]
if redis.call('EXISTS', refused) == 1 then return {'unfinished', ''} end
local status = redis.call('HGET', job_key(id), 'status')
if not status then
  local grave = tombstone(id)
  if grave and grave.why == 'deleted' then return {'deleted', grave.files} end
  return {'unknown', ''}
end
if not FINAL[status] then
  redis.call('SET', refused, '', 'PX', REPEATED_MS)
  return {'unfinished', ''}
end
return {'deleted', forget(id, 'deleted', tonumber(ARGV[2]))}
