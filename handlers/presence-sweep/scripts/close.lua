-- A connection ended. Without another one its user has a grace, because a page reload is not "offline, online".
-- KEYS leases, presence, due, grace, closed · ARGV connection, user, lease, now, grace end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[3])
-- Remembered for longer than a report of its last signs of life can take.
redis.call('ZADD', KEYS[5], ARGV[4], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[5], '-inf', ARGV[4] - 60000)
redis.call('PEXPIRE', KEYS[5], 60000)
redis.call('HSET', KEYS[2], 'last_seen', ARGV[4])
if redis.call('HLEN', KEYS[1]) == 0 then redis.call('ZADD', KEYS[4], ARGV[5], ARGV[2]) end
return 0
