-- The account of documents that are ingested: which version of a document a message is, which of its
-- chunks are stored, which version can be found, and for each run what became of its documents.
--
-- KEYS[1]  the prefix of all keys. One Redis, no Cluster: the other names are made from it.
-- ARGV     how long an account is kept in ms, tenant, collection, doc_id, ingest_id (empty: no run),
--          and the operation, one of
--          'open', message id, hash (of the content and of all that its chunks depend on; empty: it is
--            only to fail), batch size, bytes, source, '1' if it is wanted though unchanged
--                                                        a document's message is taken up
--          'remove', message id, source                   likewise, that the document is to go
--          'cut', version, total                          it was cut into so many chunks
--          'look', version, place                         what is known of it, before a batch is written
--          'batch', version, place, chunks, total         these chunks are in the store
--          'done', version, place, total                  all are, and others are deleted; or, with total
--                                                         0, the store holds nothing of it any more
--          'failed', version, place, reason               it will not be stored
--          A place is the index of a batch's first chunk, or -1 for the document's own message. A source
--          is `PARTITION OFFSET TIME` of the message, or empty.
-- Answer   state, version, accepted, reason. state is
--          open      its chunks are wanted
--          complete  it was accepted, and is not counted yet: lower versions are to be deleted
--          old       a higher one was accepted before it: what is stored of it is to be deleted
--          done, failed   it has ended; reason: of a failure that this place noted and no run counts
--          skipped   nothing has changed since the accepted one, or the message comes late
--          lost      Redis knows nothing of it
--          accepted is the version that can be found, 0 when none is known. Numbers are text: they may
--          pass 2^53.
--
-- Why nothing is counted twice: a message keeps the version that it was given, a version's batches are
-- fields of one hash, and its ending is set once; the run is counted in the same step.
-- A version is the time in microseconds, or one more than the last: it grows also when Redis lost it.
-- It is accepted in the step that notes its last batch, before lower ones are deleted: a batch of a
-- lower one that was written late learns of it when it is noted.
--
-- <p>:ingest:changing holds the documents whose store may hold more than what can be found. So each
-- version that is open, and each batch that is being written (from look to batch, or to the done that
-- follows its deletion), is a field of the document; with the last of them it leaves the set.

local prefix, ttl = KEYS[1], tonumber(ARGV[1])
local tenant, collection, doc_id, ingest_id = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local FAILURES_MAX = 1000

local function plain(name)
  return (string.gsub(name, '[%%:]', function(c) return string.format('%%%02X', string.byte(c)) end))
end

local function keep(key)
  redis.call('PEXPIRE', key, ttl)
end

local space = plain(tenant) .. ':' .. plain(collection)
local scope = space .. ':' .. doc_id
local doc = prefix .. ':ingest:doc:' .. scope
local docs = prefix .. ':ingest:docs:' .. space
local changing = prefix .. ':ingest:changing'
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

local function answer(version, place)
  local known = redis.call('HMGET', version_key(version), 'state', 'place', 'reason', 'known')
  local highest, state, reason = accepted(), known[1], ''
  if state == 'failed' and known[2] == place then
    reason = known[3] or ''
  elseif not state and is_higher(highest, version) then
    state = 'old'
  elseif not state and not known[4] then
    state = 'lost'
  elseif not state then
    state = highest == version and 'complete' or 'open'
  end
  return {state, version, highest, reason}
end

-- A run is counted from its begin (ingest_read.lua) until Redis loses it.
local is_counted = ingest_id ~= '' and redis.call('HEXISTS', run, 'began') == 1

local function now_ms()
  local time = redis.call('TIME')
  return string.format('%d%03d', time[1], math.floor(time[2] / 1000))
end

local function count(field, by)
  if is_counted and by ~= 0 then
    redis.call('HINCRBY', run, field, by)
  end
end

local function touch()
  if is_counted then
    redis.call('HSET', run, 'moved', now_ms())
    keep(run)
  end
end

