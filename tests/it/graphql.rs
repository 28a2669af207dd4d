//! Notifications over GraphQL: the same as over REST, within limits, over HTTP as the specification requires.

use hyper::Method;
use serde_json::{Value, json};
use switchboard_tests::host::{Host, Options};
use switchboard_tests::rest::{Answer, Rest};

const LIST: &str = "query ($first: Int, $after: String, $unread: Boolean) {
  notifications(first: $first, after: $after, unread: $unread) {
    nodes { id title readAt }
    edges { cursor node { id userId type level body entityType entityId data createdAt } }
    pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
    unread
  }
}";
const MARK: &str = "mutation ($id: ID!) { markNotificationRead(id: $id) { id readAt } }";
const DELETE: &str = "mutation ($id: ID!) { deleteNotification(id: $id) }";

async fn ask(who: &Rest, query: &str, variables: Value) -> Value {
    who.post("/graphql", json!({"query": query, "variables": variables})).await.expect(200)
}

/// The only error of a response, which must have this code.
#[track_caller]
fn error(answer: &Value, code: &str) -> Value {
    let errors = answer["errors"].as_array().unwrap_or_else(|| panic!("no errors: {answer}"));
    assert_eq!((errors.len(), &errors[0]["extensions"]["code"]), (1, &json!(code)), "{answer}");
    assert!(errors[0]["message"].is_string(), "{answer}");
    errors[0]["extensions"].clone()
}

#[tokio::test]
async fn graphql_lists_marks_and_deletes_like_rest() {
    Host::test(Options::default(), async |host| {
        let (mut desk, bo) = (host.client("bo").await, host.rest("bo"));
        for n in 0..3 {
            let body = json!({"target": "user:bo", "type": "notice", "payload": {},
                "notify": {"type": "match", "level": "alert", "title": format!("{n}"), "body": "b", "data": {"n": n},
                    "entity_type": "match", "entity_id": "31"}});
            host.publish(body).await.expect(202);
            desk.expect("notification.new").await;
        }
        let rest = host.notifications("bo", "").await;
        let first = ask(&bo, LIST, json!({"first": 2})).await["data"]["notifications"].clone();
        let titles = |page: &Value| -> Vec<Value> {
            page["nodes"].as_array().unwrap().iter().map(|node| node["title"].clone()).collect()
        };
        assert_eq!((titles(&first), &first["unread"]), (vec![json!("2"), json!("1")], &json!(3)));
        assert_eq!((&first["pageInfo"]["hasNextPage"], &first["pageInfo"]["hasPreviousPage"]), (&json!(true), &json!(false)));
        let edge = &first["edges"][0];
        let same = &rest["notifications"][0];
        for (theirs, ours) in [("userId", "user_id"), ("type", "type"), ("level", "level"), ("body", "body"),
            ("entityType", "entity_type"), ("entityId", "entity_id"), ("data", "data"), ("createdAt", "created_at")] {
            assert_eq!(edge["node"][theirs], same[ours], "{theirs}");
        }
        assert_eq!(edge["cursor"], same["id"]);
        let after = json!({"after": first["pageInfo"]["endCursor"], "first": 2});
        let second = ask(&bo, LIST, after).await["data"]["notifications"].clone();
        assert_eq!((titles(&second), &second["pageInfo"]["hasNextPage"]), (vec![json!("0")], &json!(false)));

        let id = same["id"].clone();
        let marked = ask(&bo, MARK, json!({"id": id})).await;
        assert_eq!(marked["data"]["markNotificationRead"]["id"], id);
        assert!(marked["data"]["markNotificationRead"]["readAt"].is_string(), "{marked}");
        assert_eq!(desk.expect("notification.read").await["id"], id);
        let unread = ask(&bo, LIST, json!({"unread": true})).await["data"]["notifications"].clone();
        assert_eq!((titles(&unread), &unread["unread"]), (vec![json!("1"), json!("0")], &json!(2)));
        let deleted = ask(&bo, DELETE, json!({"id": id})).await;
        assert_eq!(deleted, json!({"data": {"deleteNotification": true}}));
        assert_eq!(host.notifications("bo", "").await["notifications"].as_array().unwrap().len(), 2);

        // A deleted one, and one of another user.
        error(&ask(&bo, DELETE, json!({"id": id})).await, "not_found");
        error(&ask(&bo, MARK, json!({"id": "x"})).await, "not_found");
        let of_bo = &second["nodes"][0]["id"];
        error(&ask(&host.rest("cy"), MARK, json!({"id": of_bo})).await, "not_found");
        assert_eq!(ask(&host.rest("cy"), LIST, json!({})).await["data"]["notifications"]["nodes"], json!([]));
        for (variables, field) in
            [(json!({"first": 0}), "first"), (json!({"first": 101}), "first"), (json!({"after": "x"}), "after")]
        {
            assert_eq!(error(&ask(&bo, LIST, variables).await, "invalid")["field"], field);
        }
        bo.anonymous().post("/graphql", json!({"query": "{ __typename }"})).await.expect_problem(401, "unauthorized");
    })
    .await;
}

