//! Live settings on several nodes in one process, with one real Postgres.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use tokio::time::{sleep, timeout};

use super::super::super::registry::Entry;
use super::super::Deployment;
use super::super::tests::Node;
use super::*;
use crate::outcome::{Outcome, State};
use crate::repository::{Action, Change, SwitchResult};
use switchboard_core::config::Config;
use switchboard_core::ids::Digest;
use switchboard_protocol::wire::problem::Code;
use switchboard_runtime::{CallLog, Caller, Ending, Observable, Trigger, Used};
use switchboard_testing::manifests::{Declared, SEND, file};
use switchboard_testing::with_database;

/// A release of `send` with two settings.
fn send(text: &str, votes_max: u32) -> bytes::Bytes {
    let settings = format!(
        "{SEND}\npublic_settings = [\"votes\", \"mode\"]\n[config]\nvotes = 3\ntoken = \"s3cret-of-the-manifest\"\n\
         [settings.votes]\ntype = \"integer\"\nmin = 1\nmax = {votes_max}\n[settings.mode]\ntype = \"text\""
    );
    file("send", &settings, text)
}

fn set(pairs: &[(&str, &str)]) -> SettingsRequest {
    let set = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    SettingsRequest { what: SettingsAction::Change { set, unset: BTreeSet::new() }, seen: None }
}

fn unset(key: &str) -> SettingsRequest {
    let unset = [key.to_owned()].into();
    SettingsRequest { what: SettingsAction::Change { set: BTreeMap::new(), unset }, seen: None }
}

fn back_to(generation: Option<i64>) -> SettingsRequest {
    SettingsRequest { what: SettingsAction::Rollback(generation), seen: None }
}

impl Node {
    async fn change(&self, request: SettingsRequest) -> Result<SettingsOutcome, Error> {
        self.rollout.deployer.change_settings("send", request, Origin::new("ana", Some("why"))).await
    }

    fn entry(&self) -> Arc<Entry<Declared>> {
        self.rollout.registry().current().by_name("send").expect("it runs").clone()
    }

    /// The live setting that the running release has.
    fn live(&self, key: &str) -> Option<String> {
        let current = self.rollout.registry().current();
        current.by_name("send")?.running.inputs().live.get(key).cloned()
    }