-- True when the version had not ended before. Its batches need not be known any more; what was cut of
-- it and not stored does not wait any more.
local function finish(version, state)
  local key = version_key(version)
  local known = redis.call('HMGET', key, 'state', 'total', 'chunks')
  if known[1] then
    return false
  end
  count('cut', tonumber(known[3] or 0) - tonumber(known[2] or known[3] or 0))
  redis.call('DEL', key)
  redis.call('HSET', key, 'known', 1, 'state', state)
  keep(key)
  touch()
  return true
end

-- Calls f with each field of the document that says something is on its way, and the field's version.
local function each_on_its_way(f)
  for _, field in ipairs(redis.call('HKEYS', doc)) do
    local version = string.match(field, '^open (%d+)$') or string.match(field, '^write (%d+) ')
    if version then
      f(field, version)
    end
  end
end

-- Nothing below the accepted version is in the store any more. A version that has ended writes no
-- more, nor does one that Redis forgot: it was still for its time.
local function drop_deleted(highest)
  each_on_its_way(function(field, version)
    local state = redis.call('HMGET', version_key(version), 'known', 'state')
    local is_open = string.sub(field, 1, 5) == 'open '
    if is_higher(highest, version) and (not state[1] or (is_open and state[2])) then
      redis.call('HDEL', doc, field)
    end
  end)
end

local function settle(version, place)
  redis.call('HDEL', doc, 'open ' .. version, 'write ' .. version .. ' ' .. place)
  local highest, busy = accepted(), false
  if highest == version then
    drop_deleted(highest)
  end
  each_on_its_way(function() busy = true end)
  if not busy then
    redis.call('SREM', changing, scope)
    if highest == '0' or redis.call('HEXISTS', doc, 'removed') == 1 then
      keep(doc)
    end
  end
end

-- A batch came again when its version was done and is the one that can be found: nobody else says that
-- it is not on its way any more.
local function settle_late(told, place)
  if told[1] == 'done' and told[3] == told[2] then
    settle(told[2], place)
  end
end

-- --- documents ---

local function begin_version(message)
  local time = redis.call('TIME')
  local version = string.format('%d%06d', time[1], time[2])
  local last = redis.call('HGET', doc, 'version') or '0'
  if not is_higher(version, last) then
    redis.call('HINCRBY', doc, 'version', 1)
    version = redis.call('HGET', doc, 'version')
  end
  redis.call('HSET', doc, 'version', version, 'open ' .. version, 1)
  redis.call('HSETNX', doc, 'floor', version)
  redis.call('PERSIST', doc)
  redis.call('SADD', changing, scope)
  redis.call('SET', message, version, 'PX', ttl)
  redis.call('HSET', version_key(version), 'known', 1)
  keep(version_key(version))
  return version
end

local function take_up(message, source)
  count('taken', 1)
  touch()
  redis.call('HSET', doc, 'last', source)
  return begin_version(message)
end

-- Whether a message that stands behind this one was taken up before it: a worker may die between taking
-- a message and asking for its version, and the next worker has others by then. In a topic that was
-- made anew offsets are lower, but times are not.
local function is_late(source)
  local form = '^(%d+) (%d+) (%d+)$'
  local partition, offset, time = string.match(source, form)
  local last, last_offset, last_time = string.match(redis.call('HGET', doc, 'last') or '', form)
  return partition and partition == last and tonumber(offset) < tonumber(last_offset) and
         tonumber(time) <= tonumber(last_time)
end

local function passed_over()
  return {'skipped', redis.call('HGET', doc, 'version') or '1', accepted(), ''}
end

local function pass_over(message, field)
  count('taken', 1)
  count(field, 1)
  touch()
  redis.call('SET', message, 'skipped', 'PX', ttl)
  return passed_over()
end

-- The accepted one has the same hash, its lower ones are deleted, and none is on its way behind it.
local function is_unchanged(hash)
  local known = redis.call('HMGET', doc, 'hash', 'removed')
  local highest, same = accepted(), hash ~= '' and known[1] == hash and not known[2]
  each_on_its_way(function(field, version)
    if string.sub(field, 1, 5) == 'open ' and not is_higher(highest, version) then
      same = false
    end
  end)
  return same
end

local ops = {}

