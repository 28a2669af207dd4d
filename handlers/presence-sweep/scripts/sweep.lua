-- One partition: ends leases that nobody renewed and tells who is offline now.
-- KEYS due, grace · ARGV now, how many at most, how long a lease is. The users' own keys carry the same hash tag.
local tag = string.match(KEYS[1], '^({.-})')
for _, lease in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])) do
  local connection, user = string.match(lease, '^%S+ (%S+) (.*)$')
  local renewed = redis.call('ZSCORE', KEYS[1], lease) - ARGV[3]
  redis.call('ZREM', KEYS[1], lease)
  redis.call('HDEL', tag .. ':leases:' .. user, connection)
  -- Silent for a whole lease: no further grace.
  if redis.call('HLEN', tag .. ':leases:' .. user) == 0 then
    redis.call('HSET', tag .. ':presence:' .. user, 'last_seen', string.format('%.0f', renewed))
    redis.call('ZADD', KEYS[2], ARGV[1], user)
  end
end
local offline = {}
for _, user in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])) do
  redis.call('ZREM', KEYS[2], user)
  local presence = tag .. ':presence:' .. user
  if redis.call('HLEN', tag .. ':leases:' .. user) == 0 and redis.call('HGET', presence, 'status') ~= 'offline' then
    redis.call('HSET', presence, 'status', 'offline')
    redis.call('HSETNX', presence, 'last_seen', ARGV[1])
    offline[#offline + 1] = user
    offline[#offline + 1] = redis.call('HGET', presence, 'last_seen')
  end
end
return offline
