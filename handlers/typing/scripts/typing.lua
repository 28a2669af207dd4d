-- Who is typing. KEYS a partition's `due`: `conversation user` by when it is over · ARGV operation, now, then the
-- operation's own. Beside it `said`: when it was last told.
local said = string.match(KEYS[1], '^({.-})') .. ':said'
local operation, now = ARGV[1], tonumber(ARGV[2])

if operation == 'ask' then
  -- entry, when it is over, how long what was told is fresh. Returns 1 where it is to be told (again); else it was
  -- prolonged.
  local over, told = redis.call('ZSCORE', KEYS[1], ARGV[3]), redis.call('HGET', said, ARGV[3])
  if not over or tonumber(over) <= now or not told or tonumber(told) + tonumber(ARGV[5]) <= now then return 1 end
  redis.call('ZADD', KEYS[1], ARGV[4], ARGV[3])
  return 0

elseif operation == 'begin' then
  -- entry, when it is over
  redis.call('ZADD', KEYS[1], ARGV[4], ARGV[3])
  redis.call('HSET', said, ARGV[3], ARGV[2])
  return 1

elseif operation == 'stop' then
  -- entry. Returns 1 where it had begun.
  redis.call('HDEL', said, ARGV[3])
  return redis.call('ZREM', KEYS[1], ARGV[3])

elseif operation == 'expire' then
  -- how many at most. Returns the entries that are over.
  local over = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[2], 'LIMIT', 0, ARGV[3])
  for _, entry in ipairs(over) do
    redis.call('ZREM', KEYS[1], entry)
    redis.call('HDEL', said, entry)
  end
  return over
end
return redis.error_reply('typing: no operation ' .. operation)
