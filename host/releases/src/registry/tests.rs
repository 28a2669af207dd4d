//! Routing tables of manifests only: no release is loaded here.

use super::*;

fn digest() -> Digest {
    Digest::of(b"a release")
}

fn entry(manifest: &str) -> Arc<Entry<Manifest>> {
    let manifest = Manifest::parse(manifest).unwrap();
    Arc::new(Entry::new(manifest.name.clone(), digest(), 1, Arc::new(manifest)))
}

fn send() -> Arc<Entry<Manifest>> {
    entry(
        r#"
        name = "send-message"
        on.http = [{ method = "POST", path = "/api/v1/conversations/{id}/messages" }]
        on.frame = [{ type = "message.send", aliases = ["chat:send-message"] }]
        "#,
    )
}

fn history() -> Arc<Entry<Manifest>> {
    entry(
        r#"
        name = "history"
        on.http = [{ method = "GET", path = "/api/v1/conversations/{conversation}/messages", public = true }]
        on.connection = { opened = true, missed = ["conv:*"] }
        "#,
    )
}

fn refusal(entries: impl IntoIterator<Item = Arc<Entry<Manifest>>>) -> String {
    RoutingTable::of(entries).err().expect("a conflict").to_string()
}

#[test]
fn a_path_belongs_to_one_handler_per_method() {
    let bindings = RoutingTable::of([send(), history()]).unwrap();
    let path = "/api/v1/conversations/c%2F1/messages";

    let Found::Route(route) = bindings.http("GET", path) else { panic!("a route") };
    assert_eq!(route.entry.name, "history");
    assert_eq!(route.pattern, "/api/v1/conversations/{conversation}/messages");
    assert_eq!(route.params, [("conversation", "c%2F1")]);
    assert!(route.public);

    let Found::Route(route) = bindings.http("POST", path) else { panic!("a route") };
    assert_eq!((route.entry.name.as_str(), route.public), ("send-message", false));

    let Found::MethodNotAllowed { allow } = bindings.http("DELETE", path) else { panic!("405") };
    assert_eq!(allow, ["GET", "POST"]);
    assert!(matches!(bindings.http("GET", "/api/v1/conversations"), Found::Nothing));
}

#[test]
fn a_frame_is_found_under_every_name() {
    let bindings = RoutingTable::of([send()]).unwrap();
    let found = bindings.frame("message.send").unwrap();
    assert_eq!(
        (found.entry.name.as_str(), found.canonical, found.alias),
        ("send-message", "message.send", None)
    );
    let found = bindings.frame("chat:send-message").unwrap();
    assert_eq!((found.canonical, found.alias), ("message.send", Some("chat:send-message")));
    assert!(bindings.frame("message.edit").is_none());
}

#[test]
fn who_knows_an_address_is_found_by_pattern() {
    let bindings = RoutingTable::of([send(), history()]).unwrap();
    let found = |address: &str| bindings.missed(&Address::parse(address).unwrap()).map(|e| e.name.clone());
    assert_eq!(found("conv:1").as_deref(), Some("history"));
    assert_eq!(found("topic:1"), None);
    assert_eq!(bindings.opened().len(), 1);
    assert!(bindings.touched().is_empty());
}

