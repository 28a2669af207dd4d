//! A person handles their notifications on two devices.

use super::*;

#[tokio::test]
async fn a_change_on_one_device_shows_on_the_other() {
    Host::test(Options::default(), async |host| {
        let (mut phone, mut desk) = (host.client("bo").await, host.client("bo").await);
        let mut ids = Vec::new();
        for n in 0..4 {
            host.notice("bo", &format!("notice {n}")).await;
            let (on_phone, on_desk) =
                (phone.expect("notification.new").await, desk.expect("notification.new").await);
            assert_eq!(on_phone, on_desk);
            ids.push(id_of(&on_phone));
        }
        let unread = async |expected: usize| {
            let page = host.notifications("bo", "").await;
            assert_eq!(page["unread"], expected, "{page}");
        };
        unread(4).await;

        let ok = phone.request("notification.read", json!({"id": ids[0]})).await.expect("notification.ok");
        assert!(ok["notification"]["read_at"].is_string(), "{ok}");
        assert_eq!((&ok["id"], &ok["unread"]), (&json!(ids[0]), &json!(3)));
        unread(3).await;
        let push = desk.expect("notification.read").await;
        assert_eq!((&push["id"], &push["unread"]), (&json!(ids[0]), &json!(3)), "{push}");
        assert_eq!(push["notification"], ok["notification"]);

        // A repeated request changes nothing, and causes no push.
        let again = phone.request("notification.read", json!({"id": ids[0]})).await.expect("notification.ok");
        assert_eq!(again, ok);

        let path = format!("/api/v1/notifications/{}/read", ids[1]);
        let marked = host.rest("bo").put(&path, json!({})).await.expect(200);
        assert_eq!(marked["notification"]["id"], ids[1]);
        assert_eq!(desk.expect("notification.read").await["id"], ids[1]);
        unread(2).await;

        host.rest("bo").delete(&format!("/api/v1/notifications/{}", ids[2])).await.expect(204);
        let gone = desk.expect("notification.read").await;
        assert_eq!(
            (&gone["id"], &gone["deleted"], &gone["unread"]),
            (&json!(ids[2]), &json!(true), &json!(1))
        );
        unread(1).await;

        let all = host.rest("bo").put("/api/v1/notifications/read-all", json!({})).await.expect(200);
        assert_eq!(all["updated"], 1);
        let push = desk.expect("notification.read").await;
        assert_eq!((&push["all"], &push["unread"]), (&json!(true), &json!(0)));
        unread(0).await;
        let nothing = host.rest("bo").put("/api/v1/notifications/read-all", json!({})).await.expect(200);
        assert_eq!(nothing["updated"], 0);
        for expected in [&ids[0], &ids[1], &ids[2]] {
            assert_eq!(phone.expect("notification.read").await["id"], **expected);
        }
    })
    .await;
}

#[tokio::test]
async fn the_list_has_pages_and_filters() {
    Host::test(Options::default(), async |host| {
        // There are more than the hundred cached notifications.
        let rows = "insert into app.notifications (id, user_id, type, title, created_at, read_at)
            select app.notification_id(switchboard.uuid_floor(now() - n * interval '1 second'), n, 'bo'), 'bo',
              case when n % 10 = 0 then 'system' else 'new_message' end, 'number ' || n, now() - n * interval '1 second',
              case when n % 2 = 0 then now() end
            from generate_series(1, 250) as n";
        host.database.connect().await.run(rows).await;
        let walk = async |query: &str, limit: usize| {
            let (mut titles, mut cursor) = (Vec::new(), String::new());
            loop {
                let page = host.notifications("bo", &format!("?limit={limit}{query}{cursor}")).await;
                assert_eq!(page["unread"], 125);
                let list = page["notifications"].as_array().unwrap();
                assert!(list.len() <= limit);
                titles.extend(list.iter().map(|one| one["title"].as_str().unwrap().to_owned()));
                match page["next_cursor"].as_str() {
                    Some(next) => cursor = format!("&cursor={next}"),
                    None => return titles,
                }
            }
        };
        let numbers = |fits: fn(&usize) -> bool| -> Vec<String> {
            (1..=250).filter(fits).map(|n| format!("number {n}")).collect()
        };
        // The list comes from Postgres, and then from the cache.
        for _ in 0..2 {
            assert_eq!(walk("", 100).await, numbers(|_| true));
            assert_eq!(walk("", 7).await, numbers(|_| true));
            assert_eq!(walk("&unread=true", 20).await, numbers(|n| n % 2 == 1));
            assert_eq!(walk("&type=system", 4).await, numbers(|n| n % 10 == 0));
            assert_eq!(walk("&type=system&unread=false", 25).await, numbers(|n| n % 10 == 0));
            assert_eq!(walk("&type=system&unread=1", 20).await, Vec::<String>::new());
        }
        assert_eq!(host.notifications("bo", "").await["notifications"].as_array().unwrap().len(), 20);

        let get = async |query: &str| host.rest("bo").get(&format!("/api/v1/notifications{query}")).await;
        for (query, field) in [
            ("?limit=0", "limit"),
            ("?limit=101", "limit"),
            ("?limit=x", "limit"),
            ("?cursor=x", "cursor"),
            ("?cursor=", "cursor"),
            ("?unread=maybe", "unread"),
            ("?type=gossip", "type"),
            ("?type=a%00b", "type"),
        ] {
            get(query).await.expect_invalid(field);
        }
        host.rest("bo").anonymous().get("/api/v1/notifications").await.expect_problem(401, "unauthorized");
    })
    .await;
}

