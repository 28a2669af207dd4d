-- Stores what was read from Postgres, unless the version changed after the reader saw it.
-- KEYS[1] a user's notifications · ARGV[1] the version seen before the read · ARGV[2] JSON · ARGV[3] the TTL
-- in seconds
if redis.call('HGET', KEYS[1], 'version') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'newest', ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
