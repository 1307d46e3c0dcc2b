-- ARGV: id, ms that its tombstone lasts. Returns {outcome, files to remove or ''}: deleted, unfinished or unknown.
local id = ARGV[1]
local status = redis.call('HGET', job_key(id), 'status')
if not status then
  local grave = tombstone(id)
  if grave and grave.why == 'deleted' then return {'deleted', grave.files} end
  return {'unknown', ''}
end
if not FINAL[status] then return {'unfinished', ''} end
return {'deleted', forget(id, 'deleted', tonumber(ARGV[2]))}
