//! Tests with a real Postgres: each has its own database, made from the migrations of the host.

use std::time::Duration;

use super::*;
use switchboard_core::ids::NodeId;
use switchboard_postgres::poll::Poll;
use switchboard_testing::with_database;

/// The poll of a node. Its first poll is the first heartbeat.
fn poll(node: NodeId, pool: &PgPool) -> Poll {
    Poll::new(pool.clone(), node, "127.0.0.1:9090".parse().unwrap())
}

fn manifest(name: &str) -> Manifest {
    Manifest::parse(&format!("name = \"{name}\"\non.connection.opened = true\n[config]\nlimit = 25")).unwrap()
}

/// Stores a release of a handler; its file is the text.
async fn kept(repository: &Repository, name: &str, file: &str) -> Digest {
    let digest = Digest::of(file.as_bytes());
    repository.store(digest, &manifest(name), file.as_bytes(), "ana", Some("a note")).await.unwrap();
    digest
}

fn running(name: &str, digest: Digest, generation: i64) -> Running {
    let selection = Selection::default();
    Running { name: name.to_owned(), digest, generation, canary: None, selection, shadow: None }
}

fn deploy(name: &str, digest: Digest, seen: i64) -> Change<'static> {
    Change {
        action: Action::Deploy,
        to: running(name, digest, seen),
        digest,
        previous: None,
        percent: None,
        by: "ana",
        note: None,
        verdict: None,
    }
}

async fn switched(repository: &Repository, change: Change<'_>) -> i64 {
    match repository.switch().await.unwrap().to(&change).await.unwrap() {
        SwitchResult::To { generation } => generation,
        lost => panic!("{lost:?}"),
    }
}

#[tokio::test]
async fn a_release_is_kept_once_and_found_by_its_beginning() {
    with_database(|pool| async move {
        let repository = Repository::new(pool);
        let digest = kept(&repository, "echo", "first").await;
        repository.store(digest, &manifest("echo"), b"first", "bo", None).await.unwrap();

        let [release] = &repository.releases(Some("echo"), false).await.unwrap()[..] else {
            panic!("one release")
        };
        assert_eq!((release.by.as_str(), release.bytes, release.current), ("ana", 5, false));
        assert!(release.at.ends_with('Z') && release.at.len() == 24, "{}", release.at);
        assert_eq!(repository.file(digest).await.unwrap().as_deref(), Some(b"first".as_slice()));
        assert_eq!(repository.file(Digest::of(b"unknown")).await.unwrap(), None);

        let found = |name, hex| {
            let repository = repository.clone();
            async move { repository.beginning_with(name, hex).await.unwrap() }
        };
        let short = digest.short();
        assert_eq!(found(Some("echo"), &short).await, [digest]);
        assert_eq!(found(None, &short).await, [digest]);
        assert_eq!(found(Some("other"), &short).await, []);
        assert_eq!(found(Some("echo"), "%").await, []);
    })
    .await;
}

#[tokio::test]
async fn a_switch_goes_by_what_the_asker_saw() {
    with_database(|pool| async move {
        let repository = Repository::new(pool);
        let (first, second) =
            (kept(&repository, "echo", "first").await, kept(&repository, "echo", "second").await);
        assert_eq!(switched(&repository, deploy("echo", first, 0)).await, 1);
        let [current] = &repository.releases(None, true).await.unwrap()[..] else { panic!("one runs") };
        assert_eq!(current.digest, first);

        // Two deploys that both saw generation 1.
        let race = |digest| {
            let repository = repository.clone();
            async move { repository.switch().await.unwrap().to(&deploy("echo", digest, 1)).await.unwrap() }
        };
        let outcomes = tokio::join!(race(first), race(second));
        let (winner, loser) = match &outcomes {
            (SwitchResult::To { .. }, lost @ SwitchResult::Lost { .. }) => (first, lost),
            (lost @ SwitchResult::Lost { .. }, SwitchResult::To { .. }) => (second, lost),
            both => panic!("one wins and one loses: {both:?}"),
        };
        let now = running("echo", winner, 2);
        assert_eq!(*loser, SwitchResult::Lost { to: Some(Box::new(now.clone())) });
        assert_eq!(repository.running().await.unwrap(), [now]);
        assert_eq!(repository.generation().await.unwrap(), 2);
    })
    .await;
}

