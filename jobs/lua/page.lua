-- ARGV: owner or '', status or '', tag or '', upper end of numbers as in ZRANGEBYSCORE, most jobs, then fields.
-- Returns {where the next page begins or '', {place in the owner's queue or nil, field...}, ...}, newest first.
-- Changes nothing.
local owner, status, tag, below, limit = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local lists = {}
if status == '' and tag == '' then
  lists[1] = owner == '' and 'dmft:jobs' or 'dmft:jobs:' .. owner
else
  for _, one in ipairs(status == '' and STATUSES or {status}) do
    lists[#lists + 1] = list_key(one, tag ~= '' and tag, owner)
  end
end
local found = {}
for _, list in ipairs(lists) do
  local part = redis.call('ZREVRANGEBYSCORE', list, below, '-inf', 'WITHSCORES', 'LIMIT', 0, limit + 1)
  for i = 1, #part, 2 do found[#found + 1] = {id = part[i], seq = tonumber(part[i + 1])} end
end
table.sort(found, function(a, b) return a.seq > b.seq end)
local answer = {''}
if #found > limit then answer[1] = string.format('%.0f', found[limit].seq) end
for i = 1, math.min(#found, limit) do
  local id = found[i].id
  local job = redis.call('HMGET', job_key(id), 'status', 'owner')
  -- What another version changed without these lists is left out until they are mended.
  if job[1] and (status == '' or job[1] == status) then
    local row = {job[1] == QUEUED and redis.call('ZRANK', 'dmft:queue:' .. job[2], id)}
    for j = 6, #ARGV do row[#row + 1] = redis.call('HGET', job_key(id), ARGV[j]) end
    answer[#answer + 1] = row
  end
end
return answer
