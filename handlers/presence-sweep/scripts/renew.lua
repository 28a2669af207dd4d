-- One partition: renews the leases of connections that were heard of, and makes again what Redis lost. A report may come
-- after the end of its connection; what has ended stays so.
-- KEYS due, nodes, closed · ARGV node, now, lease end, end of the node's own lease, then for each connection itself, its
-- user, and 1 where the person was active
local tag = string.match(KEYS[1], '^({.-})')
redis.call('ZADD', KEYS[2], ARGV[4], ARGV[1])
for i = 5, #ARGV, 3 do
  local connection, user = ARGV[i], ARGV[i + 1]
  if not redis.call('ZSCORE', KEYS[3], connection) then
    redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1] .. ' ' .. connection .. ' ' .. user)
    redis.call('HSET', tag .. ':leases:' .. user, connection, ARGV[1])
    if ARGV[i + 2] == '1' then
      redis.call('HSET', tag .. ':presence:' .. user, 'status', 'online', 'active', ARGV[2])
    end
  end
end
return 0