#[test]
fn what_two_handlers_bind_is_refused_with_both_names() {
    let thief = |on: &str| entry(&format!("name = \"thief\"\n{on}"));
    for (on, complaint) in [
        (
            r#"on.http = [{ method = "POST", path = "/api/v1/conversations/{x}/messages" }]"#,
            "`POST /api/v1/conversations/{x}/messages` of `thief` is already bound by `send-message` as \
             `/api/v1/conversations/{id}/messages`",
        ),
        (
            r#"on.frame = [{ type = "other", aliases = ["chat:send-message"] }]"#,
            "frame type `chat:send-message` of `thief` is already bound by `send-message`",
        ),
        (
            r#"on.connection.missed = ["conv:private:*"]"#,
            "missed pattern `conv:private:*` of `thief` overlaps `conv:*` of `history`",
        ),
        (r#"on.http = [{ method = "GET", path = "/ws" }]"#, "answered by the host itself"),
        (r#"on.http = [{ method = "GET", path = "/a/{b" }]"#, "is not a route"),
        (
            r#"on.frame = [{ type = "twice", aliases = ["twice"] }]"#,
            "`twice` of `thief` is already bound by `thief`",
        ),
    ] {
        let refusal = refusal([send(), history(), thief(on)]);
        assert!(refusal.contains(complaint), "{refusal}");
    }
}

#[test]
fn a_route_of_its_own_does_not_stop_its_next_release() {
    let registry = Registry::new();
    registry.swap(RoutingTable::of([send(), history()]).unwrap());

    let before = registry.current();
    let mut next = Manifest::clone(&send().running);
    next.on.http[0].path = "/api/v2/messages".to_owned();
    let next = Arc::new(Entry::new("send-message", digest(), 2, Arc::new(next)));
    registry.swap(before.with(next).unwrap());

    let after = registry.current();
    assert!(matches!(after.http("POST", "/api/v2/messages"), Found::Route(_)));
    assert!(matches!(
        after.http("DELETE", "/api/v1/conversations/1/messages"),
        Found::MethodNotAllowed { .. }
    ));
    // Code that took the old table still sees the old table.
    assert!(matches!(before.http("POST", "/api/v1/conversations/1/messages"), Found::Route(_)));
    assert_eq!(before.by_name("send-message").unwrap().generation, 1);
    assert_eq!(after.by_name("send-message").unwrap().generation, 2);
}

#[test]
fn a_swap_is_announced() {
    let registry = Registry::new();
    let changes = registry.changes();
    assert!(!changes.has_changed().unwrap());
    registry.swap(RoutingTable::of([send()]).unwrap());
    assert!(changes.has_changed().unwrap());
}

#[test]
fn the_order_of_greetings_does_not_depend_on_the_order_of_releases() {
    let greeter = |name: &str| entry(&format!("name = \"{name}\"\non.connection.opened = true"));
    let bindings = RoutingTable::of([greeter("b"), greeter("a")]).unwrap();
    let bindings = bindings.with(greeter("a")).unwrap();
    let order: Vec<_> = bindings.opened().iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(order, ["a", "b"]);
}

#[test]
fn a_canary_keeps_its_users_and_gains_more_as_it_grows() {
    let with_canary = |percent| {
        let mut entry = Entry::new("send-message", digest(), 1, send().running.clone());
        let trial = Candidate { digest: digest(), release: send().running.clone(), percent };
        entry.set_canary(trial, Selection::default(), None);
        entry
    };
    let users: Vec<String> = (0..10_000).map(|n| format!("user-{n}")).collect();
    let chosen = |entry: &Entry<Manifest>| -> Vec<bool> {
        let canary = &entry.canary.as_ref().unwrap().candidate.release;
        users.iter().map(|user| Arc::ptr_eq(entry.pick(user), canary)).collect()
    };
    let (ten, thirty) = (chosen(&with_canary(10)), chosen(&with_canary(30)));
    assert!(ten.iter().zip(&thirty).all(|(before, after)| !before || *after));
    let share = ten.iter().filter(|canary| **canary).count();
    assert!((800..1200).contains(&share), "10 % of 10,000 users is {share}");

    // A canary that this node gave up gets no user.
    let entry = with_canary(99);
    entry.canary.as_ref().unwrap().give_up();
    assert!(users.iter().all(|user| Arc::ptr_eq(entry.pick(user), &entry.running)));
}

#[test]
fn a_canary_answers_whom_it_selects_beside_its_share_and_stays_the_same_while_nothing_changes() {
    let running = send().running.clone();
    let trial = || Candidate { digest: digest(), release: running.clone(), percent: 0 };
    let canary = Candidate { release: send().running.clone(), ..trial() };
    let select = |user: &str| {
        Selection::new(vec![user.to_owned()], Some("beta".to_owned()), None, None).unwrap()
    };
    let mut entry = Entry::new("send-message", digest(), 1, running.clone());
    entry.set_canary(canary, select("ana"), None);
    let release = &entry.canary.as_ref().unwrap().candidate.release;
    assert!(Arc::ptr_eq(entry.pick("ana"), release) && Arc::ptr_eq(entry.pick("bo"), &running));
    let roles = ["beta".to_owned()];
    let of_role = CallOrigin { roles: &roles, ..CallOrigin::of("bo") };
    assert!(Arc::ptr_eq(entry.pick_for(&of_role), release));

    let again = |selection| {
        let mut next = Entry::new("send-message", digest(), 2, running.clone());
        let same = Candidate { release: release.clone(), ..trial() };
        next.set_canary(same, selection, Some(&entry));
        next
    };
    assert!(again(select("ana")).has_releases_of(&entry));
    assert!(!again(select("bo")).has_releases_of(&entry), "other users are judged anew");
    entry.canary.as_ref().unwrap().give_up();
    assert!(Arc::ptr_eq(entry.pick("ana"), &running));
}

#[test]
fn a_trial_binds_what_the_running_release_binds() {
    let running = send().running.clone();
    covers(&running, &running).unwrap();
    let more = Manifest::parse(
        r#"
        name = "send-message"
        on.http = [
            { method = "POST", path = "/api/v1/conversations/{id}/messages" },
            { method = "PUT", path = "/api/v1/messages" },
        ]
        on.frame = [{ type = "message.send", aliases = ["say", "chat:send-message"] }]
        "#,
    );
    covers(&running, &more.unwrap()).unwrap();
    for (less, lacks) in [
        (r#"on.frame = [{ type = "message.send", aliases = ["chat:send-message"] }]"#, "POST"),
        (
            r#"on.http = [{ method = "POST", path = "/api/v1/conversations/{id}/messages" }]
            on.frame = [{ type = "message.send" }]"#,
            "`message.send`",
        ),
    ] {
        let less = Manifest::parse(&format!("name = \"send-message\"\n{less}")).unwrap();
        let refusal = covers(&running, &less).unwrap_err().to_string();
        assert!(refusal.contains(lacks), "{refusal}");
    }
}