function ops.open(id, hash, size, bytes, source, again)
  local message = prefix .. ':ingest:message:' .. id
  local version = redis.call('GET', message)
  if version == 'skipped' then
    return passed_over()
  end
  if not version and is_late(source) then
    return pass_over(message, 'processed')
  end
  if not version and again ~= '1' and is_unchanged(hash) then
    redis.call('HSET', doc, 'last', source)
    return pass_over(message, 'skipped')
  end
  local known = version and redis.call('HMGET', version_key(version), 'known', 'state', 'hash', 'size') or {}
  if not version then
    version = take_up(message, source)
  elseif not known[1] then
    version = begin_version(message) -- Redis has forgotten the first.
  elseif not known[2] and hash ~= '' and (known[3] ~= hash or known[4] ~= size) then
    -- Taken up again with other settings: batches of both would not fit together.
    finish(version, 'failed')
    version = begin_version(message)
  end
  if not known[2] then
    redis.call('HSET', version_key(version), 'hash', hash, 'size', size, 'bytes', bytes)
  end
  return answer(version, '-1')
end

function ops.remove(id, source)
  local message = prefix .. ':ingest:message:' .. id
  local version = redis.call('GET', message)
  if version == 'skipped' then
    return passed_over()
  end
  if not version and is_late(source) then
    return pass_over(message, 'processed')
  end
  if not version then
    version = take_up(message, source)
    redis.call('HDEL', doc, 'hash', 'chunks', 'bytes', 'stored_ms')
    redis.call('HSET', doc, 'accepted', version, 'removed', 1)
    redis.call('ZREM', docs, doc_id)
  end
  return answer(version, '-1')
end

function ops.cut(version, total)
  local told = answer(version, '-1')
  if told[1] == 'open' and redis.call('HSETNX', version_key(version), 'total', total) == 1 then
    count('cut', tonumber(total))
    touch()
  end
  return told
end

-- --- batches ---

function ops.look(version, place)
  local told = answer(version, place)
  if told[1] == 'open' or told[1] == 'complete' then
    redis.call('HSET', doc, 'write ' .. version .. ' ' .. place, 1)
    keep(version_key(version))
  end
  settle_late(told, place)
  return told
end

local function accept(version, total)
  local of = redis.call('HMGET', version_key(version), 'hash', 'bytes')
  redis.call('HSET', doc, 'accepted', version, 'hash', of[1] or '', 'bytes', of[2] or '0', 'chunks', total,
             'stored_ms', now_ms())
  redis.call('HDEL', doc, 'removed')
  redis.call('ZADD', docs, 0, doc_id)
end

function ops.batch(version, place, chunks, total)
  local key, told = version_key(version), answer(version, place)
  if told[1] ~= 'open' and told[1] ~= 'complete' then
    if told[3] == version then
      redis.call('HDEL', doc, 'write ' .. version .. ' ' .. place)
    end
    settle_late(told, place)
    return told
  end
  redis.call('HDEL', doc, 'write ' .. version .. ' ' .. place)
  if redis.call('HSETNX', key, 'batch ' .. place, chunks) == 1 then
    redis.call('HINCRBY', key, 'chunks', chunks)
    count('stored', tonumber(chunks))
    touch()
  end
  keep(key)
  if told[1] == 'open' and tonumber(redis.call('HGET', key, 'chunks')) >= tonumber(total) then
    accept(version, total)
  end
  return answer(version, place)
end

-- --- endings ---

function ops.done(version, place, total)
  if finish(version, 'done') then
    count('processed', 1)
    count('total_chunks', tonumber(total))
  end
  local told = answer(version, place)
  settle(version, place)
  return told
end

function ops.failed(version, place, reason)
  if finish(version, 'failed') then
    count('failed', 1)
    if not is_counted then
      redis.call('HSET', version_key(version), 'place', place, 'reason', reason)
    elseif redis.call('LLEN', run .. ':failures') < 2 * FAILURES_MAX then
      redis.call('RPUSH', run .. ':failures', doc_id, reason)
      keep(run .. ':failures')
    end
  end
  if accepted() == version then -- What a batch wrote again is what was there.
    redis.call('HDEL', doc, 'write ' .. version .. ' ' .. place)
  end
  return answer(version, place)
end

return ops[ARGV[6]](unpack(ARGV, 7))
