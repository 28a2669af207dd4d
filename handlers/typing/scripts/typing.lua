-- Typing signals. KEYS[1] is the sorted set `due` of a partition: `conversation user` by the time when the
-- signal expires. The hash `said` beside it has the time when a signal was last pushed.
-- ARGV: operation, present time, then the arguments of the operation.
local said = string.match(KEYS[1], '^({.-})') .. ':said'
local operation, now = ARGV[1], tonumber(ARGV[2])

if operation == 'ask' then
  -- ARGV: entry, new time of expiry, interval of pushes. Returns 1 if the signal is to be pushed. Otherwise
  -- it extends the signal and returns 0.
  local over, told = redis.call('ZSCORE', KEYS[1], ARGV[3]), redis.call('HGET', said, ARGV[3])
  if not over or tonumber(over) <= now or not told or tonumber(told) + tonumber(ARGV[5]) <= now then return 1 end
  redis.call('ZADD', KEYS[1], ARGV[4], ARGV[3])
  return 0

elseif operation == 'begin' then
  -- ARGV: entry, time of expiry
  redis.call('ZADD', KEYS[1], ARGV[4], ARGV[3])
  redis.call('HSET', said, ARGV[3], ARGV[2])
  return 1

elseif operation == 'stop' then
  -- ARGV: entry. Returns 1 if the user was typing.
  redis.call('HDEL', said, ARGV[3])
  return redis.call('ZREM', KEYS[1], ARGV[3])

elseif operation == 'expire' then
  -- ARGV: maximum number of entries. Returns the expired entries.
  local over = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[2], 'LIMIT', 0, ARGV[3])
  for _, entry in ipairs(over) do
    redis.call('ZREM', KEYS[1], entry)
    redis.call('HDEL', said, entry)
  end
  return over
end
return redis.error_reply('typing: no operation ' .. operation)
