-- Stores the state of a conversation from Postgres, unless the relay has written a newer one or Redis has
-- lost the claim.
-- KEYS meta · ARGV claim, head, change, activity, last
if redis.call('HGET', KEYS[1], 'claim') ~= ARGV[1] then return 0 end
redis.call('HDEL', KEYS[1], 'claim')
local head = tonumber(redis.call('HGET', KEYS[1], 'head') or '0')
local change = tonumber(redis.call('HGET', KEYS[1], 'change') or '0')
if head > tonumber(ARGV[2]) or change > tonumber(ARGV[3]) then return 0 end
redis.call('HSET', KEYS[1], 'head', ARGV[2], 'change', ARGV[3], 'activity', ARGV[4], 'last', ARGV[5])
return 1
