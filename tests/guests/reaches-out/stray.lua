-- KEYS[1] the key that was declared · ARGV[1] one that was not.
redis.call('SET', KEYS[1], 'declared')
return redis.call('GET', ARGV[1])
