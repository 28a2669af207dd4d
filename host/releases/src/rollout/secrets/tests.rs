//! Secrets in a fleet of several nodes in one process, with one real Postgres.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use sqlx::PgPool;
use tokio::time::{sleep, timeout};

use super::super::super::registry::Entry;
use super::super::Deployment;
use super::super::tests::Node;
use super::*;
use crate::outcome::State;
use crate::repository::{Unopened, check_in, reseal_in};
use crate::sealing::{Sealed, SealedError};
use switchboard_testing::manifests::{Declared, SEND, file};
use switchboard_testing::with_database;

const OLD: &str = "the secret of the nodes, before it is changed";
const NEW: &str = "the secret of the nodes, after it was changed";

fn config(secret: &str, previous: Option<&str>) -> Config {
    Config {
        secret: Some(secret.to_owned()),
        secret_previous: previous.map(str::to_owned),
        ..Config::default()
    }
}

fn origin() -> Origin<'static> {
    Origin::new("ana", None)
}

fn granted() -> bytes::Bytes {
    file("send", &format!("{SEND}\n[grants]\nsecrets = [\"TOKEN\"]"), "granted")
}

async fn set(node: &Node, value: &[u8]) -> Result<SecretOutcome, Error> {
    node.rollout.deployer.set_secret("TOKEN", value, origin()).await
}

fn entry(node: &Node) -> Arc<Entry<Declared>> {
    node.rollout.registry().current().by_name("send").expect("it runs").clone()
}

/// The value that calls of `send` on this node read.
fn value(node: &Node) -> Option<Vec<u8>> {
    entry(node).running.inputs().secrets.remove("TOKEN")
}

/// The error in the report of this node about `send`. It waits for a report.
async fn reported_error(node: &Node) -> Option<String> {
    let reported = timeout(Duration::from_secs(10), async {
        loop {
            let nodes = node.rollout.repository().nodes().await.unwrap();
            let known = nodes.into_iter().find(|known| known.id == node.rollout.node.uuid());
            let mut handlers = known.into_iter().flat_map(|known| known.handlers);
            if let Some(report) = handlers.find(|handler| handler.name == "send") {
                return report.error;
            }
            sleep(Duration::from_millis(5)).await;
        }
    });
    reported.await.expect("a report")
}

fn loads(nodes: &[Node]) -> usize {
    nodes.iter().map(|node| node.rollout.fleet.loader.loads.load(SeqCst)).sum()
}

async fn two_nodes(pool: &PgPool) -> [Node; 2] {
    [Node::with(config(OLD, None), "a", pool).await, Node::with(config(OLD, None), "b", pool).await]
}

