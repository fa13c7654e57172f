-- The heartbeat of a process, and its look at the work that is parked here because others have it.
--
-- KEYS[1]  the prefix
-- ARGV     after the prelude's: ms that the heartbeat is kept; number of parked jobs, each: kind, id,
--          stage
-- Answer   after the prelude's, for each job two values: the owner that holds it up ('' nobody: it can be
--          admitted again) and that owner's heartbeat in ms (0: none).
--
-- Why the process judges and not this script: an owner is dead only if one observer saw its heartbeat
-- stand still for long enough while Redis answered without a gap.

redis.call('SET', prefix .. ':owner:' .. me, now, 'PX', arg())

local function who_holds(kind, id, stage)
  local h = redis.call('HMGET', work_key(kind, id), stage, '.end_owner', '.end_acked')
  if h[2] then
    return not h[3] and h[2] or nil
  end
  local state, owner = read_claim(h[1])
  return is_running(state) and owner or nil
end

local answer = {now, quarantine}
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
