-- What every script begins with; the process puts this text in front of each of the others. It reads
-- the arguments that all have, takes Redis's time and finds out whether Redis lost its state.
--
-- KEYS[1]  the prefix of all keys. One Redis, no Cluster: the other names are made from it.
-- ARGV     owner (boot id), run id of this server, TTL of a lease and TTL of results in ms, orphan grace in
--          ms, when this was asked (Redis's time as the process knows it; 0: Redis has not answered it
--          steadily of late); then what the script's own head names, read one after another with arg() and
--          num().
-- Answer   of each script: an array that begins with Redis's time and what is left of the quarantine,
--          both in ms.
--
-- Why an epoch: a Redis that was emptied, or that went back to an older snapshot, or a replica that was
-- promoted, does not know who holds what. The epoch key then is missing or names another run id, and for
-- one TTL only those are heard who renew what they hold: after it every lease that was forgotten has
-- either been renewed or has ended by its holder's own clock.
--
-- What it costs: these scripts run a dozen times a question. A command takes some 3000 instructions of
-- Redis, a number that is written as an argument as many again (so numbers that come and go as text stay
-- text, and '%d' writes the others), tonumber() twice as many as arithmetic, and a function a thousand in
-- each run, called or not: what is seldom needed is defined inside a function.

local call, format = redis.call, string.format
local prefix, me, run = KEYS[1], ARGV[1], ARGV[2]
local ttl, result_ttl = ARGV[3] + 0, ARGV[4] + 0
local read = 6

local function arg()
  read = read + 1
  return ARGV[read]
end

local function num()
  return arg() + 0
end

local time = redis.call('TIME')
local seconds, micros = time[1] + 0, time[2] + 0
local now = seconds * 1000 + (micros - micros % 1000) / 1000
local now_us = seconds * 1000000 + micros

local epoch = prefix .. ':epoch'
local since = tonumber(call('HGET', epoch, 'since') or nil)
if not since or call('HGET', epoch, 'run') ~= run or since > now then
  since = now
  call('HSET', epoch, 'since', format('%d', since), 'run', run)
end
local quarantine = since + ttl > now and since + ttl - now or 0

-- One hash a query (bulk work: a batch): a field for each stage's claim, fields with a dot for the rest.
local function work_key(kind, id)
  return prefix .. ':' .. kind .. ':' .. id
end

local function leases_key(limit, class)
  return prefix .. ':permits:' .. limit .. ':' .. class
end

-- A limit's cool-down, a hash: no call before `until`; after it the limit is half-open, and one call at
-- a time may probe, the one whose lease is `probe`, until one succeeds.
local function cool_key(limit)
  return prefix .. ':cool:' .. limit
end

-- How long bulk work's claims are kept while nobody renews them: longer than a supervisor waits before it
-- starts a worker again that dies time after time, or its deaths would not be counted.
local bulk_ttl = 40 * ttl

-- Lets a key live for at least so long.
local function keep(key, ms)
  if call('PTTL', key) < ms then
    call('PEXPIRE', key, format('%d', ms))
  end
end

-- A query that has not ended: until some time after its deadline (0: none).
local function keep_running(key, deadline)
  local left = deadline > 0 and math.max(0, deadline - now) or result_ttl
  keep(key, math.min(left + math.min(result_ttl, 600000), result_ttl))
end

-- A claim as text: state (s started, t streaming: something of it was shown, d done, f given back, g
-- given back after streaming), owner, attempt, fence; the numbers stay text.
local function read_claim(text)
  if not text then
    return nil
  end
  return string.match(text, '^(%a) (%S+) (%d+) (%d+)$')
end

-- Redis came back with an older snapshot, and what this claim's owner did since is not in it: it may be done
-- with it. Whoever does run it has said so in the quarantine (renew.lua).
local function is_outdated(fence, kept)
  return quarantine == 0 and fence + 0 < since * 1000 and tonumber(kept or nil) ~= since
end