#[tokio::test]
async fn things_of_others_are_answered_with_not_found() {
    Host::test(Options::default(), async |host| {
        let mut bo = host.client("bo").await;
        host.notice("bo", "for bo").await;
        let id = id_of(&bo.expect("notification.new").await);
        let cy = host.rest("cy");
        let nothing = "019aa007-76bb-7fff-bfff-ffffffffffff";
        for name in [id.as_str(), nothing, "x", "%00"] {
            cy.put(&format!("/api/v1/notifications/{name}/read"), json!({}))
                .await
                .expect_problem(404, "not_found");
            cy.delete(&format!("/api/v1/notifications/{name}")).await.expect_problem(404, "not_found");
        }
        let mut of_cy = host.client("cy").await;
        of_cy.request("notification.read", json!({"id": id})).await.expect_error("not_found");
        for (payload, field) in [(json!({}), "id"), (json!({"id": 7}), "id"), (json!({"id": "x"}), "id")] {
            of_cy.request("notification.read", payload).await.expect_invalid(field);
        }
        assert_eq!(host.notifications("cy", "").await["notifications"], json!([]));
        assert_eq!(host.notifications("bo", "").await["unread"], 1);

        // After the deletion it does not exist for its owner either.
        host.rest("bo").delete(&format!("/api/v1/notifications/{id}")).await.expect(204);
        host.rest("bo").delete(&format!("/api/v1/notifications/{id}")).await.expect_problem(404, "not_found");
        bo.request("notification.read", json!({"id": id})).await.expect_error("not_found");
        assert_eq!(host.notifications("bo", "").await["notifications"], json!([]));
    })
    .await;
}

#[tokio::test]
async fn the_cache_is_never_outdated_and_never_needed() {
    Host::test(Options::default(), async |host| {
        let mut bo = host.client("bo").await;
        let titles = async |host: &Host| -> Vec<String> {
            let page = host.notifications("bo", "").await;
            let list = page["notifications"].as_array().unwrap();
            list.iter().map(|one| one["title"].as_str().unwrap().to_owned()).collect()
        };
        let mut ids = Vec::new();
        for n in 0..20 {
            // The list of the round before is cached; a pushed notification is in the list at once.
            host.notice("bo", &format!("{n}")).await;
            ids.push(id_of(&bo.expect("notification.new").await));
            assert_eq!(titles(host).await.first(), Some(&n.to_string()));
            if n % 5 == 4 {
                let id = ids.remove(0);
                host.rest("bo").delete(&format!("/api/v1/notifications/{id}")).await.expect(204);
                assert_eq!(titles(host).await.len(), ids.len());
                bo.request("notification.read", json!({"id": ids[0]})).await.expect("notification.ok");
                assert_eq!(host.notifications("bo", "?unread=true").await["unread"], n - n / 5 - 1);
            }
        }
        // The cache is lost with Redis, and read from Postgres again.
        let before = host.notifications("bo", "").await;
        host.redis.kill();
        assert_eq!(host.notifications("bo", "").await, before);
        host.redis.start_again().await;
        assert_eq!(host.notifications("bo", "").await, before);
        assert_eq!(host.notifications("bo", "").await, before);
    })
    .await;
}

/// A reader during changes gets a state from some moment of the call, and in the end the last state.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_readers_and_writers_leave_the_right_cache() {
    Host::test(Options::default(), async |host| {
        for n in 0..40 {
            host.notice("bo", &format!("{n}")).await;
        }
        host.outbox_read().await;
        let page = host.notifications("bo", "?limit=100").await;
        let ids: Vec<_> = page["notifications"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["id"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(ids.len(), 40);
        let mut tasks = Vec::new();
        for some in ids.chunks(10) {
            let (rest, some) = (host.rest("bo"), some.to_vec());
            tasks.push(tokio::spawn(async move {
                for id in some {
                    rest.put(&format!("/api/v1/notifications/{id}/read"), json!({})).await.expect(200);
                    // A client that got the answer sees the change.
                    let page = rest.get("/api/v1/notifications?limit=100").await.expect(200);
                    let list = page["notifications"].as_array().unwrap();
                    let mine = list.iter().find(|one| one["id"] == *id).expect("it is listed");
                    assert!(mine["read_at"].is_string(), "stale: {mine}");
                }
            }));
        }
        for task in tasks {
            task.await.expect("a task ends");
        }
        assert_eq!(host.notifications("bo", "?unread=true").await["notifications"], json!([]));
        assert_eq!(host.notifications("bo", "").await["unread"], 0);
    })
    .await;
}
