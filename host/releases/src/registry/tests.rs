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
    let select =
        |user: &str| Selection::new(vec![user.to_owned()], Some("beta".to_owned()), None, None).unwrap();
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

fn hook(name: &str, bindings: &str) -> Arc<Entry<Manifest>> {
    entry(&format!("name = \"{name}\"\non.before = [{bindings}]"))
}

#[test]
fn the_hooks_of_an_action_are_called_by_order_and_then_by_name() {
    let table = RoutingTable::of([
        hook("c", r#"{ type = "message.send" }, { type = "message.edit", on_failure = "open" }"#),
        hook("b", r#"{ type = "message.send", order = -1 }"#),
        hook("a", r#"{ type = "message.send" }"#),
        send(),
    ])
    .unwrap();
    let names = |action: &str| -> Vec<_> {
        table.hooks(action).iter().map(|hook| (hook.entry.name.as_str(), hook.on_failure)).collect()
    };
    let closed = OnFailure::Closed;
    assert_eq!(names("message.send"), [("b", closed), ("a", closed), ("c", closed)]);
    assert_eq!(names("message.edit"), [("c", OnFailure::Open)]);
    assert!(names("message.delete").is_empty());
}

#[test]
fn an_action_has_a_bounded_number_of_hooks() {
    let hooks = |count: usize| (0..count).map(|n| hook(&format!("hook-{n}"), r#"{ type = "a" }"#));
    let most = limits::HOOKS_PER_ACTION_MAX;
    let full = RoutingTable::of(hooks(most)).unwrap();
    // The next release of one of them replaces its hook.
    full.with(hook("hook-0", r#"{ type = "a", order = 3 }"#)).unwrap();
    let refusal = refusal(hooks(most + 1));
    assert!(refusal.contains("`a` has 8 hooks, the maximum"), "{refusal}");
}

#[test]
fn a_route_names_its_action_and_a_trial_keeps_it() {
    let acts = |action: &str| {
        entry(&format!("name = \"send-message\"\non.http = [{{ method = \"POST\", path = \"/m\"{action} }}]"))
    };
    let (none, sends, edits) =
        (acts(""), acts(r#", action = "message.send""#), acts(r#", action = "message.edit""#));
    let table = RoutingTable::of([sends.clone()]).unwrap();
    let Found::Route(route) = table.http("POST", "/m") else { panic!("a route") };
    assert_eq!(route.action, Some("message.send"));
    covers(&none.running, &sends.running).unwrap();
    covers(&sends.running, &sends.running).unwrap();
    for other in [none, edits] {
        let refusal = covers(&sends.running, &other.running).unwrap_err().to_string();
        assert!(refusal.contains("`POST /m` with the action `message.send`"), "{refusal}");
    }
}

#[test]
fn a_trial_keeps_hooks_and_methods() {
    let manifest = |on: &str| Manifest::parse(&format!("name = \"x\"\n{on}")).unwrap();
    let running = manifest("on.before = [{ type = \"a\", order = 1 }]\non.call = [\"profile\"]");
    let hooks = "on.before = [{ type = \"b\" }, { type = \"a\" }]";
    let more = manifest(&format!("{hooks}\non.call = [\"list\", \"profile\"]"));
    covers(&running, &more).unwrap();
    for (less, lacks) in [
        ("on.before = [{ type = \"b\" }]\non.call = [\"profile\"]", "the hook before `a`"),
        ("on.before = [{ type = \"a\" }]\non.call = [\"list\"]", "method `profile`"),
    ] {
        let refusal = covers(&running, &manifest(less)).unwrap_err().to_string();
        assert!(refusal.contains(lacks), "{refusal}");
    }
}