#[tokio::test]
async fn each_graphql_operation_has_its_rate_limit() {
    let options = Options::default()
        .set("HANDLERS__NOTIFICATIONS__GRAPHQL_LISTS_PER_MINUTE", 3)
        .set("HANDLERS__NOTIFICATIONS__GRAPHQL_READS_PER_MINUTE", 2)
        .set("HANDLERS__NOTIFICATIONS__GRAPHQL_DELETES_PER_MINUTE", 1);
    Host::test(options, async |host| {
        let (bo, nothing) = (host.rest("bo"), json!({"id": "019aa007-76bb-7fff-bfff-ffffffffffff"}));
        let full = |answer: &Value| {
            let wait_ms =
                error(answer, "rate_limited")["retry_after_ms"].as_u64().expect("when to come back");
            assert!((1..=60_000).contains(&wait_ms), "{answer}");
        };
        for _ in 0..3 {
            assert!(ask(&bo, LIST, json!({})).await["errors"].is_null());
        }
        full(&ask(&bo, LIST, json!({})).await);
        for _ in 0..2 {
            error(&ask(&bo, MARK, nothing.clone()).await, "not_found");
        }
        full(&ask(&bo, MARK, nothing.clone()).await);
        error(&ask(&bo, DELETE, nothing.clone()).await, "not_found");
        full(&ask(&bo, DELETE, nothing).await);
        // Each field of a request counts, whatever its alias.
        let cy = host.rest("cy");
        let twice = "{ a: notifications { unread } b: notifications { unread } }";
        assert!(ask(&cy, twice, json!({})).await["errors"].is_null());
        full(&ask(&cy, twice, json!({})).await);
        // The limits apply to GraphQL alone, and to each person separately.
        host.notifications("bo", "").await;
        assert!(ask(&host.rest("dee"), LIST, json!({})).await["errors"].is_null());
    })
    .await;
}

