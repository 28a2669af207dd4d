-- Keeps what was read from Postgres, unless something changed since the version was seen.
-- KEYS[1] a user's notifications · ARGV[1] the version seen before the read · ARGV[2] what was read · ARGV[3] seconds
if redis.call('HGET', KEYS[1], 'version') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'newest', ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
