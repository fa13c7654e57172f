-- What is known of a query, for a gateway that is asked about it.
--
-- KEYS[1]  the prefix
-- ARGV     after the prelude's: id; then stages
-- Answer   after the prelude's: the place (PARTITION OFFSET DEADLINE POLICY), 1 if it was cancelled, who
--          ended it, where its result is (PARTITION OFFSET) once the ending is out, its outcome; then each
--          stage's claim. What is not known is nil; all of it: nothing is known of this query.

local key = work_key('query', arg())
local h = call('HMGET', key, '.open', '.cancelled', '.end_owner', '.end_acked', '.outcome',
                     unpack(ARGV, read + 1))
table.insert(h, 1, now)
table.insert(h, 2, quarantine)
return h
