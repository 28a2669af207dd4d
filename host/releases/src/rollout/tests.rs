//! Several nodes in one process, with one real Postgres. Their loader takes any file, unless its manifest
//! says that this node refuses it. The tests of the runtime cover the compiler.

use bytes::Bytes;
use sqlx::PgPool;
use tokio::task::JoinHandle;

use ed25519_dalek::SigningKey;

use super::*;
use crate::outcome::State;
use crate::repository::{Action, Change, SwitchResult};
use crate::signature::{self, Signature};
use switchboard_core::ids::Digest;
use switchboard_core::shutdown::Shutdown;
use switchboard_runtime::ReleaseFile;
use switchboard_testing::manifests::{Manifests, SEND, file};
use switchboard_testing::with_database;

/// The poll of a node. Its first poll is the first heartbeat.
fn poll(node: NodeId, pool: &PgPool) -> Poll {
    Poll::new(pool.clone(), node, "127.0.0.1:9090".parse().unwrap())
}

pub(super) struct Node {
    pub rollout: Arc<Rollout<Manifests>>,
    shutdown: Shutdown,
    following: JoinHandle<()>,
}

impl Node {
    pub(super) async fn start(name: &'static str, pool: &PgPool) -> Self {
        Self::with(Config::default(), name, pool).await
    }

    /// A node that loads only releases signed with one of these keys.
    async fn that_trusts(keys: &[String], name: &'static str, pool: &PgPool) -> Self {
        Self::with(Config { release_keys: keys.to_vec(), ..Config::default() }, name, pool).await
    }

    pub(super) async fn with(config: Config, name: &'static str, pool: &PgPool) -> Self {
        let trust = Trust::of(&config).unwrap();
        let rollout = Arc::new(Rollout::new(
            poll(NodeId::random(), pool),
            Arc::new(config),
            Manifests::of(name),
            Arc::default(),
            Repository::new(pool.clone()),
            trust,
            || 0,
        ));
        rollout.join().await.unwrap();
        let shutdown = Shutdown::new();
        let (guard, follower) = (shutdown.guard(), rollout.clone());
        let following = tokio::spawn(async move { follower.follow(guard).await });
        Self { rollout, shutdown, following }
    }

    pub(super) fn runs(&self, name: &str) -> Option<Digest> {
        self.rollout.registry().current().by_name(name).map(|entry| entry.digest)
    }

    pub(super) async fn deploy(&self, file: &Bytes) -> Result<Outcome, Error> {
        self.rollout.deployer.deploy(file.clone(), Origin::new("ana", None)).await
    }

    pub(super) async fn stop(self) {
        self.shutdown.begin();
        self.following.await.unwrap();
    }
}

#[tokio::test]
async fn a_deploy_returns_when_every_node_runs_the_release() {
    with_database(|pool| async move {
        let nodes =
            [Node::start("a", &pool).await, Node::start("b", &pool).await, Node::start("c", &pool).await];
        let first = file("send", SEND, "first");
        let outcome = nodes[0].deploy(&first).await.unwrap();

        let digest = Digest::of(&first);
        assert_eq!((outcome.digest, outcome.previous, outcome.unchanged), (digest, None, false));
        assert!(outcome.complete && outcome.nodes.len() == 3, "{outcome:?}");
        for node in &nodes {
            assert_eq!(node.runs("send"), Some(digest));
        }
        let again = nodes[1].deploy(&first).await.unwrap();
        assert!(again.unchanged && again.complete, "{again:?}");
        assert_eq!(again.generation, outcome.generation);
        for node in nodes {
            node.stop().await;
        }
    })
    .await;
}

#[tokio::test]
async fn of_two_deploys_at_once_one_is_refused() {
    with_database(|pool| async move {
        let (a, b) = (Node::start("a", &pool).await, Node::start("b", &pool).await);
        a.deploy(&file("send", SEND, "before")).await.unwrap();

        let (mine, yours) = (file("send", SEND, "meets on a"), file("send", SEND, "meets on b"));
        let (winner, loser) = match tokio::join!(a.deploy(&mine), b.deploy(&yours)) {
            (Ok(won), Err(lost)) | (Err(lost), Ok(won)) => (won, lost),
            both => panic!("one wins and one is refused: {both:?}"),
        };
        assert_eq!(loser.problem().status, 409);
        assert!(loser.to_string().contains(&winner.digest.short()), "{loser}");
        assert_eq!((a.runs("send"), b.runs("send")), (Some(winner.digest), Some(winner.digest)));
    })
    .await;
}