    async fn beside(&self, bytes: bytes::Bytes, how: Deployment) -> Outcome {
        self.rollout.deployer.deploy_beside(bytes, how, Origin::new("ana", None)).await.unwrap()
    }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let waited = timeout(Duration::from_secs(10), async {
        while !holds() {
            sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("waited in vain for {what}"));
}

#[tokio::test]
async fn a_change_of_settings_keeps_code_stats_and_canary() {
    with_database(|pool| async move {
        let (a, b) = (Node::start("a", &pool).await, Node::start("b", &pool).await);
        a.deploy(&send("first", 10)).await.unwrap();
        assert!(a.beside(send("canary", 10), Deployment::Canary(50)).await.complete);
        assert!(a.beside(send("shadow", 10), Deployment::Shadow(10)).await.complete);
        let (before, loads) = (b.entry(), b.rollout.fleet.loader.loads.load(Ordering::SeqCst));
        let canary = before.canary.clone().unwrap();
        let record = |release: &Declared| {
            let took = Duration::from_millis(1);
            release.stats().record(Trigger::Frame, Caller::Host, took, Ending::Answered, Used::default());
        };
        record(&before.running);
        record(&canary.candidate.release);

        for votes in ["4", "5"] {
            let outcome = a.change(set(&[("votes", votes)])).await.unwrap();
            assert!(outcome.complete && outcome.nodes.len() == 2, "{outcome:?}");
            for node in [&a, &b] {
                let entry = node.entry();
                assert_eq!(entry.generation, outcome.generation);
                let shadow = entry.shadow.as_ref().unwrap();
                for release in
                    [&entry.running, &entry.canary.as_ref().unwrap().candidate.release, &shadow.release]
                {
                    assert_eq!(release.inputs().live["votes"], votes);
                }
            }
        }
        let after = b.entry();
        assert!(after.has_releases_of(&before), "the same releases, and the same canary with its calls");
        assert_eq!(b.rollout.fleet.loader.loads.load(Ordering::SeqCst), loads, "nothing was loaded again");
        // The observers still get the calls.
        record(&after.running);
        record(&canary.candidate.release);
        assert_eq!(after.running.stats().outcomes(), [("frame", "returned", 2)]);
        let counted = |log: &CallLog| log.ended_after(canary.begun_at).len();
        assert_eq!((counted(&canary.running_calls), counted(&canary.canary_calls)), (2, 2));
        assert!(after.running.observer().with(|_| ()).is_some(), "the shadow's sampler");
        a.stop().await;
        b.stop().await;
    })
    .await;
}

#[tokio::test]
async fn what_breaks_a_rule_is_refused_and_changes_nothing() {
    with_database(|pool| async move {
        let node = Node::start("a", &pool).await;
        node.deploy(&send("first", 10)).await.unwrap();
        node.beside(send("canary", 5), Deployment::Canary(50)).await;
        let generation = node.rollout.repository().generation().await.unwrap();
        let long = "x".repeat(limits::SETTING_BYTES_MAX + 1);
        for (request, complaint) in [
            (set(&[("votes", "many")]), "votes is an integer from 1 to 10, not \"many\""),
            (set(&[("votes", "6")]), "votes is an integer from 1 to 5, not \"6\" (in the release "),
            (set(&[("rate", "1")]), "send has no setting `rate`; it has mode, token, votes"),
            (unset("rate"), "send has no setting `rate`"),
            (set(&[("mode", "a\0b")]), "the value of mode has a zero byte"),
            (set(&[("mode", &long)]), "mode has 16385 bytes; the maximum of a setting is 16384"),
        ] {
            let refused = node.change(request).await.unwrap_err();
            assert!(refused.to_string().contains(complaint), "{refused}");
            assert_eq!(refused.problem().code, Code::Invalid.as_str());
        }
        let nothing = node.change(back_to(None)).await.unwrap_err();
        assert!(nothing.to_string().contains("were never changed"), "{nothing}");
        let unknown =
            node.rollout.deployer.change_settings("No Name", set(&[]), Origin::new("ana", None)).await;
        assert_eq!(unknown.unwrap_err().problem().status, 404);
        assert_eq!(node.rollout.repository().generation().await.unwrap(), generation);
        assert!(node.rollout.repository().settings("send").await.unwrap().is_empty());

        // The same value again, and a key that is not set, change nothing.
        let first = node.change(set(&[("votes", "4")])).await.unwrap();
        let again = node.change(set(&[("votes", "4")])).await.unwrap();
        assert!(again.unchanged && again.complete && again.changes.is_empty(), "{again:?}");
        assert_eq!(again.generation, first.generation);
        assert!(node.change(unset("mode")).await.unwrap().unchanged);
        node.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_value_that_breaks_a_grant_to_fetch_is_refused() {
    with_database(|pool| async move {
        let node = Node::start("a", &pool).await;
        let granted = |url: &str| {
            let grant = format!("[grants]\nfetch = [{{ methods = [\"GET\"], url = \"{url}\" }}]");
            file("send", &format!("{SEND}\n[config]\nbase = \"https://x.example\"\n{grant}"), url)
        };
        node.deploy(&granted("{base}/*")).await.unwrap();
        // No node could use it, so all nodes would keep the former settings, and none would be ready.
        let refused = node.change(set(&[("base", "s3cret.example")])).await.unwrap_err();
        assert!(matches!(refused, Error::Setting(SettingError::Invalid(_))), "{refused}");
        let why = refused.to_string();
        assert!(why.contains("with the present values of base") && !why.contains("s3cret"), "{why}");
        node.change(set(&[("base", "https://y.example")])).await.unwrap();

        let refused = node.deploy(&granted("https://{base}/*")).await.unwrap_err();
        assert!(matches!(refused, Error::Setting(SettingError::Fetches { .. })), "{refused}");
        node.stop().await;
    })
    .await;
}

#[tokio::test]
async fn all_settings_together_are_bounded() {
    with_database(|pool| async move {
        let node = Node::start("a", &pool).await;
        // The handler never ran, so no manifest names its keys.
        let keys: Vec<String> = (0..=limits::SETTINGS_PER_HANDLER_MAX).map(|n| format!("k{n}")).collect();
        let many: Vec<_> = keys.iter().map(|key| (key.as_str(), "1")).collect();
        let refused = node.change(set(&many)).await.unwrap_err().to_string();
        assert!(refused.contains("129 live settings; the maximum is 128"), "{refused}");
        let large = "x".repeat(limits::SETTING_BYTES_MAX);
        let five: Vec<_> = keys.iter().take(5).map(|key| (key.as_str(), large.as_str())).collect();
        let refused = node.change(set(&five)).await.unwrap_err().to_string();
        assert!(refused.contains("bytes together; the maximum is 65536"), "{refused}");
        let refused = node.change(set(&[("a key", "1")])).await.unwrap_err().to_string();
        assert!(refused.contains("letters, digits, dots, dashes and underscores"), "{refused}");
        node.change(set(&many[1..])).await.unwrap();
        node.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_rollback_restores_the_values_after_a_change() {
    with_database(|pool| async move {
        let node = Node::start("a", &pool).await;
        node.deploy(&send("first", 10)).await.unwrap();
        let first = node.change(set(&[("votes", "4")])).await.unwrap().generation;
        let second = node.change(set(&[("votes", "5"), ("mode", "lax")])).await.unwrap().generation;
        node.change(unset("votes")).await.unwrap();
        assert_eq!((node.live("votes"), node.live("mode").as_deref()), (None, Some("lax")));

        node.change(back_to(None)).await.unwrap();
        assert_eq!(node.live("votes").as_deref(), Some("5"));
        node.change(back_to(None)).await.unwrap();
        assert_eq!(node.live("votes"), None, "a second rollback undoes the first");
        let outcome = node.change(back_to(Some(first))).await.unwrap();
        assert_eq!((node.live("votes").as_deref(), node.live("mode")), (Some("4"), None));
        assert_eq!(outcome.changes.len(), 2);

        let gone = node.change(back_to(Some(first - 1))).await.unwrap_err();
        assert_eq!(gone.problem().status, 404);
        let stale = SettingsRequest { seen: Some(second), ..set(&[("votes", "6")]) };
        let stale = node.change(stale).await.unwrap_err();
        assert!(stale.to_string().contains(&format!("not {second}")), "{stale}");
        let seen = SettingsRequest { seen: Some(outcome.generation), ..set(&[("votes", "6")]) };
        node.change(seen).await.unwrap();

        let history = node.rollout.deployer.settings_history("send").await.unwrap();
        assert_eq!(history.len(), 7);
        assert_eq!((history[0].by.as_str(), history[0].note.as_deref()), ("ana", Some("why")));
        assert_eq!(history[6].generation, first);
        let change = &history[6].changes[0];
        assert_eq!(
            (&change.from, change.to.as_deref(), change.default.as_deref()),
            (&None, Some("4"), Some("3"))
        );
        node.stop().await;
    })
    .await;
}

#[tokio::test]
async fn before_the_first_change_nothing_was_set_and_old_changes_are_deleted() {
    with_database(|pool| async move {
        let node = Node::start("a", &pool).await;
        node.deploy(&send("first", 10)).await.unwrap();
        node.change(set(&[("votes", "4")])).await.unwrap();
        node.change(back_to(None)).await.unwrap();
        assert_eq!(node.live("votes"), None);
        sqlx::query(
            "insert into switchboard.settings_history (generation, handler, who, changes, after)
             select -n, 'send', 'ana', '[]'::jsonb, '{}'::jsonb from generate_series(1, $1) as n
             union all select -$1 - 1, 'other', 'ana', '[]', '{}'",
        )
        .bind(limits::SETTINGS_HISTORY_KEPT)
        .execute(&pool)
        .await
        .unwrap();
        node.change(set(&[("votes", "5")])).await.unwrap();
        let kept: Vec<(String, i64)> = sqlx::query_as(
            "select handler, count(*) from switchboard.settings_history group by handler order by handler",
        )
        .fetch_all(&pool)
        .await
        .unwrap();
        assert_eq!(kept, [("other".to_owned(), 1), ("send".to_owned(), limits::SETTINGS_HISTORY_KEPT)]);
        let history = node.rollout.deployer.settings_history("send").await.unwrap();
        assert_eq!(history[0].changes[0].to.as_deref(), Some("5"), "the newest stays");
        node.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_release_must_fit_the_live_settings_of_its_handler() {
    with_database(|pool| async move {
        let node = Node::start("a", &pool).await;
        let first = send("first", 10);
        node.deploy(&first).await.unwrap();
        node.change(set(&[("votes", "8"), ("token", "s3cret-of-the-operator")])).await.unwrap();
        let strict = send("strict", 5);
        let loads = node.rollout.fleet.loader.loads.load(Ordering::SeqCst);
        let refused = node.deploy(&strict).await.unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the live setting votes (set by ana) does not fit this release: votes is an integer from 1 to 5, not \"8\"; \
             first change it (`switchboard config set send votes VALUE`) or remove it (`switchboard config unset send \
             votes`)"
        );
        assert_eq!(refused.problem().status, 409);
        assert_eq!(node.rollout.fleet.loader.loads.load(Ordering::SeqCst), loads, "it was not loaded for that");
        assert_eq!(node.runs("send"), Some(Digest::of(&first)));

        node.change(set(&[("votes", "2")])).await.unwrap();
        node.deploy(&strict).await.unwrap();
        assert_eq!(node.live("votes").as_deref(), Some("2"), "a new release has the live settings");
        // A rollback to a loaded release gives it the present settings, and not those that it had.
        node.change(set(&[("votes", "1")])).await.unwrap();
        node.rollout.deployer.rollback("send", None, Origin::new("ana", None)).await.unwrap();
        assert_eq!((node.runs("send"), node.live("votes").as_deref()), (Some(Digest::of(&first)), Some("1")));
        node.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_change_of_settings_does_not_refuse_a_deploy_that_began_before_it() {
    with_database(|pool| async move {
        let node = Node::start("a", &pool).await;
        let repository = node.rollout.repository();
        let (first, second) = (send("first", 10), send("second", 10));
        node.deploy(&second).await.unwrap();
        node.deploy(&first).await.unwrap();
        // A deploy reads the state, and takes seconds to compile.
        let seen = repository.handler_state("send").await.unwrap();
        node.change(set(&[("votes", "4")])).await.unwrap();
        assert!(repository.handler_state("send").await.unwrap().generation() > seen.generation());
        let digest = Digest::of(&second);
        let change = Change::of_running(Action::Deploy, "send", digest, &seen, Origin::new("ana", None));
        let switched = repository.switch().await.unwrap().to(&change).await.unwrap();
        assert!(matches!(switched, SwitchResult::To { .. }), "{switched:?}");
        // Of two that have seen the same state, the second loses.
        let lost = repository.switch().await.unwrap().to(&change).await.unwrap();
        assert!(matches!(lost, SwitchResult::Lost { to: Some(_) }), "{lost:?}");
        node.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_node_that_cannot_use_settings_keeps_the_former_ones_and_is_named() {
    with_database(|pool| async move {
        let (a, b) = (Node::start("a", &pool).await, Node::start("b", &pool).await);
        a.deploy(&send("first", 10)).await.unwrap();
        a.change(set(&[("mode", "lax")])).await.unwrap();
        let outcome = a.change(set(&[("mode", "not on b")])).await.unwrap();
        assert!(!outcome.complete);
        let [of_a, of_b] = &outcome.nodes[..] else { panic!("{outcome:?}") };
        assert_eq!((of_a.state, of_b.state), (State::Live, State::Kept));
        assert!(of_b.error.as_ref().unwrap().contains("does not fit here"), "{of_b:?}");
        assert_eq!((a.live("mode").as_deref(), b.live("mode").as_deref()), (Some("not on b"), Some("lax")));
        let [missing] = &b.rollout.releases_missing()[..] else { panic!("one is missing") };
        assert_eq!(missing, "handler `send` keeps its former settings on this node: it does not fit here");
        assert_eq!(a.rollout.releases_missing(), [""; 0]);

        assert!(a.change(back_to(None)).await.unwrap().complete);
        until("the node to have everything", || b.rollout.releases_missing().is_empty()).await;
        // A node that starts with such settings does not run the handler.
        a.change(set(&[("mode", "not on late")])).await.unwrap();
        let late = Node::start("late", &pool).await;
        assert_eq!(late.runs("send"), None);
        assert!(late.rollout.releases_missing()[0].contains("does not fit here"));
        for node in [a, b, late] {
            node.stop().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_handler_gets_the_settings_of_before_its_first_release_and_a_late_node_too() {
    with_database(|pool| async move {
        let a = Node::start("a", &pool).await;
        let outcome = a.change(set(&[("votes", "7"), ("unknown", "x")])).await.unwrap();
        assert!(outcome.complete && outcome.nodes.is_empty(), "{outcome:?}");
        assert_eq!(outcome.changes[1].to.as_deref(), Some("[setting votes]"), "no manifest shows it");
        let misfit = a.deploy(&send("strict", 5)).await.unwrap_err();
        assert!(matches!(misfit, Error::Setting(SettingError::Stored { .. })), "{misfit}");
        a.deploy(&send("first", 10)).await.unwrap();
        assert_eq!(a.live("votes").as_deref(), Some("7"));
        let late = Node::start("b", &pool).await;
        assert_eq!(late.live("votes").as_deref(), Some("7"));

        a.rollout.deployer.retire("send", Origin::new("ana", None)).await.unwrap();
        let refused = a.change(set(&[("votes", "11")])).await.unwrap_err();
        assert!(
            matches!(refused, Error::Setting(SettingError::Invalid(_))),
            "the retired release still has its rules: {refused}"
        );
        assert!(a.change(set(&[("votes", "9")])).await.unwrap().complete);
        a.rollout.deployer.rollback("send", None, Origin::new("ana", None)).await.unwrap();
        until("the late node to follow", || late.live("votes").as_deref() == Some("9")).await;
        a.stop().await;
        late.stop().await;
    })
    .await;
}

#[tokio::test]
async fn settings_are_shown_with_their_origin_and_overrides() {
    with_database(|pool| async move {
        let overrides = json!({ "handlers": { "send": { "votes": 9, "mode": "strict" } } });
        let config: Config = serde_json::from_value(overrides).unwrap();
        let (a, b) = (Node::start("a", &pool).await, Node::with(config, "b", &pool).await);
        a.deploy(&send("first", 10)).await.unwrap();
        let outcome = a.change(set(&[("votes", "4"), ("token", "s3cret-of-the-operator")])).await.unwrap();
        let address = outcome.nodes[1].address.clone();
        assert_eq!(outcome.overridden, [Overridden { key: "votes".into(), nodes: vec![address.clone()] }]);
        let shown = format!("{outcome:?}");
        assert!(!shown.contains("s3cret") && shown.contains("[setting token]"), "{shown}");

        let here = a.rollout.deployer.settings("send").await.unwrap();
        assert_eq!((here.generation, here.nodes), (outcome.generation, 2));
        let of =
            |view: &SettingsView, key: &str| view.settings.iter().find(|it| it.key == key).unwrap().clone();
        let votes = of(&here, "votes");
        assert_eq!((votes.value.as_deref(), votes.from), (Some("4"), SettingSource::Live));
        assert_eq!(votes.overridden_on, [address]);
        assert_eq!(votes.rule.as_deref(), Some("an integer from 1 to 10"));
        assert_eq!(votes.live.unwrap().by, "ana");
        assert_eq!((of(&here, "mode").value, of(&here, "mode").from), (None, SettingSource::None));
        let token = of(&here, "token");
        assert_eq!((token.value.as_deref(), token.public), (Some("[setting token]"), false));

        let there = b.rollout.deployer.settings("send").await.unwrap();
        let votes = of(&there, "votes");
        assert_eq!((votes.value.as_deref(), votes.from), (Some("9"), SettingSource::Node));
        assert_eq!(of(&there, "mode").value.as_deref(), Some("strict"));
        assert_eq!(b.entry().running.inputs().overrides["votes"].value, "9");
        let unknown = a.rollout.deployer.settings("nobody").await.unwrap_err();
        assert_eq!(unknown.problem().status, 404);
        a.stop().await;
        b.stop().await;
    })
    .await;
}
