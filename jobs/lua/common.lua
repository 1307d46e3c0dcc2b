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

local function requeue(id)
  stop_running(id)
  redis.call('HSET', job_key(id), 'status', 'queued', 'progress', '')
  enqueue(id)
  status_event(id, 'queued')
end

-- A final status: never left again. `artifact` names the stored files, '' when there are none.
local function settle(id, status, err, artifact, retention)
  redis.call('HSET', job_key(id), 'status', status, 'finished_at', now, 'error', err,
    'artifact', artifact, 'expires_at', now + retention)
  redis.call('ZADD', 'dmft:expiring', now + retention, id)
  if artifact ~= '' then redis.call('SADD', 'dmft:refs:' .. artifact, id) end
  if status == 'succeeded' then
    redis.call('SET', 'dmft:done:' .. redis.call('HGET', job_key(id), 'request_hash'), id)
  end
  status_event(id, status)
end

-- Whether `epoch` still holds the job; a stale holder must not touch it.
local function holds(id, epoch)
  local job = redis.call('HMGET', job_key(id), 'status', 'epoch')
  return job[1] == 'running' and job[2] == epoch
end

-- Ends a running attempt that produced nothing: another try, or the end.
local function attempt_failed(id, err, max_attempts, retention)
  local job = redis.call('HMGET', job_key(id), 'attempts', 'cancel_requested')
  if job[2] == '1' then
    stop_running(id)
    settle(id, 'cancelled', '', '', retention)
  elseif tonumber(job[1]) < max_attempts then
    requeue(id)
  else
    stop_running(id)
    settle(id, 'failed', err, '', retention)
  end
end

-- Drops a job's hold on its files; returns their name once nothing else holds them.
local function unref(id)
  local artifact = redis.call('HGET', job_key(id), 'artifact')
  if not artifact or artifact == '' then return '' end
  redis.call('SREM', 'dmft:refs:' .. artifact, id)
  redis.call('HSET', job_key(id), 'artifact', '')
  local done = 'dmft:done:' .. redis.call('HGET', job_key(id), 'request_hash')
  local heir = redis.call('SRANDMEMBER', 'dmft:refs:' .. artifact)
  if redis.call('GET', done) == id then
    if heir then redis.call('SET', done, heir) else redis.call('DEL', done) end
  end
  if heir then return '' end
  return artifact
end