#[tokio::test]
async fn what_another_handler_binds_is_refused_and_the_old_release_stays() {
    with_database(|pool| async move {
        let node = Node::start("a", &pool).await;
        node.deploy(&file("send", SEND, "")).await.unwrap();
        let other = file("other", r#"on.frame = [{ type = "other" }]"#, "");
        node.deploy(&other).await.unwrap();

        let refused = node.deploy(&file("other", SEND, "greedy")).await.unwrap_err();
        assert_eq!(refused.problem().status, 409);
        assert!(
            refused.to_string().contains("`message.send` of `other` is already bound by `send`"),
            "{refused}"
        );
        assert_eq!(node.runs("other"), Some(Digest::of(&other)));
    })
    .await;
}

#[tokio::test]
async fn a_bad_file_is_refused_with_a_reason() {
    with_database(|pool| async move {
        let node = Node::start("a", &pool).await;
        for bad in [Bytes::from_static(b"garbage"), file("send", "", ""), file("send", SEND, "not on a")] {
            node.deploy(&bad).await.unwrap_err();
        }
        assert_eq!(node.rollout.repository().releases(None, false).await.unwrap().len(), 0);
        assert_eq!(node.runs("send"), None);
    })
    .await;
}

#[tokio::test]
async fn a_node_that_cannot_load_a_release_keeps_the_old_one_and_is_named() {
    with_database(|pool| async move {
        let (a, b) = (Node::start("a", &pool).await, Node::start("b", &pool).await);
        let (first, second) = (file("send", SEND, "first"), file("send", SEND, "not on b"));
        a.deploy(&first).await.unwrap();
        let outcome = a.deploy(&second).await.unwrap();

        assert!(!outcome.complete);
        let [of_a, of_b] = &outcome.nodes[..] else { panic!("{outcome:?}") };
        assert_eq!(of_a.state, State::Live);
        assert_eq!((of_b.state, of_b.kept), (State::Kept, Some(Digest::of(&first))));
        assert!(of_b.error.as_ref().unwrap().contains("no room"), "{of_b:?}");
        assert_eq!((a.runs("send"), b.runs("send")), (Some(Digest::of(&second)), Some(Digest::of(&first))));

        let back =
            b.rollout.deployer.rollback("send", None, Origin::new("bo", Some("b cannot"))).await.unwrap();
        assert!(back.complete && back.digest == Digest::of(&first), "{back:?}");
        assert_eq!(a.runs("send"), Some(Digest::of(&first)));
    })
    .await;
}

#[tokio::test]
async fn a_rollback_goes_to_what_ran_before_or_to_a_named_release() {
    with_database(|pool| async move {
        let node = Node::start("a", &pool).await;
        let unknown =
            node.rollout.deployer.rollback("send", None, Origin::new("ana", None)).await.unwrap_err();
        assert_eq!(unknown.problem().status, 404);

        let files = ["first", "second", "third"].map(|text| file("send", SEND, text));
        node.deploy(&files[0]).await.unwrap();
        let nothing =
            node.rollout.deployer.rollback("send", None, Origin::new("ana", None)).await.unwrap_err();
        assert_eq!(nothing.problem().status, 409);
        node.deploy(&files[1]).await.unwrap();
        node.deploy(&files[2]).await.unwrap();

        let [first, second, _] = files.map(|file| Digest::of(&file));
        node.rollout.deployer.rollback("send", None, Origin::new("ana", None)).await.unwrap();
        assert_eq!(node.runs("send"), Some(second));
        node.rollout.deployer.rollback("send", Some(&first.short()), Origin::new("ana", None)).await.unwrap();
        assert_eq!(node.runs("send"), Some(first));

        for (to, status) in [("abc", 422), ("none of it", 422), ("000000000000", 404)] {
            let refused =
                node.rollout.deployer.rollback("send", Some(to), Origin::new("ana", None)).await.unwrap_err();
            assert_eq!(refused.problem().status, status, "{to}");
        }
        assert_eq!(node.runs("send"), Some(first));
    })
    .await;
}

#[tokio::test]
async fn a_late_node_starts_with_what_the_fleet_runs() {
    with_database(|pool| async move {
        let early = Node::start("early", &pool).await;
        let send = file("send", SEND, "not on late");
        early.deploy(&send).await.unwrap();
        early.deploy(&file("other", r#"on.frame = [{ type = "other" }]"#, "")).await.unwrap();

        // A release that does not load on the node does not stop the others.
        let late = Node::start("late", &pool).await;
        let [missing] = &late.rollout.releases_missing()[..] else { panic!("one is missing") };
        assert!(missing.contains("`send`") && missing.contains("no room for it"), "{missing}");
        assert_eq!(early.rollout.releases_missing(), [""; 0]);
        assert_eq!((late.runs("send"), late.runs("other").is_some()), (None, true));

        let known = late.rollout.repository().nodes().await.unwrap();
        let reports = &known.iter().find(|node| node.id == late.rollout.node.uuid()).unwrap().handlers;
        assert!(
            reports.iter().any(|handler| handler.name == "send" && handler.error.is_some()),
            "{reports:?}"
        );
        early.stop().await;
        late.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_node_misses_a_release_until_it_loads_or_the_fleet_runs_another() {
    with_database(|pool| async move {
        let early = Node::start("early", &pool).await;
        early.deploy(&file("send", SEND, "not on late")).await.unwrap();
        let late = Node::start("late", &pool).await;
        assert_eq!(late.rollout.releases_missing().len(), 1);

        // Another handler that loads does not change that.
        early.deploy(&file("other", r#"on.frame = [{ type = "other" }]"#, "")).await.unwrap();
        assert!(late.runs("other").is_some());
        assert_eq!(late.rollout.releases_missing().len(), 1);
        // When a canary does not load, every user gets the running release.
        early.deploy(&file("send", SEND, "")).await.unwrap();
        let canary = file("send", SEND, "not on late");
        early
            .rollout
            .deployer
            .deploy_beside(canary, Deployment::Canary(50), Origin::new("ana", None))
            .await
            .unwrap();
        until(|| late.rollout.releases_missing().is_empty()).await;
        early.stop().await;
        late.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_node_of_a_fleet_without_handlers_has_everything() {
    with_database(|pool| async move {
        let node = Node::start("a", &pool).await;
        assert_eq!(node.rollout.releases_missing(), [""; 0]);
    })
    .await;
}

#[tokio::test]
async fn a_node_that_ended_is_not_waited_for() {
    with_database(|pool| async move {
        let (a, b) = (Node::start("a", &pool).await, Node::start("b", &pool).await);
        b.stop().await;
        let outcome = a.deploy(&file("send", SEND, "")).await.unwrap();
        assert!(outcome.complete && outcome.nodes.len() == 1, "{outcome:?}");
    })
    .await;
}

#[tokio::test]
async fn a_node_that_hangs_during_a_deploy_is_named() {
    with_database(|pool| async move {
        let a = Node::start("a", &pool).await;
        let repository = a.rollout.repository();
        let hung = NodeId::random();
        poll(hung, &pool).once(0).await.unwrap();
        // Like a stopped process: Postgres keeps its connection, and its last heartbeat becomes old during
        // the wait.
        let _listens = repository.hints(hung).await.unwrap();
        sqlx::query("update switchboard.nodes set heartbeat_at = now() - interval '3 seconds' where id = $1")
            .bind(hung.uuid())
            .execute(&pool)
            .await
            .unwrap();
        let outcome = a.deploy(&file("send", SEND, "")).await.unwrap();
        assert!(!outcome.complete, "{outcome:?}");
        let state = |id: NodeId| {
            let node = outcome.nodes.iter().find(|node| node.node == id.uuid());
            node.map(|node| node.state)
        };
        assert_eq!((state(a.rollout.node), state(hung)), (Some(State::Live), Some(State::Silent)));
        a.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_start_deploys_what_the_fleet_never_saw_and_undoes_nothing() {
    with_database(|pool| async move {
        let node = Node::start("a", &pool).await;
        let directory = tempfile::tempdir().unwrap();
        let (old, new) = (file("send", SEND, "old"), file("send", SEND, "new"));
        std::fs::write(directory.path().join("send.wasm"), &new).unwrap();
        std::fs::write(directory.path().join("notes.txt"), "not a release").unwrap();
        node.deploy(&old).await.unwrap();

        let deployed = node.rollout.deploy_found(directory.path()).await.unwrap();
        assert!(matches!(&deployed[..], [(path, Ok(_))] if path.ends_with("send.wasm")), "{deployed:?}");
        node.rollout.deployer.rollback("send", None, Origin::new("ana", Some("it was worse"))).await.unwrap();
        assert!(node.rollout.deploy_found(directory.path()).await.unwrap().is_empty());
        assert_eq!(node.runs("send"), Some(Digest::of(&old)));
        assert_eq!(node.rollout.files_missing(), [""; 0]);
    })
    .await;
}

/// The state after Postgres was lost between the two steps of a deploy.
#[tokio::test]
async fn a_file_that_was_kept_and_never_ran_is_deployed_by_the_next_start() {
    with_database(|pool| async move {
        let node = Node::start("a", &pool).await;
        let directory = tempfile::tempdir().unwrap();
        let send = file("send", SEND, "");
        std::fs::write(directory.path().join("send.wasm"), &send).unwrap();
        let parsed = ReleaseFile::parse(send.clone()).unwrap();
        let repository = node.rollout.repository();
        repository.store(parsed.digest, &parsed.manifest, &send, "serve", None).await.unwrap();
        assert_eq!(node.runs("send"), None);

        node.rollout.deploy_found(directory.path()).await.unwrap();
        assert_eq!(node.runs("send"), Some(parsed.digest));
    })
    .await;
}

#[tokio::test]
async fn a_file_that_could_not_be_deployed_is_tried_again_until_it_runs() {
    with_database(|pool| async move {
        let node = Node::start("a", &pool).await;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("send.wasm");
        let send = file("send", SEND, "");
        std::fs::write(&path, &send).unwrap();
        // The step after the file was stored fails.
        sqlx::query("alter table switchboard.running rename to gone").execute(&pool).await.unwrap();
        let deployed = node.rollout.deploy_found(directory.path()).await.unwrap();
        assert!(matches!(&deployed[..], [(_, Err(Error::Backend(_)))]), "{deployed:?}");
        let [missing] = &node.rollout.files_missing()[..] else { panic!("one file waits") };
        assert!(missing.contains("send.wasm") && missing.contains("Postgres failed to"), "{missing}");

        sqlx::query("alter table switchboard.gone rename to running").execute(&pool).await.unwrap();
        until(|| node.runs("send") == Some(Digest::of(&send))).await;
        until(|| node.rollout.files_missing().is_empty()).await;
        node.stop().await;
    })
    .await;
}

#[tokio::test]
async fn what_an_operator_released_after_a_file_was_found_stays() {
    with_database(|pool| async move {
        let node = Node::start("a", &pool).await;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("send.wasm");
        // This node refuses the file, so it waits.
        std::fs::write(&path, file("send", SEND, "not on a")).unwrap();
        node.rollout.deploy_found(directory.path()).await.unwrap();
        assert_eq!(node.rollout.files_missing().len(), 1);

        let by_hand = file("send", SEND, "by hand");
        node.deploy(&by_hand).await.unwrap();
        // An operator has decided. No file is missing any more, now and after a restart on a machine with
        // enough memory.
        until(|| node.rollout.files_missing().is_empty()).await;
        node.stop().await;
        let other = Node::start("b", &pool).await;
        assert!(other.rollout.deploy_found(directory.path()).await.unwrap().is_empty());
        assert_eq!(other.runs("send"), Some(Digest::of(&by_hand)));
        // A file that is found after that is deployed.
        let newer = file("send", SEND, "of the next version");
        std::fs::write(&path, &newer).unwrap();
        other.rollout.deploy_found(directory.path()).await.unwrap();
        assert_eq!(other.runs("send"), Some(Digest::of(&newer)));
        other.stop().await;
    })
    .await;
}

/// Waits for a state of this process.
async fn until(mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), wait).await.expect("it comes to hold");
}

#[tokio::test]
async fn a_node_loads_only_what_a_key_that_it_trusts_has_signed() {
    with_database(|pool| async move {
        let pair = || {
            let (secret, public) = signature::new_key();
            (signature::parse_secret(&secret).unwrap(), public.trim().rsplit(' ').next().unwrap().to_owned())
        };
        let ((ours, our_key), (theirs, their_key)) = (pair(), pair());
        let node = Node::that_trusts(std::slice::from_ref(&our_key), "a", &pool).await;
        let repository = Repository::new(pool.clone());
        let (good, bad) = (file("send", SEND, "good"), file("send", SEND, "bad"));
        let refused = node.deploy(&good).await.unwrap_err();
        assert_eq!(refused.problem().status, 422);
        assert!(refused.to_string().contains("not signed by a key that this fleet trusts"), "{refused}");
        // Signed by another key, and signed for another release: neither counts.
        let sign = async |file: &Bytes, key: &SigningKey| {
            let signature = Signature::sign(Digest::of(file), key);
            repository.keep_signatures(Digest::of(file), &[signature], "ana").await.unwrap();
        };
        sign(&good, &theirs).await;
        sign(&bad, &ours).await;
        assert!(node.deploy(&good).await.is_err());
        // A row that was inserted by hand proves nothing.
        sqlx::query("insert into switchboard.signatures select $1, key, signature, 'eve' from switchboard.signatures where digest = $2")
            .bind(Digest::of(&good).bytes().as_slice())
            .bind(Digest::of(&bad).bytes().as_slice())
            .execute(&pool)
            .await
            .unwrap();
        assert!(node.deploy(&good).await.is_err());
        assert_eq!(node.runs("send"), None);
        sqlx::query("delete from switchboard.signatures where made_by = 'eve'").execute(&pool).await.unwrap();
        sign(&good, &ours).await;
        assert!(node.deploy(&good).await.unwrap().complete);

        // A node that trusts another key does not trust the first node.
        let strict = Node::that_trusts(std::slice::from_ref(&their_key), "b", &pool).await;
        assert_eq!(strict.runs("send"), Some(Digest::of(&good)));

        // A canary and a shadow need a signature too.
        let trial = file("send", SEND, "trial");
        for how in [Deployment::Canary(50), Deployment::Shadow(50)] {
            let refused = node.rollout.deployer.deploy_beside(trial.clone(), how.clone(), Origin::new("ana", None)).await.unwrap_err();
            assert_eq!(refused.problem().status, 422, "{how:?}");
            assert!(refused.to_string().contains("not signed"), "{how:?}: {refused}");
        }
        sign(&trial, &ours).await;
        for how in [Deployment::Canary(50), Deployment::Shadow(50)] {
            let outcome = node.rollout.deployer.deploy_beside(trial.clone(), how.clone(), Origin::new("ana", None)).await.unwrap();
            let lacks = outcome.nodes.iter().find(|node| !node.is_live()).unwrap();
            assert!(lacks.error.as_deref().unwrap().contains("not signed"), "{how:?}: {lacks:?}");
            let late = Node::that_trusts(std::slice::from_ref(&their_key), "c", &pool).await;
            for (node, has_it) in [(&node, true), (&strict, false), (&late, false)] {
                let entry = node.rollout.registry().current().by_name("send").unwrap().clone();
                let (canary, shadow) = (entry.canary.is_some(), entry.shadow.is_some());
                let beside = matches!(how, Deployment::Canary(_)) && canary || shadow;
                assert_eq!((entry.digest, beside), (Digest::of(&good), has_it), "{how:?}");
            }
            late.stop().await;
        }
        let promoted = node.rollout.deployer.promote("send", None, Origin::new("ana", None)).await.unwrap();
        assert!(!promoted.complete, "{promoted:?}");
        assert_eq!(
            (node.runs("send"), strict.runs("send")),
            (Some(Digest::of(&trial)), Some(Digest::of(&good)))
        );
        sign(&bad, &ours).await;
        let outcome = node.deploy(&bad).await.unwrap();
        assert!(!outcome.complete);
        let kept = outcome.nodes.iter().find(|node| !node.is_live()).unwrap();
        assert!(kept.error.as_deref().unwrap().contains("not signed"), "{kept:?}");
        assert_eq!(strict.runs("send"), Some(Digest::of(&good)));
        node.stop().await;
        strict.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_retired_handler_is_gone_everywhere_until_an_operator_brings_it_back() {
    with_database(|pool| async move {
        let (a, b) = (Node::start("a", &pool).await, Node::start("b", &pool).await);
        let directory = tempfile::tempdir().unwrap();
        let (first, second) = (file("send", SEND, "first"), file("send", SEND, "second"));
        std::fs::write(directory.path().join("send.wasm"), file("send", SEND, "never seen")).unwrap();
        a.deploy(&first).await.unwrap();
        a.rollout
            .deployer
            .deploy_beside(second.clone(), Deployment::Canary(50), Origin::new("ana", None))
            .await
            .unwrap();
        a.rollout
            .deployer
            .deploy_beside(second.clone(), Deployment::Shadow(50), Origin::new("ana", None))
            .await
            .unwrap();

        let outcome =
            b.rollout.deployer.retire("send", Origin::new("bo", Some("nobody uses it"))).await.unwrap();
        assert!(outcome.complete && outcome.nodes.len() == 2, "{outcome:?}");
        assert_eq!((outcome.action, outcome.digest), (Action::Retire, Digest::of(&first)));
        for node in [&a, &b] {
            let current = node.rollout.registry().current();
            assert!(current.by_name("send").is_none() && current.frame("message.send").is_none());
            assert_eq!(node.rollout.releases_missing(), [""; 0]);
        }
        let repository = a.rollout.repository();
        assert!(repository.releases(None, true).await.unwrap().is_empty());
        let history = repository.history(Some("send")).await.unwrap();
        assert_eq!((history[0].action.as_str(), history[0].by.as_str()), ("retire", "bo"));
        assert!(repository.nodes().await.unwrap().iter().all(|node| node.handlers.is_empty()));

        // A second retirement changes nothing. A handler that does not run can have no canary and cannot be
        // promoted or retired by mistake.
        let again = a.rollout.deployer.retire("send", Origin::new("ana", None)).await.unwrap();
        assert!(again.unchanged && again.complete && again.generation == outcome.generation, "{again:?}");
        assert_eq!(
            a.rollout.deployer.retire("other", Origin::new("ana", None)).await.unwrap_err().problem().status,
            404
        );
        let trial = a
            .rollout
            .deployer
            .deploy_beside(second.clone(), Deployment::Canary(1), Origin::new("ana", None))
            .await
            .unwrap_err();
        assert_eq!(trial.problem().status, 409);
        assert_eq!(
            a.rollout
                .deployer
                .promote("send", None, Origin::new("ana", None))
                .await
                .unwrap_err()
                .problem()
                .status,
            404
        );

        // Neither a node that was not there nor a new file brings it back.
        let late = Node::start("late", &pool).await;
        assert!(late.rollout.deploy_found(directory.path()).await.unwrap().is_empty());
        assert_eq!((late.runs("send"), late.rollout.files_missing().len()), (None, 0));
        // Its routes are free.
        let other = file("other", SEND, "");
        a.deploy(&other).await.unwrap();
        assert_eq!(
            a.rollout
                .deployer
                .rollback("send", None, Origin::new("ana", None))
                .await
                .unwrap_err()
                .problem()
                .status,
            409
        );
        a.rollout.deployer.retire("other", Origin::new("ana", None)).await.unwrap();

        let back = a
            .rollout
            .deployer
            .rollback("send", None, Origin::new("ana", Some("somebody does")))
            .await
            .unwrap();
        assert!(back.complete && back.nodes.len() == 3, "{back:?}");
        assert_eq!((back.digest, back.previous), (Digest::of(&first), None));
        a.rollout.deployer.retire("send", Origin::new("ana", None)).await.unwrap();
        assert!(b.deploy(&second).await.unwrap().complete);
        for node in [a, b, late] {
            assert_eq!(node.runs("send"), Some(Digest::of(&second)));
            node.stop().await;
        }
    })
    .await;
}

/// A deploy and a retirement that saw the same state: the later one is refused.
#[tokio::test]
async fn a_retirement_is_a_switch_like_another() {
    with_database(|pool| async move {
        let node = Node::start("a", &pool).await;
        node.deploy(&file("send", SEND, "first")).await.unwrap();
        let repository = node.rollout.repository();
        let before = repository.handler_state("send").await.unwrap();
        let next = file("send", SEND, "second");
        let parsed = ReleaseFile::parse(next.clone()).unwrap();
        repository.store(parsed.digest, &parsed.manifest, &next, "ana", None).await.unwrap();
        node.rollout.deployer.retire("send", Origin::new("bo", None)).await.unwrap();
        let late =
            Change::of_running(Action::Deploy, "send", parsed.digest, &before, Origin::new("ana", None));
        let lost = repository.switch().await.unwrap().to(&late).await.unwrap();
        assert_eq!(lost, SwitchResult::Lost { to: None });
        assert_eq!(node.runs("send"), None);
    })
    .await;
}