#[tokio::test]
async fn a_switch_that_is_dropped_never_was() {
    with_database(|pool| async move {
        let repository = Repository::new(pool);
        let digest = kept(&repository, "echo", "first").await;
        let mut switch = repository.switch().await.unwrap();
        assert_eq!(switch.running().await.unwrap(), []);
        drop(switch);

        switched(&repository, deploy("echo", digest, 0)).await;
        let mut switch = repository.switch().await.unwrap();
        let [(running, declared)] = &switch.running().await.unwrap()[..] else { panic!("one handler") };
        assert_eq!((running.digest, running.generation), (digest, 1));
        assert_eq!(*declared, manifest("echo"));
    })
    .await;
}

#[tokio::test]
async fn history_says_what_ran_before() {
    with_database(|pool| async move {
        let repository = Repository::new(pool);
        let (first, second) =
            (kept(&repository, "echo", "first").await, kept(&repository, "echo", "second").await);
        assert_eq!(repository.previous("echo").await.unwrap(), None);
        switched(&repository, deploy("echo", first, 0)).await;
        assert_eq!(repository.previous("echo").await.unwrap(), None);
        switched(&repository, Change { previous: Some(first), ..deploy("echo", second, 1) }).await;
        assert_eq!(repository.previous("echo").await.unwrap(), Some(first));
        let back = Change {
            action: Action::Rollback,
            previous: Some(second),
            note: Some("it lost messages"),
            by: "bo",
            ..deploy("echo", first, 2)
        };
        switched(&repository, back).await;
        assert_eq!(repository.previous("echo").await.unwrap(), Some(second));

        let history = repository.history(Some("echo")).await.unwrap();
        let [last, ..] = &history[..] else { panic!("a history") };
        assert_eq!((history.len(), last.generation), (3, 3));
        assert_eq!((last.action.as_str(), last.by.as_str()), ("rollback", "bo"));
        assert_eq!((last.digest, last.previous), (first, Some(second)));
        assert_eq!(last.note.as_deref(), Some("it lost messages"));
        assert_eq!(repository.history(Some("other")).await.unwrap().len(), 0);
    })
    .await;
}

