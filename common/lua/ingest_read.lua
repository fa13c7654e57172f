-- Runs of ingestion and documents, as gateway and command line see them. What workers count is written
-- by ingest_account.lua; the keys are in docs/REDIS.md.
--
-- KEYS[1]  the prefix of all keys. One Redis, no Cluster: the other names are made from it.
-- ARGV     how long a run is kept in ms, tenant, and the operation, one of
--          'begin', ingest_id, collection, source
--          'close', ingest_id, documents on the topic
--          'refuse', ingest_id, doc_id, reason       one that never came to the topic
--          'read', ingest_id, failures known
--          'runs', most                              the tenant's, the latest first
--          'documents', collection, after, most      in byte order behind `after` (empty: from the first)
-- Answer   of begin, close, refuse: 1; 0 when the run is not known (Redis lost it, or its time is over).
--          A run, or nothing: ingest_id, collection, source, documents ('' while it is not closed),
--          then numbers: processed, failed, skipped, refused, taken, total_chunks, stored, cut, began,
--          moved (failed: of those on the topic); of read then doc_id and reason in turn of the failures behind those that are known.
--          Of runs an array of them. Of documents: 1 if there are more, then of each doc_id, version,
--          chunks, bytes, stored_ms, 1 while it changes. Numbers are text: they may pass 2^53.
--
-- A run is known from its begin until it was still for its time. What comes for one that is not known is
-- not counted: a part of a run would look like a whole one that never ends.

local prefix, ttl, tenant = KEYS[1], tonumber(ARGV[1]), ARGV[2]
local FAILURES_MAX, PRUNED, PAGE = 1000, 16, 100

local function plain(name)
  return (string.gsub(name, '[%%:]', function(c) return string.format('%%%02X', string.byte(c)) end))
end

local runs = prefix .. ':ingest:runs:' .. plain(tenant)

local function run_key(id)
  return prefix .. ':ingest:run:' .. plain(tenant) .. ':' .. plain(id)
end

local function now_ms()
  local time = redis.call('TIME')
  return string.format('%d%03d', time[1], math.floor(time[2] / 1000))
end

local function is_known(run)
  return redis.call('HEXISTS', run, 'began') == 1
end

local function touch(run)
  redis.call('HSET', run, 'moved', now_ms())
  redis.call('PEXPIRE', run, ttl)
end

local COUNTS = {'processed', 'failed', 'skipped', 'refused', 'taken', 'total_chunks', 'stored', 'cut', 'began',
                'moved'}

local function describe(id)
  local run = run_key(id)
  local texts = redis.call('HMGET', run, 'collection', 'source', 'documents')
  local counts = redis.call('HMGET', run, unpack(COUNTS))
  local reply = {id, texts[1] or '', texts[2] or '', texts[3] or ''}
  for i = 1, #COUNTS do
    reply[4 + i] = counts[i] or '0'
  end
  return reply
end

-- Of the runs that began first, those that are over: more than are made anew.
local function prune()
  for _, id in ipairs(redis.call('ZRANGE', runs, 0, PRUNED - 1)) do
    if not is_known(run_key(id)) then
      redis.call('ZREM', runs, id)
    end
  end
end

local ops = {}

function ops.begin(id, collection, source)
  local run = run_key(id)
  if not is_known(run) then
    local now = now_ms()
    redis.call('HSET', run, 'collection', collection, 'source', source, 'began', now)
    redis.call('ZADD', runs, now, id)
    prune()
  end
  touch(run)
  return 1
end

function ops.close(id, documents)
  local run = run_key(id)
  if not is_known(run) then
    return 0
  end
  redis.call('HSET', run, 'documents', documents)
  touch(run)
  return 1
end

function ops.refuse(id, doc_id, reason)
  local run = run_key(id)
  if not is_known(run) then
    return 0
  end
  if redis.call('SADD', run .. ':refused', doc_id) == 1 then
    redis.call('HINCRBY', run, 'refused', 1)
    if redis.call('LLEN', run .. ':failures') < 2 * FAILURES_MAX then
      redis.call('RPUSH', run .. ':failures', doc_id, reason)
    end
  end
  touch(run)
  redis.call('PEXPIRE', run .. ':refused', ttl)
  redis.call('PEXPIRE', run .. ':failures', ttl)
  return 1
end

function ops.read(id, known)
  local run = run_key(id)
  if not is_known(run) then
    return {}
  end
  local reply = describe(id)
  local failures = redis.call('LRANGE', run .. ':failures', 2 * tonumber(known), -1)
  for i = 1, #failures do
    reply[#reply + 1] = failures[i]
  end
  return reply
end

-- Page by page: there may be very many, and few are wanted.
function ops.runs(most)
  local reply, at, ids = {}, 0, nil
  repeat
    ids = redis.call('ZREVRANGE', runs, at, at + PAGE - 1)
    for _, id in ipairs(ids) do
      if #reply < tonumber(most) and is_known(run_key(id)) then
        reply[#reply + 1] = describe(id)
      end
    end
    at = at + PAGE
  until #reply >= tonumber(most) or #ids < PAGE
  return reply
end

-- What is on its way has a field `open VERSION` (ingest_account.lua). Versions have the same length.
local function is_changing(entry)
  for i = 1, #entry, 2 do
    if string.sub(entry[i], 1, 5) == 'open ' and string.sub(entry[i], 6) > (entry.accepted or '') then
      return true
    end
  end
  return false
end

local function entry_of(key)
  local entry = redis.call('HGETALL', key)
  for i = 1, #entry, 2 do
    entry[entry[i]] = entry[i + 1]
  end
  return entry
end

function ops.documents(collection, after, most)
  local scope = plain(tenant) .. ':' .. plain(collection)
  local from = after ~= '' and '(' .. after or '-'
  local ids = redis.call('ZRANGEBYLEX', prefix .. ':ingest:docs:' .. scope, from, '+', 'LIMIT', 0, most + 1)
  local reply = {#ids > tonumber(most) and 1 or 0}
  for i = 1, math.min(#ids, tonumber(most)) do
    local entry = entry_of(prefix .. ':ingest:doc:' .. scope .. ':' .. ids[i])
    local fields = {ids[i], entry.accepted or '0', entry.chunks or '0', entry.bytes or '0',
                    entry.stored_ms or '0', is_changing(entry) and '1' or '0'}
    for f = 1, #fields do
      reply[#reply + 1] = fields[f]
    end
  end
  return reply
end

return ops[ARGV[3]](unpack(ARGV, 4))
