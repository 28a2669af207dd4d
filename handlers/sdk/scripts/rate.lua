-- Counts one call in a fixed window, which begins with its first call.
-- KEYS[1] the counter · ARGV[1] the calls that one window allows · ARGV[2] the length of the window in
-- milliseconds · ARGV[3] as how many calls this one counts, 1 if it is missing. A call that begins within the
-- limit is counted whole, also beyond it · ARGV[4] the value of the counter after the caller has counted the
-- call, if it has.
-- Returns 0 if it counted the call, otherwise the milliseconds until the window ends.
-- Without ARGV it takes one counted call back, unless the window has ended.
if #ARGV == 0 then
  if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('DECR', KEYS[1]) end
  return 0
end
local most, calls = tonumber(ARGV[1]), tonumber(ARGV[3] or '1')
local counted = tonumber(ARGV[4])
-- A lower value means that the caller's window has ended, so the call is counted in the new one. It can also
-- mean that another call was uncounted meanwhile: then the user has one call less in this window.
if not counted or tonumber(redis.call('GET', KEYS[1]) or '0') < counted then
  -- Counted first: most calls are within the limit, and then this is the only command.
  counted = redis.pcall('INCRBY', KEYS[1], calls)
end
if type(counted) == 'table' then
  -- Redis is full and counts nothing, but a window that is full stays full.
  local wait = redis.call('PTTL', KEYS[1])
  if tonumber(redis.call('GET', KEYS[1]) or '0') >= most and wait > 0 then return wait end
  return counted
end
local used = counted - calls
if used >= most then
  redis.call('DECRBY', KEYS[1], calls)
  local wait = redis.call('PTTL', KEYS[1])
  if wait > 0 then return wait end
  redis.call('DEL', KEYS[1])
  used = redis.call('INCRBY', KEYS[1], calls) - calls
end
if used == 0 and redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0
