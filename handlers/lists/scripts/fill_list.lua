-- Stores a user's list from Postgres, unless the list changed after the claim. A change deletes the key with
-- the claim.
-- KEYS list · ARGV claim, then score and member, pair by pair
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then return 0 end
redis.call('DEL', KEYS[1])
redis.call('ZADD', KEYS[1], unpack(ARGV, 2))
return 1
