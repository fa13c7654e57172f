-- The account of documents that are ingested: which version of a document a message is, which of its
-- chunks are stored, how it ended, and for each run how many did.
--
-- KEYS[1]  the prefix of all keys. One Redis, no Cluster: the other names are made from it.
-- ARGV     how long an account is kept in ms, tenant, collection, doc_id, ingest_id (empty: no run),
--          and the operation, one of
--          'open', message id            a document's message is taken up
--          'look', version               what is known of this version
--          'batch', version, first, chunks, total    these chunks are in the store
--          'done', version, total        all are, and lower versions are gone
--          'failed', version, reason     it will not be stored
-- Answer   of open, look, batch, done, failed: state, version, accepted. state is open, complete (all
--          chunks are in, and it was not counted yet), done or failed; accepted the highest version that
--          was complete, 0 when none is known. Numbers are text: they may pass 2^53.
--
-- Why nothing is counted twice: a message keeps the version that it was given, a version's batches are
-- fields of one hash, and its ending is set once; the run is counted in the same step.
-- A version is the time in microseconds, or one more than the last: it grows also when Redis lost it.
-- A version is accepted before lower ones are deleted, so that a late batch of a lower one finds out
-- after its write and deletes it again.

local prefix, ttl = KEYS[1], tonumber(ARGV[1])
local tenant, collection, doc_id, ingest_id = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local FAILURES_MAX = 1000

local function plain(name)
  return (string.gsub(name, '[%%:]', function(c) return string.format('%%%02X', string.byte(c)) end))
end

local function keep(key)
  redis.call('PEXPIRE', key, ttl)
end

local scope = plain(tenant) .. ':' .. plain(collection) .. ':' .. doc_id
local doc = prefix .. ':ingest:doc:' .. scope
local run = prefix .. ':ingest:run:' .. plain(tenant) .. ':' .. plain(ingest_id)

local function version_key(version)
  return prefix .. ':ingest:version:' .. version .. ':' .. scope
end

-- Versions as text of the same length compare like numbers.
local function is_higher(a, b)
  return #a > #b or (#a == #b and a > b)
end

local function accepted()
  return redis.call('HGET', doc, 'accepted') or '0'
end

local function answer(version)
  return {redis.call('HGET', version_key(version), 'state') or 'open', version, accepted()}
end

-- A run is counted from its begin (ingest_read.lua) until Redis loses it.
local is_counted = ingest_id ~= '' and redis.call('HEXISTS', run, 'began') == 1

local function now_ms()
  local time = redis.call('TIME')
  return string.format('%d%03d', time[1], math.floor(time[2] / 1000))
end

local function count(field, by)
  if is_counted then
    redis.call('HINCRBY', run, field, by)
    redis.call('HSET', run, 'moved', now_ms())
    keep(run)
  end
end

-- True when the version had not ended before. Its batches need not be known any more.
local function finish(version, state)
  local key = version_key(version)
  if redis.call('HEXISTS', key, 'state') == 1 then
    return false
  end
  redis.call('DEL', key)
  redis.call('HSET', key, 'state', state)
  keep(key)
  return true
end

local ops = {}

function ops.open(message)
  local key = prefix .. ':ingest:message:' .. message
  local version = redis.call('GET', key)
  if not version then
    local time = redis.call('TIME')
    version = string.format('%d%06d', time[1], time[2])
    local last = redis.call('HGET', doc, 'version') or '0'
    if not is_higher(version, last) then
      redis.call('HINCRBY', doc, 'version', 1)
      version = redis.call('HGET', doc, 'version')
    end
    redis.call('HSET', doc, 'version', version)
    if accepted() == '0' then
      keep(doc)
    end
    redis.call('SET', key, version, 'PX', ttl)
    count('taken', 1)
  end
  return answer(version)
end

function ops.look(version)
  return answer(version)
end

function ops.batch(version, first, chunks, total)
  local key = version_key(version)
  if redis.call('HEXISTS', key, 'state') == 1 then
    return answer(version)
  end
  if redis.call('HSETNX', key, 'batch ' .. first, chunks) == 1 then
    redis.call('HINCRBY', key, 'chunks', chunks)
    count('stored', chunks)
  end
  keep(key)
  if tonumber(redis.call('HGET', key, 'chunks')) < tonumber(total) then
    return answer(version)
  end
  if is_higher(version, accepted()) then
    redis.call('HSET', doc, 'accepted', version, 'chunks', total, 'stored_ms', now_ms())
    redis.call('ZADD', prefix .. ':ingest:docs:' .. plain(tenant) .. ':' .. plain(collection), 0, doc_id)
    redis.call('PERSIST', doc)
  end
  return {'complete', version, accepted()}
end

function ops.done(version, total)
  if finish(version, 'done') then
    count('processed', 1)
    count('total_chunks', total)
  end
  return answer(version)
end

function ops.failed(version, reason)
  if finish(version, 'failed') then
    count('failed', 1)
    if is_counted and redis.call('LLEN', run .. ':failures') < 2 * FAILURES_MAX then
      redis.call('RPUSH', run .. ':failures', doc_id, reason)
      keep(run .. ':failures')
    end
  end
  return answer(version)
end

return ops[ARGV[6]](unpack(ARGV, 7))
