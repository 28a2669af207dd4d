//! The cost of one command and of one script.

use super::*;

async fn run(redis: &Redis, text: &str) -> Result<Vec<Node>, CommandError> {
    let key = fresh("bounded");
    let grants: Vec<Pattern> = vec![serde_json::from_value(key.clone().into()).unwrap()];
    let script = Script::new("bounded", text, &grants);
    redis.script(&script, &[key], &[], Instant::now() + Duration::from_secs(20)).await
}

#[tokio::test]
async fn a_script_ends_itself_at_its_bounds_also_after_it_wrote() {
    let redis = shared().await;
    for (text, reason) in [
        ("while true do end", "took more than"),
        ("redis.call('SET', KEYS[1], 1) while true do end", "took more than"),
        ("repeat until false", "took more than"),
        ("local function f() return f() end return f()", "took more than"),
        ("while true do pcall(function() while true do end end) end", "took more than"),
        ("while true do coroutine.wrap(function() for i = 1, 10 do end end)() end", "took more than"),
        ("for i = 1, 1e9 do redis.pcall('GET', KEYS[1]) end", "the script was ended"),
        ("switchboard_step = function() end while true do end", "compiling script"),
        ("local s = string.rep('x', 1e6) for i = 1, 9 do redis.call('SET', KEYS[1], s) end", "bytes"),
        ("return redis.call('SETRANGE', KEYS[1], 536870911, 'x')", "offset"),
        ("return redis.call('SETRANGE', KEYS[1], 'nan', 'x')", "offset"),
        ("return redis.call('SETBIT', KEYS[1], 4294967295, 1)", "offset"),
        ("return redis.call('SRANDMEMBER', KEYS[1], -1000000000)", "members"),
        ("return redis.call('ZRANDMEMBER', KEYS[1], 'nan')", "members"),
        ("return redis.call('APPEND', KEYS[1], 'x')", "not a command"),
    ] {
        match run(&redis, text).await {
            Err(CommandError::Failed(answer)) => assert!(answer.contains(reason), "{text}: {answer}"),
            other => panic!("{text}: {other:?}"),
        }
    }
    for fine in [
        "local n = 0 for i = 1, 100000 do n = n + i end return n - 5000050000",
        "for i = 1, 1000 do redis.call('INCR', KEYS[1]) end return redis.call('GET', KEYS[1]) - 1000",
        "return redis.call('SETRANGE', KEYS[1], 9, 'x') - 10",
        "return redis.call('SETBIT', KEYS[1], 9, 1)",
        "return #redis.call('SUNION', KEYS[1], KEYS[1])",
        "local t = {3, 1, 2} table.sort(t, function(a, b) return a < b end) return t[1] - 1",
    ] {
        assert_eq!(run(&redis, fine).await, Ok(vec![Node::Integer(0)]), "{fine}");
    }
}

#[tokio::test]
async fn a_command_takes_no_more_than_it_sends() {
    let redis = shared().await;
    let key = fresh("bounded");
    for command in ["SETRANGE K 536870911 x", "SETBIT K 4294967295 1", "SRANDMEMBER K -1000000000"] {
        let answer = redis.command(&words(&command.replace('K', &key)), soon()).await;
        assert!(matches!(answer, Err(CommandError::Refused(_))), "{command}: {answer:?}");
    }
    // The offsets of a pipeline are bounded together.
    let half = format!("SETRANGE {key} {} x", limits::REDIS_COMMAND_BYTES_MAX / 2);
    assert!(redis.command(&words(&half), soon()).await.is_ok());
    let answer = redis.pipeline(&[words(&half), words(&half)], soon()).await;
    assert!(matches!(answer, Err(CommandError::Refused(_))), "{answer:?}");
}
