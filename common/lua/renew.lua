-- Renews what a process holds: the leases of its permits, the claims of its running jobs, and, where
-- needed, its place among the gateways of queries.
--
-- KEYS[1]  the prefix
-- ARGV     after the prelude's: number of items, each one of
--          'permit', limit, class, serial
--          'claim', serial, kind, id, stage, fence (0: no claim, only checks), attempt, state (s or t)
--          'attached', id, place, 1 if it was cancelled
-- Answer   after the prelude's: an array of the serials of permits that are lost; an array of pairs,
--          serial and LOST or CANCELLED, of the claims of which there is something to say.
--
-- Why: a lease that ended is never revived, since somebody else may have its place; only in the
-- quarantine, when nobody gets a place, is what Redis forgot written down again. A query that somebody
-- else ended is lost to whoever runs it.

local CANCELLED, LOST = 1, 2
local lost_permits, told = {}, {}

local function renew_permit()
  local limit, class, serial = arg(), arg(), arg()
  local key, member = leases_key(limit, class), me .. ':' .. serial
  local ends = tonumber(call('ZSCORE', key, member) or nil)
  if quarantine > 0 or (ends and ends > now) then
    call('ZADD', key, format('%d', now + ttl), member)
    call('PEXPIRE', key, ARGV[3])
  else
    table.insert(lost_permits, tonumber(serial))
  end
end

local function renew_claim()
  local serial, kind, id, stage, fence, attempt = num(), arg(), arg(), arg(), arg(), arg()
  local holds = arg()
  local key = work_key(kind, id)
  local kept = '.kept.' .. stage
  local h = call('HMGET', key, stage, '.cancelled', '.end_owner', '.open', '.gateways', kept)
  if (h[3] and h[3] ~= me) or (fence ~= '0' and not is_ours(h[1], fence)) then
    table.insert(told, serial)
    table.insert(told, LOST)
    return
  end
  local state, owner = read_claim(h[1])
  if fence ~= '0' and owner ~= me then
    call('HSET', key, stage, claim_text(state == 't' and 't' or holds, attempt, fence))
    keep(key, kind == 'bulk' and bulk_ttl or result_ttl)
  elseif fence ~= '0' and kind == 'bulk' then
    keep(key, bulk_ttl)
  end
  if fence ~= '0' and fence + 0 < since * 1000 and tonumber(h[6] or nil) ~= since then
    call('HSET', key, kept, format('%d', since))
  end
  if is_cancelled(key, h[2], h[4], h[5]) then
    table.insert(told, serial)
    table.insert(told, CANCELLED)
  end
end

-- What a Redis that lost its state does not know, or has not heard yet.
local function renew_attached()
  local id, place, cancelled = arg(), arg(), num() == 1
  local key = work_key('query', id)
  local of = readers()
  of.attach(key, place)
  if cancelled and call('HEXISTS', key, '.cancelled') == 0 then
    of.cancel(key, id)
  end
end

local renew = {permit = renew_permit, claim = renew_claim, attached = renew_attached}
for _ = 1, num() do
  renew[arg()]()
end
return {now, quarantine, lost_permits, told}
