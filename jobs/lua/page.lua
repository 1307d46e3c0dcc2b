-- ARGV: owner or '', status or '', tag or '', upper end of numbers as in ZRANGEBYSCORE, most jobs, then fields.
-- Returns JSON, which clients read faster than lists: {after: where the next page begins or '', rows: [[id, place in
-- the owner's queue or false, field or false...], ...]}, newest first. Changes nothing.
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
local answer = {after = '', rows = {}}
if #found > limit then answer.after = string.format('%.0f', found[limit].seq) end
local fields = {}
for j = 6, #ARGV do fields[#fields + 1] = ARGV[j] end
for i = 1, math.min(#found, limit) do
  local id = found[i].id
  local row = redis.call('HMGET', job_key(id), 'status', 'owner', unpack(fields))
  local now_is, whose = row[1], row[2]
  -- What another version changed without these lists is left out until they are mended.
  if now_is and (status == '' or now_is == status) then
    row[1], row[2] = id, now_is == QUEUED and redis.call('ZRANK', 'dmft:queue:' .. whose, id)
    answer.rows[#answer.rows + 1] = row
  end
end
return cjson.encode(answer)
