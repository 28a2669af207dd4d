//! Canaries and shadows on several nodes in one process. The test calls their releases.

use std::time::Duration;

use serde_json::json;
use sqlx::PgPool;
use tokio::time::{Instant, sleep, timeout};

use super::super::super::registry::Entry;
use super::super::tests::Node;
use super::*;
use crate::selection::CallOrigin;
use switchboard_core::ids::Digest;
use switchboard_recording::{Exchange, Outcome as Ended, Recording};
use switchboard_runtime::{Caller, Ending, Kind, Observable, Trigger, Used};
use switchboard_testing::manifests::{Declared, SEND, file};
use switchboard_testing::with_database;

async fn three(pool: &PgPool) -> [Node; 3] {
    [Node::start("a", pool).await, Node::start("b", pool).await, Node::start("c", pool).await]
}

fn entry(node: &Node) -> std::sync::Arc<Entry<Declared>> {
    node.rollout.registry().current().by_name("send").expect("it runs").clone()
}

fn canary(node: &Node) -> Option<(Digest, u8)> {
    entry(node).canary.as_ref().map(|canary| (canary.candidate.digest, canary.candidate.percent))
}

/// Waits for a state. A test that waits longer has failed.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let waited = timeout(Duration::from_secs(10), async {
        while !holds() {
            sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("waited in vain for {what}"));
}

/// A call without a user, so that each call counts by itself.
fn call(release: &Declared, ending: Ending) {
    call_of(Caller::Host, release, ending);
}

fn call_of(caller: Caller<'_>, release: &Declared, ending: Ending) {
    release.stats().record(Trigger::Frame, caller, Duration::from_millis(1), ending, Used::default());
    if ending.is_bad() {
        release.observer().with(|observer| observer.failed());
    }
}

fn recording(id: &str) -> Recording {
    let exchange = Exchange {
        function: "clock.now-ms".into(),
        unordered: false,
        args: json!({}),
        answer: Some(json!(1)),
        micros: 1,
    };
    Recording {
        handler: "send".into(),
        release: Some(Digest::of(b"live")),
        call: id.into(),
        trigger: "frame".into(),
        scenario: None,
        input: json!({}),
        exchanges: vec![exchange],
        left_out: 0,
        outcome: Ended::Returned(json!("live")),
    }
}

#[tokio::test]
async fn every_node_gives_the_same_users_the_canary_until_it_is_promoted() {
    with_database(|pool| async move {
        let nodes = three(&pool).await;
        let (first, second) = (file("send", SEND, "first"), file("send", SEND, "second"));
        let (old, new) = (Digest::of(&first), Digest::of(&second));
        nodes[0].deploy(&first).await.unwrap();
        let outcome = nodes[0]
            .rollout
            .deployer
            .deploy_beside(second.clone(), Deployment::Canary(10), Origin::new("ana", None))
            .await
            .unwrap();
        assert!(outcome.complete && outcome.nodes.len() == 3, "{outcome:?}");
        assert_eq!((outcome.digest, outcome.previous, outcome.percent), (new, Some(old), Some(10)));
        let users: Vec<String> = (0..500).map(|n| format!("user-{n}")).collect();
        let of_canary = |node: &Node| -> Vec<bool> {
            let entry = entry(node);
            users.iter().map(|user| !std::sync::Arc::ptr_eq(entry.pick(user), &entry.running)).collect()
        };
        let chosen = of_canary(&nodes[0]);
        assert!((20..90).contains(&chosen.iter().filter(|of_canary| **of_canary).count()));
        assert!(nodes.iter().all(|node| of_canary(node) == chosen && node.runs("send") == Some(old)));

        // A node that joins later has it too.
        let late = Node::start("d", &pool).await;
        assert_eq!(of_canary(&late), chosen);

        let other = nodes[1]
            .rollout
            .deployer
            .promote("send", Some(&old.short()), Origin::new("ana", None))
            .await
            .unwrap_err();
        assert_eq!(other.problem().status, 409);
        let outcome = nodes[1].rollout.deployer.promote("send", None, Origin::new("bo", None)).await.unwrap();
        assert!(outcome.complete && outcome.digest == new, "{outcome:?}");
        assert!(nodes.iter().all(|node| node.runs("send") == Some(new) && canary(node).is_none()));
        let again =
            nodes[1].rollout.deployer.promote("send", None, Origin::new("bo", None)).await.unwrap_err();
        assert_eq!(again.problem().status, 409);

        let back = nodes[2].rollout.deployer.rollback("send", None, Origin::new("bo", None)).await.unwrap();
        assert_eq!(back.digest, old);
    })
    .await;
}