#[tokio::test]
async fn a_value_reaches_every_node_without_a_new_load() {
    with_database(|pool| async move {
        let nodes = two_nodes(&pool).await;
        let [a, b] = &nodes;
        let refused = a.deploy(&granted()).await.unwrap_err().to_string();
        assert!(refused.contains("TOKEN, which is not set: switchboard secret set TOKEN"), "{refused}");

        let unused = set(a, b"first value").await.unwrap();
        assert_eq!((unused.version, unused.bytes, unused.nodes.len()), (Some(1), Some(11), 0));
        a.deploy(&granted()).await.unwrap();
        let loaded = loads(&nodes);
        let outcome = set(a, b"\0second\xff").await.unwrap();
        assert_eq!((outcome.version, outcome.used_by.as_slice()), (Some(2), ["send".to_owned()].as_slice()));
        assert!(outcome.complete && outcome.nodes.len() == 2, "{outcome:?}");
        for node in [a, b] {
            assert_eq!(value(node).as_deref(), Some(&b"\0second\xff"[..]));
        }
        assert_eq!(loads(&nodes), loaded);

        let [listed] = &a.rollout.repository().secrets_listed().await.unwrap()[..] else { panic!("one") };
        assert_eq!((listed.name.as_str(), listed.bytes, listed.version), ("TOKEN", 8, 2));
        assert_eq!((listed.by.as_str(), listed.used_by.as_slice()), ("ana", ["send".to_owned()].as_slice()));
        for node in nodes {
            node.stop().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_secret_that_a_release_needs_is_removed_only_by_force() {
    with_database(|pool| async move {
        let [a, b] = two_nodes(&pool).await;
        let remove = async |force| a.rollout.deployer.remove_secret("TOKEN", force, origin()).await;
        assert!(matches!(remove(false).await, Err(Error::UnknownSecret(_))));
        set(&a, b"first value").await.unwrap();
        a.deploy(&granted()).await.unwrap();
        let refused = remove(false).await.unwrap_err().to_string();
        assert!(refused.contains("a release of send that runs"), "{refused}");
        assert!(remove(true).await.unwrap().complete);
        assert_eq!((value(&a), value(&b)), (None, None));
        assert!(matches!(remove(true).await, Err(Error::UnknownSecret(_))));
        a.stop().await;
        b.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_canary_and_a_shadow_get_the_value_too() {
    with_database(|pool| async move {
        let [a, b] = two_nodes(&pool).await;
        a.deploy(&file("send", SEND, "without it")).await.unwrap();
        set(&a, b"first value").await.unwrap();
        let canary = Deployment::Canary(10);
        a.rollout.deployer.deploy_beside(granted(), canary, origin()).await.unwrap();
        let outcome = set(&a, b"second value").await.unwrap();
        assert!(outcome.complete && outcome.nodes.len() == 2, "{outcome:?}");
        for node in [&a, &b] {
            let current = node.rollout.registry().current();
            let canary = current.by_name("send").unwrap().canary.clone().expect("a canary");
            assert_eq!(canary.candidate.release.inputs().secrets["TOKEN"], b"second value");
            assert_eq!(value(node), None, "the running release is not granted it");
        }
        a.stop().await;
        b.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_removed_secret_does_not_keep_a_candidate_alive() {
    with_database(|pool| async move {
        let node = Node::with(config(OLD, None), "a", &pool).await;
        let deployer = &node.rollout.deployer;
        set(&node, b"first value").await.unwrap();
        node.deploy(&granted()).await.unwrap();
        let candidate = file("send", SEND, "without it");
        let running = node.runs("send").unwrap();
        let beside = async |how| {
            set(&node, b"first value").await.unwrap();
            deployer.deploy_beside(candidate.clone(), how, origin()).await.unwrap();
            deployer.remove_secret("TOKEN", true, origin()).await.unwrap();
        };
        let alone = || {
            let entry = entry(&node);
            entry.digest == running && entry.canary.is_none() && entry.shadow.is_none()
        };

        beside(Deployment::Canary(50)).await;
        assert!(!alone() && deployer.rollback("send", None, origin()).await.unwrap().complete && alone());
        beside(Deployment::Canary(50)).await;
        let named = deployer.rollback("send", Some(&running.short()), origin()).await.unwrap();
        assert!(named.complete && alone(), "{named:?}");
        beside(Deployment::Shadow(50)).await;
        assert!(!alone() && deployer.unshadow("send", origin()).await.unwrap().complete && alone());

        // A release that begins to run needs its secrets.
        node.deploy(&candidate).await.unwrap();
        let refused = deployer.rollback("send", Some(&running.short()), origin()).await.unwrap_err();
        assert!(matches!(refused, Error::SecretsMissing(_)), "{refused}");
        node.stop().await;
    })
    .await;
}

#[tokio::test]
async fn what_is_no_secret_is_refused() {
    with_database(|pool| async move {
        let node = Node::with(config(OLD, None), "a", &pool).await;
        for value in [&b"7 bytes"[..], &vec![0; limits::SECRET_BYTES_MAX + 1]] {
            assert!(matches!(set(&node, value).await, Err(Error::SecretSize(_))), "{}", value.len());
        }
        set(&node, &vec![0; limits::SECRET_BYTES_MAX]).await.unwrap();
        for name in ["token", "", "1ST", "A-B", &"A".repeat(65)] {
            let refused = node.rollout.deployer.set_secret(name, b"long enough", origin()).await;
            assert!(matches!(refused, Err(Error::SecretName(_))), "{name}");
        }
        node.stop().await;
    })
    .await;
}

#[tokio::test]
async fn the_secrets_of_a_release_are_bounded_together() {
    with_database(|pool| async move {
        let node = Node::with(config(OLD, None), "a", &pool).await;
        let set = async |name: &str, bytes: usize| {
            node.rollout.deployer.set_secret(name, &vec![7; bytes], origin()).await
        };
        let names = ["K0", "K1", "K2", "K3", "K4"];
        for name in names {
            set(name, limits::SECRET_BYTES_MAX).await.unwrap();
        }
        let granted = file("send", &format!("{SEND}\n[grants]\nsecrets = {names:?}"), "all");
        let refused = node.deploy(&granted).await.unwrap_err();
        assert!(matches!(refused, Error::SecretsTooLarge { bytes: 81_920, .. }), "{refused}");

        set("K3", limits::SECRET_BYTES_MAX - limits::SECRET_BYTES_MIN).await.unwrap();
        set("K4", limits::SECRET_BYTES_MIN).await.unwrap();
        node.deploy(&granted).await.unwrap();
        set("K4", limits::SECRET_BYTES_MIN).await.unwrap();
        let refused = set("K4", limits::SECRET_BYTES_MIN + 1).await.unwrap_err();
        assert!(refused.to_string().contains("a release of send is granted would have 65537"), "{refused}");
        node.stop().await;
    })
    .await;
}

/// The three steps of a change of `secret`, while nodes of both kinds serve.
#[tokio::test]
async fn the_secret_of_the_nodes_can_be_changed() {
    with_database(|pool| async move {
        let old = Node::with(config(OLD, None), "a", &pool).await;
        set(&old, b"first value").await.unwrap();
        old.deploy(&granted()).await.unwrap();
        // Before any `migrate`, the fleet has no key: an old node would not open what a new one seals.
        let migrate_with = async |config: Config, unopened: Unopened| {
            let mut connection = pool.acquire().await.unwrap();
            reseal_in(&mut connection, &Sealing::of(&config).unwrap(), unopened).await
        };
        let migrate = async |config: Config| migrate_with(config, Unopened::Refuse).await.unwrap();
        assert_eq!(migrate(config(OLD, None)).await.count, 0);

        // 1. The nodes get both, one after the other. All open what either of them seals.
        let both = Node::with(config(NEW, Some(OLD)), "b", &pool).await;
        assert_eq!(value(&both).as_deref(), Some(&b"first value"[..]));
        assert!(set(&both, b"second value").await.unwrap().complete);
        assert_eq!(value(&old).as_deref(), Some(&b"second value"[..]));
        old.stop().await;

        // 2. `migrate` with both.
        assert_eq!(migrate(config(NEW, Some(OLD))).await.count, 1);
        assert_eq!(migrate(config(NEW, Some(OLD))).await.count, 0);

        // 3. The nodes lose the one before.
        let new = Node::with(config(NEW, None), "c", &pool).await;
        assert_eq!(value(&new).as_deref(), Some(&b"second value"[..]));
        assert!(set(&both, b"third value").await.unwrap().complete);
        assert_eq!(value(&new).as_deref(), Some(&b"third value"[..]));

        // With a `secret` that opens nothing, `migrate` refuses and changes nothing.
        let other = config("a secret that never sealed anything here", None);
        let unopened = vec![SealedError::OtherKey("TOKEN".to_owned())];
        let mut connection = pool.acquire().await.unwrap();
        let checked = check_in(&mut connection, &Sealing::of(&other).unwrap()).await.unwrap_err();
        drop(connection);
        assert!(matches!(&checked, Error::SecretsUnopened(listed) if *listed == unopened), "{checked}");
        assert!(checked.to_string().contains("do not open: TOKEN. Set"), "{checked}");
        let refused = migrate_with(other.clone(), Unopened::Refuse).await.unwrap_err();
        assert!(matches!(refused, Error::SecretsUnopened(_)), "{refused}");
        assert!(set(&both, b"fourth value").await.unwrap().complete);
        assert_eq!(value(&new).as_deref(), Some(&b"fourth value"[..]), "the key of the fleet is the same");

        // An operator who has lost the secret before keeps the rest, and is shown what to set again.
        let resealed = migrate_with(other, Unopened::Leave).await.unwrap();
        assert_eq!((resealed.count, resealed.unopened), (0, unopened));
        both.stop().await;
        new.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_node_with_another_secret_than_the_fleet_sets_nothing() {
    with_database(|pool| async move {
        let right = Node::with(config(OLD, None), "a", &pool).await;
        let mut connection = pool.acquire().await.unwrap();
        let sealing = Sealing::of(&config(OLD, None)).unwrap();
        reseal_in(&mut connection, &sealing, Unopened::Refuse).await.unwrap();
        drop(connection);
        set(&right, b"first value").await.unwrap();
        right.deploy(&granted()).await.unwrap();
        // One mistake on one node must not make the others lose their readiness.
        let wrong = Node::with(config(NEW, None), "b", &pool).await;
        let refused = set(&wrong, b"second value").await.unwrap_err();
        assert!(matches!(refused, Error::OtherFleetKey), "{refused}");
        assert_eq!(refused.problem().status, 409);
        assert_eq!(value(&right).as_deref(), Some(&b"first value"[..]));
        assert!(right.rollout.releases_missing().is_empty());
        right.stop().await;
        wrong.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_value_of_before_a_removal_never_opens_again() {
    with_database(|pool| async move {
        let node = Node::with(config(OLD, None), "a", &pool).await;
        set(&node, b"first value").await.unwrap();
        let [before] = &node.rollout.repository().secrets(&["TOKEN".to_owned()]).await.unwrap()[..] else {
            panic!("one secret")
        };
        node.rollout.deployer.remove_secret("TOKEN", false, origin()).await.unwrap();
        assert_eq!(set(&node, b"second value").await.unwrap().version, Some(2));
        // Somebody who can write to the table puts the old value in the place of the new one.
        let forge = sqlx::query("update switchboard.secrets set sealed = $1, key_id = $2");
        let Sealed { bytes, key_id } = &before.sealed;
        forge.bind(bytes).bind(key_id).execute(&pool).await.unwrap();
        let refused = node.deploy(&granted()).await.unwrap_err();
        assert!(matches!(refused, Error::Sealed(SealedError::Damaged(_))), "{refused}");
        node.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_node_that_cannot_open_a_value_keeps_the_former_one_and_says_so() {
    with_database(|pool| async move {
        let (a, b) = (
            Node::with(config(OLD, None), "a", &pool).await,
            Node::with(config(NEW, Some(OLD)), "b", &pool).await,
        );
        set(&a, b"first value").await.unwrap();
        a.deploy(&granted()).await.unwrap();
        // The fleet has no key yet, so this node uses that of its `secret`.
        let outcome = set(&b, b"second value").await.unwrap();
        assert!(!outcome.complete);
        let refused = outcome.nodes.iter().find(|node| node.state == State::Kept).expect("a cannot follow");
        let error = refused.error.as_deref().unwrap_or_default();
        assert!(error.contains("set `secret_previous`"), "{error}");
        assert_eq!(value(&a).as_deref(), Some(&b"first value"[..]));
        assert_eq!(value(&b).as_deref(), Some(&b"second value"[..]));
        assert!(a.rollout.releases_missing()[0].contains("TOKEN"), "{:?}", a.rollout.releases_missing());
        // Another value, which it can open, and it follows.
        assert!(set(&a, b"third value").await.unwrap().complete);
        assert_eq!((value(&a), value(&b)), (Some(b"third value".to_vec()), Some(b"third value".to_vec())));
        assert!(a.rollout.releases_missing().is_empty());
        a.stop().await;
        b.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_node_that_cannot_open_a_value_still_follows_switches() {
    with_database(|pool| async move {
        let (a, b) = (
            Node::with(config(OLD, None), "a", &pool).await,
            Node::with(config(NEW, Some(OLD)), "b", &pool).await,
        );
        set(&a, b"first value").await.unwrap();
        a.deploy(&granted()).await.unwrap();
        let candidate = file("send", SEND, "without it");
        b.rollout.deployer.deploy_beside(candidate, Deployment::Canary(50), origin()).await.unwrap();
        assert!(entry(&a).canary.is_some());
        // The node `a` cannot open it.
        assert!(!set(&b, b"second value").await.unwrap().complete);
        let withdrawn = b.rollout.deployer.rollback("send", None, origin()).await.unwrap();
        assert!(!withdrawn.complete, "{withdrawn:?}");
        assert_eq!((entry(&a).canary.is_none(), entry(&a).generation), (true, withdrawn.generation));
        assert_eq!(value(&a).as_deref(), Some(&b"first value"[..]), "it keeps the former value");
        let [missing] = &a.rollout.releases_missing()[..] else { panic!("one handler") };
        assert!(missing.contains("keeps its former settings") && missing.contains("TOKEN"), "{missing}");

        // Postgres forgets the node, which then reports the same again.
        let forget = sqlx::query("delete from switchboard.nodes where id = $1");
        forget.bind(a.rollout.node.uuid()).execute(&pool).await.unwrap();
        let error = reported_error(&a).await.unwrap_or_default();
        assert!(error.contains("secret_previous"), "{error}");

        assert!(set(&a, b"third value").await.unwrap().complete);
        assert_eq!(value(&a).as_deref(), Some(&b"third value"[..]));
        assert_eq!(reported_error(&a).await, None);
        a.stop().await;
        b.stop().await;
    })
    .await;
}
