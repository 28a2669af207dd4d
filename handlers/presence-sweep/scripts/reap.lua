-- One partition: ends the leases of a node that is dead. How many there were.
-- KEYS due, grace, nodes · ARGV node, now
local tag = string.match(KEYS[1], '^({.-})')
local prefix = ARGV[1] .. ' '
local ended = 0
for _, lease in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  if string.sub(lease, 1, #prefix) == prefix then
    local connection, user = string.match(lease, '^%S+ (%S+) (.*)$')
    redis.call('ZREM', KEYS[1], lease)
    redis.call('HDEL', tag .. ':leases:' .. user, connection)
    redis.call('HSET', tag .. ':presence:' .. user, 'last_seen', ARGV[2])
    if redis.call('HLEN', tag .. ':leases:' .. user) == 0 then redis.call('ZADD', KEYS[2], ARGV[2], user) end
    ended = ended + 1
  end
end
redis.call('ZREM', KEYS[3], ARGV[1])
return ended