#[tokio::test]
async fn the_default_rate_limits_are_100_200_and_100() {
    Host::test(Options::default(), async |host| {
        let (bo, id) = (host.rest("bo"), "019aa007-76bb-7fff-bfff-ffffffffffff");
        // Aliases, so that the test need not send two hundred requests.
        let many =
            |field: &str, count: usize| -> String { (0..count).map(|n| format!("a{n}: {field} ")).collect() };
        for (kind, field, most) in [
            ("query", "notifications(first: 1) { unread }".to_owned(), 100),
            ("mutation", format!("markNotificationRead(id: \"{id}\") {{ id }}"), 200),
            ("mutation", format!("deleteNotification(id: \"{id}\")"), 100),
        ] {
            let mut codes = std::collections::BTreeMap::<String, usize>::new();
            let mut asked = 0;
            while asked < most + 20 {
                // A failed non-null field ends a mutation, so send one at a time.
                let count = if kind == "query" { 20 } else { 1 };
                let answer = ask(&bo, &format!("{kind} {{ {} }}", many(&field, count)), json!({})).await;
                let error = &answer["errors"][0]["extensions"]["code"];
                *codes.entry(error.as_str().unwrap_or("done").to_owned()).or_default() += count;
                asked += count;
            }
            assert_eq!(codes.get("rate_limited"), Some(&20), "{field}: {codes:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_document_beyond_the_limits_is_refused() {
    Host::test(Options::default(), async |host| {
        let bo = host.rest("bo");
        let expensive: String = (0..20)
            .map(|n| format!("a{n}: notifications(first: 100) {{ nodes {{ id title body }} }} "))
            .collect();
        let deep = |levels: usize| format!("{}{}", "{a".repeat(levels), "}".repeat(levels));
        let fragments: String = "query { ...f } fragment f on Query { ...f }".to_owned();
        for (query, code) in [
            (format!("{{ {expensive} }}"), "invalid"),
            (deep(20), "invalid"),
            (fragments, "invalid"),
            ("{ nothing }".to_owned(), "invalid"),
            ("{ notifications(first: \"x\") { unread } }".to_owned(), "invalid"),
            ("{ notifications { unread } ".to_owned(), "malformed"),
            (String::new(), "malformed"),
            ("query A { __typename } query B { __typename }".to_owned(), "invalid"),
            ("{ __schema { types { name } } }".to_owned(), "forbidden"),
            ("query { ...f } fragment f on Query { __schema { types { name } } }".to_owned(), "forbidden"),
        ] {
            let answer = ask(&bo, &query, json!({})).await;
            let code_of = &answer["errors"][0]["extensions"]["code"];
            assert_eq!(code_of, code, "{query}: {answer}");
            assert!(answer.get("data").is_none(), "{answer}");
        }
        // Small documents whose validation or answer would take more than the limits of a call.
        let doubling = |root: &str, count: usize| -> String {
            let steps = (0..count).map(|n| format!(" fragment f{n} on Query {{ ...f{0} ...f{0} }}", n + 1));
            let steps: String = steps.collect();
            format!("{root}{steps} fragment f{count} on Query {{ __typename }}")
        };
        let aliased =
            |field: &str, count: usize| -> String { (0..count).map(|n| format!("a{n}: {field} ")).collect() };
        let delete = "deleteNotification(id: \"019aa007-76bb-7fff-bfff-ffffffffffff\")";
        for query in [
            doubling("{ ...f0 }", 28),
            doubling("{ ...f0 }", 20),
            doubling("{ __typename }", 20),
            format!("{{ {} }}", aliased("notifications(first: 1) { unread }", 100)),
            format!("mutation {{ {} }}", aliased(delete, 500)),
            format!("mutation {{ {} }}", aliased(delete, 11)),
            format!("{{ notifications(first: 100) {{ nodes {{ {} }} }} }}", aliased("data", 40)),
            format!("{{ {} }}", "__typename ".repeat(5_900)),
            format!("{{ {} }}", aliased("__typename", 1_500)),
        ] {
            let answer = ask(&bo, &query, json!({})).await;
            assert_eq!(answer["errors"][0]["extensions"]["code"], "invalid", "{query}: {answer}");
            assert!(answer.get("data").is_none(), "{answer}");
        }
        // A document at the maximum is answered.
        let lists =
            format!("{{ {} }}", aliased("notifications(first: 20) { unread nodes { id title } }", 20));
        assert!(ask(&bo, &lists, json!({})).await["errors"].is_null());
        let deletions = format!("mutation {{ {} }}", aliased(delete, 10));
        let answer = ask(&bo, &deletions, json!({})).await;
        let codes = answer["errors"].as_array().unwrap_or_else(|| panic!("{answer}"));
        assert_eq!(codes.len(), 10, "{answer}");
        assert!(codes.iter().all(|error| error["extensions"]["code"] == "not_found"), "{answer}");
        for levels in [25, 100, 20_000] {
            let answer = bo.post("/graphql", json!({"query": deep(levels)})).await.expect(400);
            error(&answer, "malformed");
        }
        // The answer reveals nothing of the schema, and suggests nothing.
        let types =
            "{ a: __type(name: \"Notification\") { name } b: __type(name: \"Query\") { fields { name } } }";
        let answer = ask(&bo, types, json!({})).await;
        assert_eq!(answer, json!({"data": {"a": null, "b": null}}));
        let guess = ask(&bo, "{ notification { unread } }", json!({})).await;
        assert!(!guess.to_string().contains("notifications"), "{guess}");
        // More hostile input: NUL, names and numbers.
        for variables in [
            json!({"after": "a\0b"}),
            json!({"first": 3e9}),
            json!({"first": -1}),
            json!({"unread": "yes"}),
            json!({"after": "x".repeat(50_000)}),
        ] {
            let answer = ask(&bo, LIST, variables).await;
            assert_eq!(answer["errors"][0]["extensions"]["code"], "invalid", "{answer}");
        }
    })
    .await;
}

#[tokio::test]
async fn introspection_works_if_the_operator_enables_it() {
    let options = Options::default().set("HANDLERS__NOTIFICATIONS__INTROSPECTION", true);
    Host::test(options, async |host| {
        let schema = "{ __schema { queryType { name } types { name fields { name args { name type { name ofType { name } } } } } } }";
        let answer = ask(&host.rest("bo"), schema, json!({})).await;
        let types = answer["data"]["__schema"]["types"].as_array().unwrap_or_else(|| panic!("{answer}"));
        for name in ["Notification", "NotificationConnection", "PageInfo", "Query", "Mutation"] {
            assert!(types.iter().any(|known| known["name"] == name), "the answer lacks {name}: {answer}");
        }
    })
    .await;
}

fn media(answer: &Answer) -> &str {
    answer.headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default()
}

#[tokio::test]
async fn responses_follow_graphql_over_http() {
    Host::test(Options::default(), async |host| {
        let bo = host.rest("bo");
        let post = async |headers: &[(&str, &str)], body: &str| {
            bo.send(Method::POST, "/graphql", headers, body.to_owned()).await
        };
        let (json_body, wrong) = (r#"{"query":"{ __typename }"}"#, r#"{"query":"{ wrong }"}"#);
        let (typed, plain) = (("content-type", "application/json"), "application/json");
        let response = "application/graphql-response+json";
        for (accept, body, status, answered) in [
            (None, json_body, 200, plain),
            (Some("*/*"), json_body, 200, plain),
            (Some(plain), wrong, 200, plain),
            (Some(response), json_body, 200, response),
            (Some(response), wrong, 400, response),
            (Some(response), "{", 400, response),
            (Some(plain), r#"{"query":7}"#, 400, plain),
            (Some("text/html"), json_body, 406, plain),
        ] {
            let mut headers = vec![typed];
            headers.extend(accept.map(|accept| ("accept", accept)));
            let answer = post(&headers, body).await;
            assert_eq!(
                (answer.status, media(&answer).split(';').next()),
                (status, Some(answered)),
                "{answer}"
            );
        }
        assert_eq!(post(&[], json_body).await.status, 415);
        assert_eq!(post(&[("content-type", "text/plain")], json_body).await.status, 415);
        let large = format!(r#"{{"query":"{}"}}"#, "x".repeat(64 * 1024));
        post(&[typed], &large).await.expect_problem(413, "too_large");

        let asked = bo.get("/graphql?query=%7B%20__typename%20%7D").await.expect(200);
        assert_eq!(asked, json!({"data": {"__typename": "Query"}}));
        let changes = bo.get("/graphql?query=mutation%20%7B%20__typename%20%7D").await;
        assert_eq!(
            (changes.status, changes.headers["allow"].to_str().ok()),
            (405, Some("POST")),
            "{changes}"
        );
    })
    .await;
}
