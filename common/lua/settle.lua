-- Writes what a process settled in one turn of its loop: permits given back, claims done or given back,
-- endings stored and acknowledged, queries cancelled, readers that come and go, cool-downs.
--
-- KEYS[1]  the prefix
-- ARGV     after the prelude's: number of operations, each one of
--          'release', limit, class, serial
--          'cool', limit, ms
--          'heal', limit, serial of the probe that succeeded
--          'done', kind, id, stage, fence, attempt
--          'stream', kind, id, stage, fence, attempt
--          'give_back', kind, id, stage, fence (0: whatever this process claimed), attempt, 1 if something
--             was shown
--          'end', id, stage, fence (0: without a claim), outcome, the ending's bytes
--          'ended', id, where its result is: PARTITION OFFSET (-1 -1: not known)
--          'cancel', id
--          'attach', id, place
--          'leave', id, place
--          'idempotent', name of an idempotency key, number of the request, 'produced' or 'failed'
-- Answer   after the prelude's, for each operation 0, EXISTS (another ending counts), LOST (the claim is
--          another's) or WANTED (of a release: somebody waited for it).
--
-- Why: each operation can be sent again after its answer was lost, with the same outcome. Releases come
-- first, since they succeed also on a Redis that is full.

local EXISTS, LOST, WANTED = 1, 2, 3
local ops = {}

local function tell_waiters(limit)
  if call('DEL', prefix .. ':wanted:' .. limit) == 0 then
    return false
  end
  call('PUBLISH', prefix .. ':hint', 'permit ' .. limit)
  return true
end

function ops.release()
  local limit, class, serial = arg(), arg(), arg()
  if call('ZREM', leases_key(limit, class), me .. ':' .. serial) == 1 and tell_waiters(limit) then
    return WANTED
  end
  return 0
end

function ops.done()
  local kind, id, stage, fence, attempt = arg(), arg(), arg(), arg(), arg()
  local key = work_key(kind, id)
  local text = call('HGET', key, stage)
  if text and not is_ours(text, fence) then
    return LOST
  end
  if kind == 'bulk' then
    call('HDEL', key, stage)
  else
    call('HSET', key, stage, claim_text('d', attempt, fence))
    keep(key, result_ttl)
  end
  tell_watchers(key, id)
  return 0
end

-- Before anything is shown of it: whoever finds it without its owner does not begin it again unasked.
function ops.stream()
  local kind, id, stage, fence, attempt = arg(), arg(), arg(), arg(), arg()
  local key = work_key(kind, id)
  if not is_ours(call('HGET', key, stage), fence) then
    return LOST
  end
  call('HSET', key, stage, claim_text('t', attempt, fence))
  keep(key, kind == 'bulk' and bulk_ttl or result_ttl) -- Redis may have lost the key.
  return 0
end

local function add_endings()
  ops['end'] = function()
    local id, stage, fence, outcome, bytes = arg(), arg(), arg(), arg(), arg()
    local key = work_key('query', id)
    local h = call('HMGET', key, stage, '.end_owner')
    if h[2] then
      return h[2] == me and 0 or EXISTS
    end
    if fence ~= '0' and not is_ours(h[1], fence) then
      return LOST
    end
    call('HSET', key, '.end', bytes, '.end_owner', me, '.end_epoch', format('%d', since), '.outcome', outcome)
    keep(key, result_ttl)
    tell_watchers(key, id)
    return 0
  end

  -- The bytes are needed no more: what is left says that the query has ended, and where its result is. One
  -- that was produced again is there twice: the first place stays.
  function ops.ended()
    local id, place = arg(), arg()
    local key = work_key('query', id)
    local h = call('HMGET', key, '.end_owner', '.end_acked')
    if h[1] ~= me then
      return LOST
    end
    if not h[2] or h[2] == '-1 -1' then
      call('HSET', key, '.end_acked', place)
    end
    call('HDEL', key, '.end')
    keep(key, result_ttl)
    tell_watchers(key, id)
    return 0
  end
end

local function add_readers()
  local of = readers()

  function ops.cancel()
    local id = arg()
    of.cancel(work_key('query', id), id)
    return 0
  end

  function ops.attach()
    local key = work_key('query', arg())
    of.attach(key, arg())
    return 0
  end

  -- In the quarantine another gateway may not have told yet that it is attached: an empty list makes the
  -- query an orphan afterwards unless somebody does.
  function ops.leave()
    local id, place = arg(), arg()
    local key = work_key('query', id)
    of.attach(key, place) -- Redis may have lost the query.
    local h = call('HMGET', key, '.gateways', '.open', '.cancelled', '.end_owner')
    local others = table.concat(of.without_me(h[1]), ' ')
    call('HSET', key, '.gateways', others)
    local continues = string.match(h[2], ' %-1$')
    if others == '' and not continues and quarantine == 0 and not h[3] and not h[4] then
      of.cancel(key, id)
    end
    return 0
  end
end

local function add_others()
  -- The limit is half-open from the end of the cool-down until a probe succeeds; when nobody calls, ten
  -- minutes.
  function ops.cool()
    local key, ends = cool_key(arg()), now + num()
    if ends > (tonumber(call('HGET', key, 'until')) or 0) then
      call('HSET', key, 'until', format('%d', ends))
      call('HDEL', key, 'probe')
      call('PEXPIRE', key, format('%d', ends - now + 40 * ttl))
    end
    return 0
  end

  function ops.heal()
    local limit, serial = arg(), arg()
    if call('HGET', cool_key(limit), 'probe') == me .. ':' .. serial then
      call('DEL', cool_key(limit))
      tell_waiters(limit)
    end
    return 0
  end

  -- Also what Redis lost: else a generation that was shown could be begun again unasked.
  function ops.give_back()
    local kind, id, stage, fence, attempt, shown = arg(), arg(), arg(), arg(), arg(), arg() == '1'
    local key = work_key(kind, id)
    local text = call('HGET', key, stage)
    local state, owner, known_attempt, known_fence = read_claim(text)
    if is_running(state) and owner == me and (fence == '0' or known_fence == fence) then
      attempt, fence = known_attempt, known_fence
    elseif fence == '0' or not was_lost(text, fence) then
      return LOST
    end
    call('HSET', key, stage, claim_text((shown or state == 't') and 'g' or 'f', attempt, fence))
    if not text then
      keep(key, kind == 'bulk' and bulk_ttl or result_ttl)
    end
    tell_watchers(key, id)
    return 0
  end

  -- A key that went to another request meanwhile is left alone; one that was taken over is left to whoever
  -- asks next, since the job may have been produced before.
  function ops.idempotent()
    local key, request, state = prefix .. ':idem:' .. arg(), arg(), arg()
    local h = call('HMGET', key, 'gateway', 'request')
    if h[1] ~= me or h[2] ~= request then
      return LOST
    end
    if state == 'produced' then
      call('HSET', key, 'state', state)
      call('PEXPIRE', key, result_ttl)
    elseif call('HDEL', key, 'taken') == 1 then
      call('HDEL', key, 'gateway')
    else
      call('DEL', key)
    end
    return 0
  end
end

local answer = {now, quarantine}
for i = 1, num() do
  local name = arg()
  if not ops[name] then
    local add = (name == 'end' or name == 'ended') and add_endings
      or (name == 'cancel' or name == 'attach' or name == 'leave') and add_readers or add_others
    add()
  end
  answer[i + 2] = ops[name]()
end
return answer
