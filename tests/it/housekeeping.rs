//! Future months, months past their retention, old keys: no request waits for this work, and no insert
//! depends on it.

use serde_json::json;
use switchboard_tests::host::{Host, Options};
use switchboard_tests::patience::until;

/// Housekeeping runs at the start of a node, unless another node ran it recently.
async fn run_again(host: &mut Host) {
    host.kill().await;
    host.database.run("delete from switchboard.schedules where handler = 'housekeeping'").await;
    host.start().await;
}

async fn count(host: &Host, statement: &str) -> i64 {
    host.database.rows(statement).await[0].get(0)
}

#[tokio::test]
async fn a_missing_month_fails_no_insert_and_is_created_later() {
    Host::test(Options::default().without_rate_limits(), async |host| {
        let room = host.group("lobby", &["ana", "bo"]).await;
        let path = format!("/api/v1/conversations/{room}/messages");
        let ana = host.rest("ana");
        ana.post(&path, json!({"content": "before"})).await.expect(201);

        // Simulate missing housekeeping: drop every month with its rows; new rows go to DEFAULT.
        host.database
            .run(
                "do $$ declare month text; begin
                   for month in select inhrelid::regclass::text from pg_inherits
                     where inhparent = 'app.messages'::regclass and inhrelid <> 'app.messages_default'::regclass
                   loop
                     execute format('alter table app.messages detach partition %s', month);
                     execute format('insert into app.messages (id, conversation_id, seq, sender_id, type, content, created_at)
                       select id, conversation_id, seq, sender_id, type, content, created_at from %s', month);
                     execute format('drop table %s', month);
                   end loop;
                 end $$",
            )
            .await;
        let after = ana.post(&path, json!({"content": "into DEFAULT"})).await.expect(201);
        assert_eq!(after["message"]["seq"], 3);
        assert_eq!(count(host, "select count(*) from app.messages_default").await, 3);

        run_again(host).await;
        until("the rows to be in their month", async || {
            (count(host, "select count(*) from app.messages_default").await == 0).then_some(())
        })
        .await;
        let months = "select count(*) from pg_inherits where inhparent = 'app.messages'::regclass";
        until("this month and three more", async || (count(host, months).await == 5).then_some(())).await;
        assert_eq!(count(host, "select count(*) from app.messages").await, 3);
        let after = ana.post(&path, json!({"content": "where it belongs"})).await.expect(201);
        assert_eq!(after["message"]["seq"], 4);
        let found = count(host, "select count(*) from app.messages where search @@ to_tsquery('app.search', 'default')").await;
        assert_eq!(found, 1, "what moved can be searched");
    })
    .await;
}

#[tokio::test]
async fn every_partitioned_table_has_its_months() {
    Host::test(Options::default(), async |host| {
        let lacking = "
            select parent.relname::text from pg_class as parent
            where parent.relnamespace = 'app'::regnamespace and parent.relkind = 'p'
              and (select count(*) from generate_series(0, 3) as ahead
                   where to_regclass('app.' || parent.relname || '_' || to_char(
                     date_trunc('month', now() at time zone 'UTC') + make_interval(months => ahead), 'YYYY_MM')) is not null) < 4";
        until("three months ahead everywhere", async || {
            host.database.rows(lacking).await.is_empty().then_some(())
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn old_months_are_dropped_and_seqs_continue() {
    let options = Options::default().set("HANDLERS__HOUSEKEEPING__MESSAGES_MONTHS", 2);
    Host::test(options, async |host| {
        let (old, quiet) = (host.group("old", &["ana"]).await, host.group("quiet", &["ana"]).await);
        // Both have messages in an old month; one of them has no newer ones.
        host.database
            .run(&format!(
                "select app.ensure_month('messages', '2020-01-01');
                 delete from app.messages where conversation_id = '{quiet}';
                 update app.messages set seq = 9 where conversation_id = '{old}';
                 insert into app.messages (id, conversation_id, seq, sender_id, type, content, created_at)
                 select app.uuid_at('2020-01-05'::timestamptz + n * interval '1 second'), room::uuid, n, 'ana', 'text', 'm' || n, '2020-01-05'
                 from generate_series(1, 8) as n, unnest(array['{old}', '{quiet}']) as room"
            ))
            .await;
        run_again(host).await;
        until("the old month to be gone", async || {
            (count(host, "select count(*) from pg_class where relname = 'messages_2020_01'").await == 0).then_some(())
        })
        .await;
        let kept = format!("select count(*) from app.messages where conversation_id = '{quiet}' and seq = 8");
        assert_eq!(count(host, &kept).await, 1, "the last message of a quiet conversation stays");
        assert_eq!(count(host, "select count(*) from app.messages").await, 2);
        for (room, seq) in [(&old, 10), (&quiet, 9)] {
            let path = format!("/api/v1/conversations/{room}/messages");
            let sent = host.rest("ana").post(&path, json!({"content": "on"})).await.expect(201);
            assert_eq!(sent["message"]["seq"], seq);
        }
    })
    .await;
}

#[tokio::test]
async fn message_keys_are_kept_for_at_least_a_week() {
    // Even if the setting is lower.
    let options = Options::default().set("HANDLERS__HOUSEKEEPING__KEY_DAYS", 1);
    Host::test(options, async |host| {
        let room = host.group("lobby", &["ana"]).await;
        let path = format!("/api/v1/conversations/{room}/messages");
        let body = json!({"content": "once", "client_msg_id": "young"});
        host.rest("ana").post(&path, body.clone()).await.expect(201);
        host.database
            .run(
                "update app.message_keys set created_at = now() - interval '6 days 23 hours';
                 insert into app.message_keys (user_id, client_msg_id, fingerprint, message_id, created_at)
                 select 'ana', 'old ' || n, 1, gen_random_uuid(), now() - interval '7 days 1 minute'
                 from generate_series(1, 12000) as n",
            )
            .await;
        run_again(host).await;
        until("the old keys to be gone", async || {
            (count(host, "select count(*) from app.message_keys").await == 1).then_some(())
        })
        .await;
        assert_eq!(host.rest("ana").post(&path, body).await.expect(200)["duplicate"], true);
    })
    .await;
}
