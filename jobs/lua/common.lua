-- Prepended to every script: the clock, and the pieces that transitions share.
-- Keys are built from ids, so this store needs one Redis server, not a cluster.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function job_key(id) return 'dmft:job:' .. id end

local function event(id, kind, data)
  redis.call('XADD', 'dmft:events:' .. id, 'MAXLEN', '~', 2000, '*', 'kind', kind, 'data', data)
end

local function status_event(id, status)
  local job = redis.call('HMGET', job_key(id), 'attempts', 'error')
  local data = {status = status, attempts = tonumber(job[1])}
  if job[2] and job[2] ~= '' then data.error = cjson.decode(job[2]) end
  event(id, 'status', cjson.encode(data))
end

-- Lists of jobs in order of their numbers, by status, each for all jobs and for those with a tag, of all owners
-- and of one. A record's `listed` names the status that it is listed under.
local function list_key(status, tag, owner)
  return 'dmft:list:' .. status .. ':' .. (tag and redis.sha1hex(tag) or '') .. ':' .. (owner or '')
end

local function each_list(id, status, act)
  local job = redis.call('HMGET', job_key(id), 'owner', 'tags')
  local readable, tags = pcall(cjson.decode, job[2] or '[]')
  for _, owner in ipairs({'', job[1]}) do
    act(list_key(status, nil, owner))
    for _, tag in ipairs(readable and type(tags) == 'table' and tags or {}) do
      act(list_key(status, tostring(tag), owner))
    end
  end
end

local function unlist(id)
  local listed = redis.call('HGET', job_key(id), 'listed')
  if listed then each_list(id, listed, function(key) redis.call('ZREM', key, id) end) end
end

-- The one place where a job's status changes.
local function set_status(id, status)
  unlist(id)
  local seq = redis.call('HGET', job_key(id), 'seq')
  redis.call('HSET', job_key(id), 'status', status, 'listed', status)
  each_list(id, status, function(key) redis.call('ZADD', key, seq, id) end)
end

local function enqueue(id)
  local job = redis.call('HMGET', job_key(id), 'owner', 'priority', 'seq')
  -- Higher priority first, then first come, first served.
  redis.call('ZADD', 'dmft:queue:' .. job[1], -tonumber(job[2]) * 1e12 + tonumber(job[3]), id)
  redis.call('SADD', 'dmft:waiting', job[1])
end

local function dequeue(id, owner)
  redis.call('ZREM', 'dmft:queue:' .. owner, id)
  if redis.call('ZCARD', 'dmft:queue:' .. owner) == 0 then
    redis.call('SREM', 'dmft:waiting', owner)
  end
end

local function stop_running(id)
  redis.call('ZREM', 'dmft:leases', id)
  redis.call('SREM', 'dmft:running:' .. redis.call('HGET', job_key(id), 'owner'), id)
end

-- A call may come again: a client that heard no answer sends it again, and one sent twice may arrive in
-- either order. `call` names what was asked for; the record keeps what ended each attempt and the answer.
local REPEATED_MS = 120000

local function claim_key(token) return 'dmft:claim:' .. token end

local function end_attempt(id, epoch, call, answer)
  stop_running(id)
  redis.call('HSET', job_key(id), 'ended:' .. epoch, cjson.encode({call = call, answer = answer}))
  local token = redis.call('HGET', job_key(id), 'claim')
  if token then redis.call('PEXPIRE', claim_key(token), REPEATED_MS) end
end

-- The answer to a holder whose attempt has ended: the one it had if it asked for this end, else lost.
local function answered(id, epoch, call)
  local kept = redis.call('HGET', job_key(id), 'ended:' .. epoch)
  local ended = kept and cjson.decode(kept)
  if ended and ended.call == call then return ended.answer end
  return 'lost'
end

local function requeue(id)
  set_status(id, QUEUED)
  redis.call('HSET', job_key(id), 'progress', '')
  enqueue(id)
  status_event(id, QUEUED)
end

-- Where a finished job's files are found by whoever asks for the same. Earlier versions' records call the key of
-- it request_hash.
local function done_key(id)
  local job = redis.call('HMGET', job_key(id), 'reuse_key', 'request_hash')
  return 'dmft:done:' .. (job[1] or job[2])
end

-- A final status: never left again. `artifact` names the stored files, '' when there are none.
local function settle(id, status, err, artifact, retention)
  set_status(id, status)
  redis.call('HSET', job_key(id), 'finished_at', now, 'error', err,
    'artifact', artifact, 'expires_at', now + retention)
  redis.call('ZADD', 'dmft:expiring', now + retention, id)
  if artifact ~= '' then redis.call('SADD', 'dmft:refs:' .. artifact, id) end
  if status == SUCCEEDED then
    redis.call('SET', done_key(id), id)
  end
  status_event(id, status)
end

-- Whether `epoch` still holds the job; a stale holder must not touch it.
local function holds(id, epoch)
  local job = redis.call('HMGET', job_key(id), 'status', 'epoch')
  return job[1] == RUNNING and job[2] == epoch
end

-- Ends a running attempt that produced nothing: another try, or the end. Returns the new status.
local function attempt_failed(id, epoch, call, err, max_attempts, retention)
  local job = redis.call('HMGET', job_key(id), 'attempts', 'cancel_requested')
  local status = FAILED
  if job[2] == '1' then
    status, err = CANCELLED, ''
  elseif tonumber(job[1]) < max_attempts then
    status = QUEUED
  end
  end_attempt(id, epoch, call, status)
  if status == QUEUED then requeue(id) else settle(id, status, err, '', retention) end
  return status
end

-- Files that nothing refers to stay in this set until somebody says that they are removed.
local function discard(name) redis.call('SADD', 'dmft:discarded', name) end

-- Drops a job's hold on its files; returns their name once nothing else holds them.
local function unref(id)
  local artifact = redis.call('HGET', job_key(id), 'artifact')
  if not artifact or artifact == '' then return '' end
  redis.call('SREM', 'dmft:refs:' .. artifact, id)
  redis.call('HSET', job_key(id), 'artifact', '')
  local done = done_key(id)
  local heir = redis.call('SRANDMEMBER', 'dmft:refs:' .. artifact)
  if redis.call('GET', done) == id then
    if heir then redis.call('SET', done, heir) else redis.call('DEL', done) end
  end
  if heir then return '' end
  discard(artifact)
  return artifact
end

-- A few words that outlive a job for a while: whose it was, why it went, and what its last calls answered.
local function tombstone_key(id) return 'dmft:gone:' .. id end

local function tombstone(id)
  local kept = redis.call('GET', tombstone_key(id))
  return kept and cjson.decode(kept)
end

-- Removes a finished job with all that belongs to it. Returns the files that nothing refers to any more, or ''.
local function forget(id, why, lasts)
  redis.call('ZREM', 'dmft:expiring', id)
  local job = redis.call('HMGET', job_key(id), 'owner', 'outcome')
  if not job[1] then return '' end
  local files = unref(id)
  unlist(id)
  redis.call('ZREM', 'dmft:jobs', id)
  redis.call('ZREM', 'dmft:jobs:' .. job[1], id)
  redis.call('DEL', job_key(id), 'dmft:events:' .. id)
  redis.call('SET', tombstone_key(id), cjson.encode({
    owner = job[1], outcome = job[2] or 'created', why = why, at = now, files = files}), 'PX', lasts)
  return files
end