-- Likewise an ending that was stored then; to produce it once more changes nothing.
local function is_outdated_ending(epoch)
  return quarantine == 0 and tonumber(epoch or nil) ~= since
end

-- Somebody is at work on it.
local function is_running(state)
  return state == 's' or state == 't'
end

-- fence: text; a number of its size would lose digits here.
local function claim_text(state, attempt, fence)
  return state .. ' ' .. me .. ' ' .. attempt .. ' ' .. fence
end

-- Whether Redis lost the claim that has this fence: this is the quarantine, and what is known is nothing,
-- or older. The highest fence wins.
local function was_lost(text, fence)
  local state, _, _, stored = read_claim(text)
  return quarantine > 0 and (not state or (state ~= 'd' and stored + 0 < fence + 0))
end

-- Whether a claim is this process's: Redis says so, or lost it.
local function is_ours(text, fence)
  local state, owner = read_claim(text)
  return (owner == me and state ~= 'f' and state ~= 'g') or was_lost(text, fence)
end

-- Work that others watch has changed: tell them. The flag is set again by whoever is parked again.
local function tell_watchers(key, id)
  if call('HDEL', key, '.watched') == 1 then
    call('PUBLISH', prefix .. ':hint', 'claim ' .. id)
  end
end

-- A query that has readers: where its events are (first come, first served), and who reads them.
-- Everyone who attaches again moves to the end; of more than 16 the first is forgotten.
local function readers()
  local GATEWAYS_MAX = 16

  local function without_me(gateways)
    local others = {}
    for gateway in string.gmatch(gateways or '', '%S+') do
      if gateway ~= me then
        table.insert(others, gateway)
      end
    end
    return others
  end

  local function attach(key, place)
    local deadline = tonumber(string.match(place, '^%S+ %S+ (%d+)')) or now
    local gateways = without_me(call('HGET', key, '.gateways'))
    table.insert(gateways, me)
    if #gateways > GATEWAYS_MAX then
      table.remove(gateways, 1)
    end
    call('HSETNX', key, '.open', place)
    call('HSET', key, '.gateways', table.concat(gateways, ' '))
    keep_running(key, deadline)
  end

  -- Of a query that nothing is known of, its job may be on its way; a deadline is at most 10 min ahead.
  local function cancel(key, id)
    local known = call('EXISTS', key) == 1
    call('HSET', key, '.cancelled', '1')
    keep(key, known and result_ttl or math.min(result_ttl, 1200000))
    call('PUBLISH', prefix .. ':hint', 'cancel ' .. id)
  end

  return {attach = attach, cancel = cancel, without_me = without_me}
end

local function heartbeat_of(owner)
  return tonumber(call('ZSCORE', prefix .. ':owners', owner)) or 0
end

-- A query that had gateways and has none any more: all have left, or their heartbeats are older than the
-- orphan grace (and the caller's own). One that is to continue is never an orphan. A Redis that paused makes
-- every heartbeat look old: so the process that asks must have heard from it steadily, up to now.
local heartbeats = {}

local function is_orphan(open, gateways)
  local asked, policy = ARGV[6] + 0, tonumber(string.match(open or '', '(%S+)$')) or 0
  if policy < 0 or quarantine > 0 or asked == 0 or math.abs(now - asked) > ttl * 2 / 15 then
    return false
  end
  local grace = math.max(ARGV[5] + 0, ttl * 6 / 15) + policy
  for gateway in string.gmatch(gateways, '%S+') do
    heartbeats[gateway] = heartbeats[gateway] or heartbeat_of(gateway)
    if now - heartbeats[gateway] <= grace then
      return false
    end
  end
  return true
end

-- Whether nobody wants a query any more. An orphan is cancelled, so that everybody says the same.
local function is_cancelled(key, cancelled, open, gateways)
  if not cancelled and gateways and is_orphan(open, gateways) then
    call('HSET', key, '.cancelled', '1')
    return true
  end
  return cancelled
end
