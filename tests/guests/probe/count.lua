return {redis.call('INCR', KEYS[1]), ARGV[1], false, {1, 'x'}}