#[tokio::test]
async fn a_canary_that_was_taken_back_leaves_its_report_and_does_not_count_as_run() {
    with_database(|pool| async move {
        let repository = Repository::new(pool);
        let (first, second) =
            (kept(&repository, "echo", "first").await, kept(&repository, "echo", "second").await);
        switched(&repository, deploy("echo", first, 0)).await;
        let share = Some(TrafficShare { digest: second, percent: 10 });
        let selection = Selection::new(vec!["ana".to_owned()], None, None, Some("correct-horse")).unwrap();
        let to = Running { canary: share, selection: selection.clone(), ..running("echo", first, 1) };
        let canary = Change {
            action: Action::Canary,
            to,
            digest: second,
            previous: Some(first),
            percent: Some(10),
            ..deploy("echo", first, 1)
        };
        switched(&repository, canary).await;
        let stored = repository.running().await.unwrap().remove(0);
        assert_eq!((stored.canary, &stored.selection), (share, &selection));
        let listed = repository.releases(Some("echo"), true).await.unwrap();
        let shares: Vec<_> =
            listed.iter().map(|release| (release.digest, release.current, release.canary_percent)).collect();
        assert_eq!(shares, [(second, false, Some(10)), (first, true, None)]);
        assert_eq!(listed[0].canary_selection, Some(selection.clone()));

        let verdict = Verdict {
            report: serde_json::json!({"cause": "it traps"}),
            recording: Some("a recording".into()),
        };
        let withdraw = Change {
            action: Action::Withdraw,
            previous: Some(second),
            verdict: Some(&verdict),
            ..deploy("echo", first, 2)
        };
        let generation = switched(&repository, withdraw).await;
        assert_eq!(repository.running().await.unwrap(), [running("echo", first, 3)]);
        assert_eq!(repository.previous("echo").await.unwrap(), None);
        let history = repository.history(Some("echo")).await.unwrap();
        assert_eq!((history[0].action.as_str(), history[0].has_recording), ("withdraw", true));
        assert_eq!(history[0].report.as_ref().unwrap()["cause"], "it traps");
        assert_eq!((history[1].percent, &history[1].selection), (Some(10), &Some(selection)));
        assert_eq!(history[0].selection, None);
        assert_eq!(repository.recording(generation).await.unwrap().as_deref(), Some("a recording"));
        assert_eq!(repository.recording(1).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn a_node_whose_process_is_gone_is_not_waited_for_as_long_as_one_that_is_slow() {
    with_database(|pool| async move {
        let repository = Repository::new(pool.clone());
        let (gone, slow) = (NodeId::random(), NodeId::random());
        let _listens = repository.hints(slow).await.unwrap();
        for id in [gone, slow] {
            poll(id, &pool).once(0).await.unwrap();
        }
        assert_eq!(repository.answers("echo", 1, Duration::ZERO).await.unwrap().len(), 2);
        sqlx::query("update switchboard.nodes set heartbeat_at = now() - interval '2 seconds'")
            .execute(&pool)
            .await
            .unwrap();
        let asked = async |waited| {
            let answers = repository.answers("echo", 1, waited).await.unwrap();
            answers.iter().map(|answer| answer.node).collect::<Vec<_>>()
        };
        assert_eq!(asked(Duration::ZERO).await, [slow.uuid()]);

        // The node hangs. A new deploy does not wait for it; a deploy that asked it before still does.
        sqlx::query("update switchboard.nodes set heartbeat_at = now() - interval '7 seconds'")
            .execute(&pool)
            .await
            .unwrap();
        assert!(asked(Duration::ZERO).await.is_empty());
        assert_eq!(asked(Duration::from_secs(9)).await, [slow.uuid()]);
        repository.leave(slow).await.unwrap();
        assert!(asked(Duration::from_secs(9)).await.is_empty(), "it ended in order");
    })
    .await;
}

#[tokio::test]
async fn what_the_nodes_shadows_saw_is_added_up() {
    with_database(|pool| async move {
        let repository = Repository::new(pool);
        let digest = kept(&repository, "echo", "shadow").await;
        let (a, b) = (NodeId::random(), NodeId::random());
        let seen = |same, example: &str| ShadowReport {
            same,
            differing: 1,
            examples: vec![example.to_owned()],
            ..ShadowReport::default()
        };
        repository.shadowed(a, "echo", digest, &seen(3, "first")).await.unwrap();
        repository.shadowed(a, "echo", digest, &seen(5, "first")).await.unwrap();
        repository.shadowed(b, "echo", digest, &seen(7, "sec\0ond")).await.unwrap();
        let [all] = &repository.shadows("echo").await.unwrap()[..] else { panic!("one shadow") };
        assert_eq!((all.digest, all.same, all.differing, all.dropped), (Some(digest), 12, 2, 0));
        let mut examples = all.examples.clone();
        examples.sort();
        assert_eq!(examples, ["first", "sec\u{fffd}ond"]);
    })
    .await;
}

#[tokio::test]
async fn a_switch_is_hinted_at_its_commit() {
    with_database(|pool| async move {
        let repository = Repository::new(pool);
        let digest = kept(&repository, "echo", "first").await;
        let mut hints = repository.hints(NodeId::random()).await.unwrap();
        let switch = repository.switch().await.unwrap();
        switch.to(&deploy("echo", digest, 0)).await.unwrap();
        let hint = tokio::time::timeout(std::time::Duration::from_secs(5), hints.next()).await.unwrap();
        assert_eq!(hint.unwrap(), Hint::Fleet);
    })
    .await;
}

#[tokio::test]
async fn a_live_node_is_asked_until_it_answers_and_a_silent_one_is_not() {
    with_database(|pool| async move {
        let repository = Repository::new(pool.clone());
        let (node, silent) = (NodeId::random(), NodeId::random());
        for id in [node, silent] {
            poll(id, &pool).once(7).await.unwrap();
        }
        sqlx::query("update switchboard.nodes set heartbeat_at = now() - interval '6 seconds' where id = $1")
            .bind(silent.uuid())
            .execute(&pool)
            .await
            .unwrap();

        let report = |generation, error: Option<&str>| Report {
            name: "echo".into(),
            generation,
            digest: None,
            error: error.map(str::to_owned),
        };
        let answers = repository.answers("echo", 3, Duration::ZERO).await.unwrap();
        assert_eq!(answers.len(), 1);
        assert_eq!((answers[0].node, &answers[0].report), (node.uuid(), &None));

        repository.report(node, &report(2, None), &[]).await.unwrap();
        assert_eq!(repository.answers("echo", 3, Duration::ZERO).await.unwrap()[0].report, None);
        repository.report(node, &report(3, Some("it does\0not fit")), &["votes".to_owned()]).await.unwrap();
        repository.report(node, &report(2, None), &[]).await.unwrap();
        let answers = repository.answers("echo", 3, Duration::ZERO).await.unwrap();
        assert_eq!(answers[0].report, Some(report(3, Some("it does\u{fffd}not fit"))));

        let nodes = repository.nodes().await.unwrap();
        assert_eq!(nodes.iter().map(|node| node.live).collect::<Vec<_>>(), [true, false]);
        assert_eq!((nodes[0].connections, nodes[0].handlers.len()), (7, 1));

        repository.leave(node).await.unwrap();
        assert_eq!(repository.answers("echo", 3, Duration::ZERO).await.unwrap(), []);
    })
    .await;
}
