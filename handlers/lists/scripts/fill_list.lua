-- A person's list as Postgres had it, unless it changed since: whoever changes it deletes the key, and the claim with it.
-- KEYS list · ARGV claim, then score and member, pair by pair
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then return 0 end
redis.call('DEL', KEYS[1])
redis.call('ZADD', KEYS[1], unpack(ARGV, 2))
return 1