#[tokio::test]
async fn a_rollback_takes_the_canary_first() {
    with_database(|pool| async move {
        let node = Node::start("a", &pool).await;
        let files = ["first", "second", "third"].map(|text| file("send", SEND, text));
        node.deploy(&files[0]).await.unwrap();
        node.deploy(&files[1]).await.unwrap();
        node.rollout
            .deployer
            .deploy_beside(files[2].clone(), Deployment::Canary(50), Origin::new("ana", None))
            .await
            .unwrap();
        assert_eq!(canary(&node), Some((Digest::of(&files[2]), 50)));
        // The same file again, with another percentage.
        node.rollout
            .deployer
            .deploy_beside(files[2].clone(), Deployment::Canary(75), Origin::new("ana", None))
            .await
            .unwrap();
        assert_eq!(canary(&node), Some((Digest::of(&files[2]), 75)));

        let gone = node
            .rollout
            .deployer
            .rollback("send", None, Origin::new("ana", Some("not today")))
            .await
            .unwrap();
        assert_eq!((gone.action, gone.digest), (Action::Withdraw, Digest::of(&files[1])));
        assert_eq!((canary(&node), node.runs("send")), (None, Some(Digest::of(&files[1]))));
        let back = node.rollout.deployer.rollback("send", None, Origin::new("ana", None)).await.unwrap();
        assert_eq!(back.digest, Digest::of(&files[0]));
    })
    .await;
}

