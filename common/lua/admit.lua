-- Admits jobs and grants permits, as many of one process as gathered, in the order given (by deadline).
--
-- KEYS[1]  the prefix
-- ARGV     after the prelude's: number of limits, each: name, limit, most for queries, most for bulk;
--          number of items, each one of
--          'permit', index of the limit (from 1), class ('query' or 'bulk'), serial
--          'job', kind ('query' or 'bulk'), id, stage, deadline in ms (0: none), 1 if a claim is wanted,
--             what may be granted (0 nothing, 1 all but suspects, 2 suspects too), 1 if STREAMED is to
--             begin it again, owner that the process observed dead ('' none), number of permits, each:
--             limit, class, serial
-- Answer   after the prelude's, for each item an array that begins with a code:
--          GRANTED, fence, attempt, granted permits as bits (first: 1), those of them that are probes
--             likewise; so also CANCELLED, EXPIRED and WORN_OUT, without permits, and STREAMED, with those
--             that were free
--          WAIT, ms until asking again can help
--          HELD, 1 for a suspect: it may not be granted now
--          PARKED, owner that holds it, that owner's heartbeat
--          DONE and ENDED alone; ENDING, the ending's bytes
--
-- Why in one script: what a job may do depends on its ending, its cancellation, its claim and the
-- permits together, and the answer must not be out of date when the next question is asked.
--
-- A suspect, whose owners died twice, is granted only where nothing else runs, and has no claim before:
-- what has one when its process dies has lost an owner itself.

local GRANTED, PARKED, DONE, ENDED, ENDING, CANCELLED, EXPIRED, WORN_OUT = 0, 1, 2, 3, 4, 5, 6, 7
local STREAMED, WAIT, HELD = 8, 9, 10
local MAX_ATTEMPTS = 3

local limits = {}
for i = 1, num() do
  limits[i] = {name = arg(), most = arg(), query = arg(), bulk = arg()}
end
local lease_end = format('%d', now + ttl)

local function count(l)
  l.held = {query = call('ZCARD', leases_key(l.name, 'query')), bulk = call('ZCARD', leases_key(l.name, 'bulk'))}
end

-- Those that ended, of processes that died, count until a limit seems to be full.
local function drop_ended(l)
  if not l.dropped then
    l.dropped = true
    call('ZREMRANGEBYSCORE', leases_key(l.name, 'query'), '-inf', format('%d', now))
    call('ZREMRANGEBYSCORE', leases_key(l.name, 'bulk'), '-inf', format('%d', now))
    count(l)
  end
end

local function read_cool_down(l)
  local cool = call('HMGET', cool_key(l.name), 'until', 'probe')
  l.cooling = math.max(0, (tonumber(cool[1]) or 0) - now)
  l.half_open = cool[1] and l.cooling == 0
  if l.half_open and cool[2] then
    drop_ended(l)
    l.probed = call('ZSCORE', leases_key(l.name, 'query'), cool[2])
      or call('ZSCORE', leases_key(l.name, 'bulk'), cool[2])
  end
end

-- What is known of a limit, read once a script.
local function leases(l)
  if not l.held then
    l.most, l.query, l.bulk, l.cooling = l.most + 0, l.query + 0, l.bulk + 0, 0
    count(l)
    if call('EXISTS', cool_key(l.name)) == 1 then
      read_cool_down(l)
    end
  end
  return l
end

local function is_full(l, class)
  return l.held.query + l.held.bulk >= l.most or l.held[class] >= l[class]
end

-- Whether it was free, and whether it is a probe.
local function take(want)
  local l, class = leases(limits[want.limit]), want.class
  if quarantine > 0 or l.cooling > 0 or l.probed then
    return false
  end
  if is_full(l, class) then
    drop_ended(l)
    if is_full(l, class) then
      return false
    end
  end
  local key, member = leases_key(l.name, class), me .. ':' .. want.serial
  call('ZADD', key, lease_end, member)
  if l.kept ~= class then
    l.kept = class
    call('PEXPIRE', key, ARGV[3])
  end
  l.held[class] = l.held[class] + 1
  if l.half_open then
    call('HSET', cool_key(l.name), 'probe', member)
    l.probed = true
  end
  return true, l.half_open
end

-- How long until a permit can be free that nobody gives back: the end of the quarantine, of the
-- cool-down, or of the first lease. Notes that somebody waits, so that a release is told.
local function wait_for(want)
  local l = limits[want.limit]
  if quarantine > 0 then
    return quarantine
  end
  if l.cooling > 0 then
    return l.cooling
  end
  if not l.first then
    l.first = ttl
    drop_ended(l)
    for _, class in ipairs({'query', 'bulk'}) do
      local first = call('ZRANGE', leases_key(l.name, class), 0, 0, 'WITHSCORES')
      if first[2] then
        l.first = math.min(l.first, first[2] - now)
      end
    end
    call('SET', prefix .. ':wanted:' .. l.name, '', 'PX', math.ceil(ttl * 2 / 15))
  end
  return l.first
end

local function read_want()
  return {limit = num(), class = arg(), serial = arg()}
end

local function admit_permit()
  local want = read_want()
  local taken, is_probe = take(want)
  if taken then
    return {GRANTED, 0, 0, 1, is_probe and 1 or 0}
  end
  return {WAIT, wait_for(want)}
