-- The heartbeat of a process, its look at the owners that are silent, and at the work that is parked here
-- because others have it.
--
-- KEYS[1]  the prefix
-- ARGV     after the prelude's: ms that heartbeats are kept; number of parked jobs, each: kind, id, stage
-- Answer   after the prelude's, an array of owners that have been silent for 6 units, the last to fall
--          silent first, each followed by its heartbeat in ms; then for each job two values: the owner
--          that holds it up ('' nobody: it can be admitted again) and that owner's heartbeat (0: none).
--
-- Why the process judges and not this script: an owner is dead only if one observer saw its heartbeat
-- stand still for long enough while Redis answered without a gap. Why all that are silent and not only
-- those who hold something up here: the work of a dead owner comes here when its group has noticed, and
-- by then the observer should know.

local SILENT_MAX = 64 -- Whoever died before these was seen by every observer that runs for long enough.
local owners, kept = prefix .. ':owners', num()
call('ZADD', owners, now, me)
call('ZREMRANGEBYSCORE', owners, '-inf', string.format('(%.0f', now - kept))
call('PEXPIRE', owners, string.format('%.0f', kept))
local silent = call('ZREVRANGEBYSCORE', owners, string.format('(%.0f', now - ttl * 6 / 15), '-inf',
  'WITHSCORES', 'LIMIT', 0, SILENT_MAX)

local function who_holds(kind, id, stage)
  local h = call('HMGET', work_key(kind, id), stage, '.end_owner', '.end_acked', '.end_epoch',
    '.kept.' .. stage)
  if h[2] then
    return not h[3] and not is_outdated_ending(h[4]) and h[2] or nil
  end
  local state, owner, _, fence = read_claim(h[1])
  return is_running(state) and not is_outdated(fence, h[5]) and owner or nil
end

local answer = {now, quarantine, silent}
local heartbeats = {}
for _ = 1, num() do
  local owner = who_holds(arg(), arg(), arg())
  if owner == me then
    owner = nil
  end
  if owner and not heartbeats[owner] then
    heartbeats[owner] = heartbeat_of(owner)
  end
  table.insert(answer, owner or '')
  table.insert(answer, owner and heartbeats[owner] or 0)
end
return answer