#[tokio::test]
async fn what_cannot_stand_beside_is_refused() {
    with_database(|pool| async move {
        let node = Node::start("a", &pool).await;
        let canary_of = async |file: &Bytes| {
            node.rollout
                .deployer
                .deploy_beside(file.clone(), Deployment::Canary(10), Origin::new("ana", None))
                .await
        };
        let first = file("send", SEND, "first");
        let alone = canary_of(&first).await.unwrap_err();
        assert!(alone.to_string().contains("deploy this release for everybody"), "{alone}");
        node.deploy(&first).await.unwrap();
        let same = canary_of(&first).await.unwrap_err();
        assert_eq!(same.problem().status, 409);
        let less = canary_of(&file("send", r#"on.frame = [{ type = "other" }]"#, "")).await.unwrap_err();
        assert!(less.to_string().contains("does not bind frame type `message.send`"), "{less}");
        let needy = file("send", &format!("{SEND}\n[needs]\nmigrations = [9999]"), "");
        for refused in [canary_of(&needy).await.unwrap_err(), node.deploy(&needy).await.unwrap_err()] {
            assert!(refused.to_string().contains("9999"), "{refused}");
        }
        let homeless = file("send", &format!("{SEND}\n[grants]\npostgres = \"nosuchrole\""), "");
        for refused in [canary_of(&homeless).await.unwrap_err(), node.deploy(&homeless).await.unwrap_err()] {
            assert_eq!(refused.problem().status, 409);
            assert!(refused.to_string().contains("`switchboard_nosuchrole`"), "{refused}");
        }
        node.rollout.deployer.unshadow("send", Origin::new("ana", None)).await.unwrap_err();
        assert_eq!((canary(&node), node.runs("send")), (None, Some(Digest::of(&first))));
    })
    .await;
}

#[tokio::test]
async fn a_canary_that_traps_on_one_node_is_taken_back_on_all_with_a_report() {
    with_database(|pool| async move {
        let nodes = three(&pool).await;
        let (first, second) = (file("send", SEND, "first"), file("send", SEND, "second"));
        nodes[0].deploy(&first).await.unwrap();
        nodes[0]
            .rollout
            .deployer
            .deploy_beside(second.clone(), Deployment::Canary(50), Origin::new("ana", None))
            .await
            .unwrap();
        let there = entry(&nodes[1]);
        let bad = there.canary.as_ref().unwrap();
        let release = bad.candidate.release.clone();
        assert_eq!(release.observer().with(|observer| observer.wants("c1")), Some(true));
        release.observer().with(|observer| observer.recorded(recording("c1"), true));
        assert_eq!(release.observer().with(|observer| observer.wants("c2")), Some(false), "one is enough");

        (0..40).for_each(|_| call(&there.running, Ending::Answered));
        let began = Instant::now();
        let mut failing = 0;
        while !bad.is_given_up() {
            call(&release, Ending::Failed(Kind::Trap));
            failing += 1;
            sleep(Duration::from_millis(1)).await;
        }
        assert!(failing <= 50, "{failing} failing calls");
        until("every node to have only the old one", || nodes.iter().all(|node| canary(node).is_none()))
            .await;
        let took = began.elapsed();
        assert!(took < Duration::from_secs(2), "{took:?}");
        assert!(nodes.iter().all(|node| node.runs("send") == Some(Digest::of(&first))));
        assert!(release.observer().with(|_| ()).is_none(), "nobody looks at it any more");

        let repository = nodes[0].rollout.repository();
        let history = repository.history(Some("send")).await.unwrap();
        let last = &history[0];
        assert_eq!((last.action.as_str(), last.by.as_str()), ("withdraw", "switchboard"));
        let report = last.report.as_ref().unwrap();
        assert_eq!(report["release"], json!(Digest::of(&second)));
        assert_eq!(report["over"], "failures");
        assert_eq!(report["node"], nodes[1].rollout.node.to_string());
        let kept = repository.recording(last.generation).await.unwrap().unwrap();
        assert_eq!(Recording::parse(&kept).unwrap(), recording("c1"));
        for node in nodes {
            node.stop().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_shadow_is_shown_a_sample_and_what_differs_is_written_down() {
    with_database(|pool| async move {
        let nodes = three(&pool).await;
        let (first, second) = (file("send", SEND, "first"), file("send", SEND, "differs"));
        nodes[0].deploy(&first).await.unwrap();
        let outcome = nodes[0]
            .rollout
            .deployer
            .deploy_beside(second.clone(), Deployment::Shadow(50), Origin::new("ana", None))
            .await
            .unwrap();
        assert!(outcome.complete, "{outcome:?}");
        let mut shown = [0_u64; 2];
        for (n, node) in nodes.iter().take(2).enumerate() {
            let running = entry(node).running.clone();
            for call in 0..100 {
                let id = format!("call {n} {call}");
                let wants = || running.observer().with(|observer| observer.wants(&id)) == Some(true);
                if wants() {
                    running.observer().with(|observer| observer.recorded(recording(&id), false));
                    shown[n] += 1;
                    tokio::task::yield_now().await;
                }
            }
            assert!((5..90).contains(&shown[n]), "{shown:?} of 100");
        }
        let repository = nodes[0].rollout.repository();
        let seen = timeout(Duration::from_secs(10), async {
            loop {
                let seen = repository.shadows("send").await.unwrap();
                if let Some(seen) = seen.first()
                    && seen.differing + seen.dropped >= shown[0] + shown[1]
                {
                    return seen.clone();
                }
                sleep(Duration::from_millis(20)).await;
            }
        });
        let seen = seen.await.expect("both nodes write down what they saw");
        assert_eq!((seen.digest, seen.same), (Some(Digest::of(&second)), 0));
        assert!(seen.differing > 0 && seen.examples[0].contains("it answered"), "{seen:?}");

        nodes[2].rollout.deployer.unshadow("send", Origin::new("ana", None)).await.unwrap();
        assert!(nodes.iter().all(|node| entry(node).running.observer().with(|_| ()).is_none()));
        for node in nodes {
            node.stop().await;
        }
    })
    .await;
}

/// Makes this release a canary for one user and a role.
async fn select(node: &Node, file: &Bytes, user: &str) -> Outcome {
    let selection = Selection::new(vec![user.to_owned()], Some("beta".to_owned()), None, None).unwrap();
    let how = Deployment::SelectiveCanary(selection, 0);
    node.rollout.deployer.deploy_beside(file.clone(), how, Origin::new("ana", None)).await.unwrap()
}

#[tokio::test]
async fn every_node_gives_the_canary_to_the_selected_callers_until_it_ends() {
    with_database(|pool| async move {
        let nodes = three(&pool).await;
        let (first, second) = (file("send", SEND, "first"), file("send", SEND, "second"));
        nodes[0].deploy(&first).await.unwrap();
        let gets_it = |node: &Node, user: &str, roles: &[String]| {
            let (entry, origin) = (entry(node), CallOrigin { roles, ..CallOrigin::of(user) });
            !std::sync::Arc::ptr_eq(entry.pick_for(&origin), &entry.running)
        };
        let beta = ["beta".to_owned()];
        let outcome = select(&nodes[0], &second, "ana").await;
        assert!(outcome.complete && outcome.percent == Some(0), "{outcome:?}");
        for node in &nodes {
            assert!(gets_it(node, "ana", &[]) && gets_it(node, "bo", &beta) && !gets_it(node, "bo", &[]));
        }
        // Another selection replaces it, and the end of the canary ends it.
        assert!(select(&nodes[0], &second, "bo").await.complete);
        assert!(nodes.iter().all(|node| gets_it(node, "bo", &[]) && !gets_it(node, "ana", &[])));
        nodes[1].rollout.deployer.rollback("send", None, Origin::new("ana", None)).await.unwrap();
        assert!(nodes.iter().all(|node| canary(node).is_none() && !gets_it(node, "bo", &beta)));
        let history = nodes[0].rollout.repository().history(Some("send")).await.unwrap();
        let selection = history[1].selection.as_ref().map(ToString::to_string);
        assert_eq!(selection.as_deref(), Some("user bo, role beta"));
        let outcome = nodes[0]
            .rollout
            .deployer
            .deploy_beside(second.clone(), Deployment::Canary(1), Origin::new("ana", None))
            .await
            .unwrap();
        assert!(outcome.complete && nodes.iter().all(|node| !gets_it(node, "bo", &beta)), "{outcome:?}");
    })
    .await;
}
