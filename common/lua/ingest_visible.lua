-- Which of a question's hits can be found (docs/INGESTION.md). The account is ingest_account.lua's.
--
-- KEYS[1]  the prefix of all keys
-- ARGV     'changing': does any store hold more than what can be found?
--          'look', tenant, collection, then doc_id and version of each hit
-- Answer   of changing: 1 or 0, and the time in microseconds.
--          Of look: one character a hit, 1 when it is visible, else 0.
--
-- Exactly the accepted version is visible. Where none was accepted yet, those from before the first that
-- the account was given: of a new document none, and what was there when Redis lost its state serves on.
-- Likewise a version above all that were given is one that Redis has forgotten, and of a document that
-- the account does not know all are visible.

local prefix = KEYS[1]

local function plain(name)
  return (string.gsub(name, '[%%:]', function(c) return string.format('%%%02X', string.byte(c)) end))
end

-- Versions as text of the same length compare like numbers.
local function is_higher(a, b)
  return #a > #b or (#a == #b and a > b)
end

local function is_visible(doc, version)
  local known = redis.call('HMGET', doc, 'accepted', 'version', 'floor')
  if not known[2] or is_higher(version, known[2]) then
    return true
  elseif known[1] then
    return version == known[1]
  end
  return not known[3] or is_higher(known[3], version)
end

if ARGV[1] == 'changing' then
  local time = redis.call('TIME')
  local us = string.format('%d%06d', time[1], time[2])
  return {redis.call('EXISTS', prefix .. ':ingest:changing'), us}
end

local space = prefix .. ':ingest:doc:' .. plain(ARGV[2]) .. ':' .. plain(ARGV[3]) .. ':'
local flags = {}
for i = 4, #ARGV, 2 do
  flags[#flags + 1] = is_visible(space .. ARGV[i], ARGV[i + 1]) and '1' or '0'
end
return table.concat(flags)