end

local function is_dead(owner, observed_dead)
  return quarantine == 0 and owner == observed_dead and now - heartbeat_of(owner) > ttl * 6 / 15
end

local function park(key, owner)
  call('HSET', key, '.watched', '1')
  return {PARKED, owner, heartbeat_of(owner)}
end

local function keep_claim(job, key)
  if job.kind == 'bulk' then
    keep(key, bulk_ttl)
  else
    keep_running(key, job.deadline)
  end
end

local last_fence

local function claim(job, key, attempt, streamed)
  last_fence = math.max((last_fence or tonumber(call('HGET', epoch, 'fence') or nil) or 0) + 1, now_us)
  call('HSET', key, job.stage, claim_text(streamed and 't' or 's', attempt, format('%d', last_fence)))
  keep_claim(job, key)
  return last_fence
end

local function verdict_of(job, cancelled, attempt, streamed)
  if cancelled then
    return CANCELLED
  end
  if job.deadline > 0 and now >= job.deadline then
    return EXPIRED
  end
  if attempt > MAX_ATTEMPTS then
    return WORN_OUT
  end
  return streamed and STREAMED or GRANTED
end

local function is_suspect(attempt)
  return attempt == MAX_ATTEMPTS
end

-- Whether what this verdict would begin may not begin now.
local function must_wait(job, verdict, attempt)
  return (verdict == GRANTED or (verdict == STREAMED and job.restarts))
    and job.may_run < (is_suspect(attempt) and 2 or 1)
end

-- It waits without a claim; also without one of this process's own, granted by an answer that was lost.
local function hold(job, key, attempt, state, owner, fence)
  if is_running(state) and owner == me then
    call('HSET', key, job.stage, claim_text(state == 't' and 'g' or 'f', attempt, fence))
  end
  if is_suspect(attempt) then
    keep_claim(job, key)
  end
  return {HELD, is_suspect(attempt) and 1 or 0}
end

-- The permits that are free, and which of them are probes; none of several wanted: nil, and how long to
-- wait.
local function take_wanted(wants)
  local bits, probes, wait = 0, 0, ttl
  for i, want in ipairs(wants) do
    local taken, is_probe = take(want)
    bits = bits + (taken and 2 ^ (i - 1) or 0)
    probes = probes + (is_probe and 2 ^ (i - 1) or 0)
  end
  if bits > 0 or #wants == 0 then
    return bits, probes, 0
  end
  for _, want in ipairs(wants) do
    wait = math.min(wait, wait_for(want))
  end
  return nil, 0, wait
end

-- Its ending is stored: to be produced by whoever stored it, or by others where that one is dead.
local function admit_ended(job, key, end_owner, observed_dead)
  local h = call('HMGET', key, '.end_acked', '.end_epoch')
  if h[1] or not job.claims then
    return {ENDED}
  end
  if end_owner ~= me and not is_dead(end_owner, observed_dead) and not is_outdated_ending(h[2]) then
    return park(key, end_owner)
  end
  call('HSET', key, '.end_owner', me, '.end_epoch', format('%d', since))
  return {ENDING, call('HGET', key, '.end')}
end

local function admit_job()
  local job = {kind = arg(), id = arg(), stage = arg(), deadline = num(), claims = arg() == '1',
    may_run = num(), restarts = arg() == '1'}
  local observed_dead, wants = arg(), {}
  for i = 1, num() do
    wants[i] = read_want()
  end
  local key = work_key(job.kind, job.id)
  local h = call('HMGET', key, job.stage, '.cancelled', '.end_owner', '.open', '.gateways')
  if h[3] then
    return admit_ended(job, key, h[3], observed_dead)
  end
  local attempt, streamed = 1, false
  local state, owner, attempts, fence = read_claim(h[1])
  if job.claims then
    attempt = (attempts or 1) + 0
    if state == 'd' then
      return {DONE}
    end
    if is_running(state) and owner ~= me then
      if not is_dead(owner, observed_dead)
          and not is_outdated(fence, call('HGET', key, '.kept.' .. job.stage)) then
        return park(key, owner)
      end
      attempt = attempt + 1
    end
    streamed = state == 't' or state == 'g'
  end
  local verdict = verdict_of(job, is_cancelled(key, h[2], h[4], h[5]), attempt, streamed)
  if job.claims and quarantine > 0 then
    return {WAIT, quarantine}
  end
  if must_wait(job, verdict, attempt) then
    return hold(job, key, attempt, state, owner, fence)
  end
  local bits, probes, wait = 0, 0, 0
  if verdict == GRANTED or verdict == STREAMED then
    bits, probes, wait = take_wanted(wants)
    if not bits and verdict == STREAMED then
      bits = 0
    elseif not bits then
      return {WAIT, wait}
    end
  end
  return {verdict, job.claims and claim(job, key, attempt, streamed) or 0, attempt, bits, probes}
end

local answer = {now, quarantine}
for i = 1, num() do
  answer[i + 2] = arg() == 'job' and admit_job() or admit_permit()
end
if last_fence then
  call('HSET', epoch, 'fence', format('%d', last_fence))
end
return answer
