-- A connection begins: {whether the user was offline, whether the directory should be told who they are}.
-- KEYS leases, presence, due, grace, nodes · ARGV connection, node, user, lease, now, lease end, listed again after,
-- end of the node's own lease
local was_offline = redis.call('HGET', KEYS[2], 'status') ~= 'online'
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[3], ARGV[6], ARGV[4])
redis.call('ZADD', KEYS[5], ARGV[8], ARGV[2])
redis.call('ZREM', KEYS[4], ARGV[3])
redis.call('HSET', KEYS[2], 'status', 'online', 'active', ARGV[5])
local listed = tonumber(redis.call('HGET', KEYS[2], 'listed') or '0')
local tell = listed + tonumber(ARGV[7]) < tonumber(ARGV[5])
if tell then redis.call('HSET', KEYS[2], 'listed', ARGV[5]) end
return { was_offline and 1 or 0, tell and 1 or 0 }
