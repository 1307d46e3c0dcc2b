-- ARGV: id, owner, idempotency key or '', body hash, queue limit, retention ms, JSON list of the keys by
-- which a finished result may be used again, then field, value, ...
-- Returns {outcome, id}: created, cached, replayed, conflict or full.
local id, owner, key, body, limit, retention = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
-- The caller made the id, so a record with it, or its tombstone, is this very submission's.
local outcome = redis.call('HGET', job_key(id), 'outcome')
local grave = tombstone(id)
if outcome or grave then return {outcome or grave.outcome, id} end
-- An answer that makes no record is kept by itself, for as long as the same call may come again: by then there may
-- be room, or the key be free.
local answered = 'dmft:answered:' .. id
local before = redis.call('HMGET', answered, 'outcome', 'id')
if before[1] then return before end
local function without_record(what, about)
  redis.call('HSET', answered, 'outcome', what, 'id', about)
  redis.call('PEXPIRE', answered, REPEATED_MS)
  return {what, about}
end
local idempotency = 'dmft:idempotency:' .. owner .. ':' .. key
if key ~= '' then
  local known = redis.call('HMGET', idempotency, 'id', 'body')
  -- A deleted job leaves its key free.
  if known[1] and redis.call('EXISTS', job_key(known[1])) == 1 then
    if known[2] == body then return without_record('replayed', known[1]) end
    return without_record('conflict', known[1])
  end
end
local fields = {}
for i = 8, #ARGV do fields[#fields + 1] = ARGV[i] end
local function create(outcome)
  local seq = redis.call('INCR', 'dmft:seq')
  redis.call('HSET', job_key(id), 'id', id, 'owner', owner, 'seq', seq, 'created_at', now,
    'attempts', 0, 'epoch', 0, 'cancel_requested', 0, 'outcome', outcome, unpack(fields))
  redis.call('ZADD', 'dmft:jobs', seq, id)
  redis.call('ZADD', 'dmft:jobs:' .. owner, seq, id)
  if key ~= '' then
    redis.call('HSET', idempotency, 'id', id, 'body', body)
    redis.call('PEXPIRE', idempotency, retention)
  end
end
for _, reuse_key in ipairs(cjson.decode(ARGV[7])) do
  local source = redis.call('GET', 'dmft:done:' .. reuse_key)
  local artifact = source and redis.call('HGET', job_key(source), 'artifact')
  if artifact and artifact ~= '' then
    create('cached')
    redis.call('HSET', job_key(id), 'cached', 1, 'started_at', now, 'reuse_key', reuse_key,
      'progress', redis.call('HGET', job_key(source), 'progress') or '')
    settle(id, SUCCEEDED, '', artifact, retention)
    return {'cached', id}
  end
end
if redis.call('ZCARD', 'dmft:queue:' .. owner) >= limit then return without_record('full', '') end
create('created')
set_status(id, QUEUED)
enqueue(id)
status_event(id, QUEUED)
return {'created', id}
