-- The newer of two entries stays, so that a slow reader never puts back what somebody has changed meanwhile.
-- KEYS[1] a directory entry · ARGV[1] its version · ARGV[2] JSON · ARGV[3] how long it is kept, in seconds
local kept = tonumber(redis.call('HGET', KEYS[1], 'version'))
if kept and kept > tonumber(ARGV[1]) then
  return 0
end
redis.call('HSET', KEYS[1], 'version', ARGV[1], 'entry', ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
