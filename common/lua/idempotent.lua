-- Who has an idempotency key: a request takes it, or is told which query already answers it.
--
-- KEYS[1]  the prefix
-- ARGV     after the prelude's: the key's name (TENANT:KEY), id of the query that would be new, hash of
--          the body, place (PARTITION OFFSET DEADLINE POLICY), number of this request (each time that it
--          is asked)
-- Answer   after the prelude's: a code, then the id and the place that count
--
-- The gateway that has an open key may die. Then nobody knows whether its job was produced, unless the
-- query has its ending. Until the deadline the next one to ask produces it again, with its id; if that
-- fails too the key stays for another, since a new id could be a second generation. After the deadline
-- nothing can come of it any more: the key is free.
--
-- Why here: of two requests at the same instant one must be first, and what became of the query that
-- has the key is known in the same place. A request that asks again because its answer was lost gets
-- the same answer.

local NEW, ATTACH, WAIT, TAKEN_OVER, CONFLICT = 0, 1, 2, 3, 4

local name, id, body, place, request = arg(), arg(), arg(), arg(), arg()
local key = prefix .. ':idem:' .. name
local h = call('HMGET', key, 'id', 'body', 'state', 'gateway', 'place', 'request')
local first = {id = h[1], body = h[2], state = h[3], gateway = h[4], place = h[5], request = h[6]}

local function take()
  call('DEL', key)
  first.id, first.place = id, place
  call('HSET', key, 'id', id, 'body', body, 'state', 'open', 'gateway', me, 'place', place,
             'request', request)
  call('PEXPIRE', key, result_ttl)
  return NEW
end

local function has_expired()
  return (tonumber(string.match(first.place, '^%S+ %S+ (%d+)')) or 0) <= now
end

local function answer()
  if first.id and first.gateway == me and first.request == request then
    return first.id == id and NEW or TAKEN_OVER
  end
  if not first.id then
    return take()
  end
  local q = call('HMGET', work_key('query', first.id), '.cancelled', '.outcome')
  local cancelled, outcome = q[1], q[2]
  if outcome == 'cancelled' or (cancelled and not outcome) then -- After its ending none counts.
    return take()
  end
  if first.body ~= body then
    return CONFLICT
  end
  if first.state == 'produced' or outcome then
    return ATTACH
  end
  if first.gateway and now - heartbeat_of(first.gateway) <= ttl * 6 / 15 then
    return WAIT
  end
  if has_expired() then
    return take()
  end
  call('HSET', key, 'gateway', me, 'request', request, 'taken', '1')
  return TAKEN_OVER
end

local code = answer()
return {now, quarantine, code, first.id, first.place}
