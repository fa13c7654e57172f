-- Who has an idempotency key: a request takes it, or is told which query already answers it.
--
-- KEYS[1]  the prefix
-- ARGV     after the prelude's: the key's name (TENANT:KEY), id of the query that would be new, hash of
--          the body, place (PARTITION OFFSET DEADLINE POLICY), number of this request (each time that it
--          is asked)
-- Answer   after the prelude's: a code, then the id and the place that count
--
-- Why here: of two requests at the same instant one must be first, and what became of the query that
-- has the key is known in the same place. A request that asks again because its answer was lost gets
-- the same answer.

local NEW, ATTACH, WAIT, TAKEN_OVER, CONFLICT = 0, 1, 2, 3, 4

local name, id, body, place, request = arg(), arg(), arg(), arg(), arg()
local key = prefix .. ':idem:' .. name
local h = redis.call('HMGET', key, 'id', 'body', 'state', 'gateway', 'place', 'request')
local first = {id = h[1], body = h[2], state = h[3], gateway = h[4], place = h[5], request = h[6]}

-- A cancellation that came too late changes nothing.
local function was_cancelled()
  local q = redis.call('HMGET', work_key('query', first.id), '.cancelled', '.outcome')
  if q[2] then
    return q[2] == 'cancelled'
  end
  return q[1]
end

local function answer()
  if first.id and first.gateway == me and first.request == request then
    return first.id == id and NEW or TAKEN_OVER
  end
  if not first.id or was_cancelled() then
    redis.call('DEL', key)
    first.id, first.place = id, place
    redis.call('HSET', key, 'id', id, 'body', body, 'state', 'open', 'gateway', me, 'place', place,
               'request', request)
    redis.call('PEXPIRE', key, result_ttl)
    return NEW
  end
  if first.body ~= body then
    return CONFLICT
  end
  if first.state == 'produced' then
    return ATTACH
  end
  if now - heartbeat_of(first.gateway) <= ttl * 6 / 15 then
    return WAIT
  end
  redis.call('HSET', key, 'gateway', me, 'request', request)
  return TAKEN_OVER
end

local code = answer()
return {now, quarantine, code, first.id, first.place}
