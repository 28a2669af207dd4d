//! Timers in a real Postgres: who fires, and what an outcome changes.

use super::*;
use crate::tests::world::{World, with_world};

const LEASE: Duration = Duration::from_secs(30);

fn new(key: &str, due: Due) -> NewTimer {
    NewTimer { key: key.to_owned(), payload: format!("payload of {key}"), due }
}

async fn set(world: &World, key: &str, due: Due) {
    let set = world.postgres.timers().set("polls", &[new(key, due)]).await.unwrap();
    assert_eq!(set, Set::Stored);
}

async fn claim(world: &World, node: NodeId, room: usize) -> Claims {
    let wanted = Wanted { handler: "polls".to_owned(), room, lease: LEASE };
    world.postgres.timers().claim(node, &[wanted]).await.unwrap()
}

/// The keys that a new node claims.
async fn claimed(world: &World) -> Vec<String> {
    claim(world, NodeId::random(), 10).await.timers.into_iter().map(|timer| timer.key).collect()
}

async fn settle(world: &World, timer: Claimed, outcome: Outcome) {
    world.postgres.timers().settle(&[(timer, outcome)]).await.unwrap();
}

const WITHOUT_DELAY: Duration = Duration::ZERO;

fn postponed() -> Outcome {
    Outcome::Postponed { after: WITHOUT_DELAY, error: "not now".to_owned() }
}

#[tokio::test]
async fn a_due_timer_is_claimed_by_one_node() {
    with_world(2, async |world| {
        set(&world, "late", Due::AfterMs(3_600_000)).await;
        set(&world, "past", Due::AtMs(1000)).await;
        let (node, other) = (NodeId::random(), NodeId::random());
        let first = claim(&world, node, 10).await;
        let [timer] = &first.timers[..] else { panic!("{first:?}") };
        assert_eq!((timer.key.as_str(), timer.payload.as_str()), ("past", "payload of past"));
        assert_eq!((timer.due_ms, timer.attempt), (1000, 1));
        let next = first.next_in.expect("the late one is next");
        assert!(next > Duration::from_secs(3500) && next <= Duration::from_secs(3600), "{next:?}");
        let second = claim(&world, other, 10).await;
        assert!(second.timers.is_empty(), "{second:?}");
        assert!(second.next_in.is_some_and(|next| next <= LEASE), "the end of the lease is next");
        settle(&world, timer.clone(), Outcome::Done).await;
        assert_eq!(world.count("select count(*) from switchboard.timers").await, 1);
    })
    .await;
}

#[tokio::test]
async fn another_node_takes_over_after_the_lease() {
    with_world(2, async |world| {
        set(&world, "a", Due::AfterMs(0)).await;
        let lost = claim(&world, NodeId::random(), 10).await.timers.remove(0);
        assert_eq!(claimed(&world).await, Vec::<String>::new());
        world.owner("update switchboard.timers set next_at = now() - interval '1 second'").await;
        let again = claim(&world, NodeId::random(), 10).await.timers.remove(0);
        assert_eq!((again.attempt, again.due_ms), (2, lost.due_ms));
        // The first node was only slow. Its outcome comes too late.
        settle(&world, lost, Outcome::Parked { error: "late".to_owned() }).await;
        assert_eq!(world.count("select count(*) from switchboard.timers where parked_at is null").await, 1);
        settle(&world, again, Outcome::Done).await;
        assert_eq!(world.count("select count(*) from switchboard.timers").await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_timer_that_is_set_while_it_fires_fires_again() {
    with_world(2, async |world| {
        set(&world, "a", Due::AfterMs(0)).await;
        let firing = claim(&world, NodeId::random(), 10).await.timers.remove(0);
        set(&world, "a", Due::AfterMs(0)).await;
        settle(&world, firing, Outcome::Done).await;
        let again = claim(&world, NodeId::random(), 10).await.timers.remove(0);
        assert_eq!(again.attempt, 1, "it is a new timer");
    })
    .await;
}

#[tokio::test]
async fn cancelling_says_whether_the_timer_was_waiting() {
    with_world(2, async |world| {
        let timers = world.postgres.timers();
        set(&world, "a", Due::AfterMs(0)).await;
        assert!(!timers.cancel("others", "a").await.unwrap(), "it is another handler's");
        assert!(timers.cancel("polls", "a").await.unwrap());
        assert!(!timers.cancel("polls", "a").await.unwrap());
        set(&world, "a", Due::AfterMs(0)).await;
        let firing = claim(&world, NodeId::random(), 10).await.timers.remove(0);
        assert!(!timers.cancel("polls", "a").await.unwrap(), "its call has begun");
        settle(&world, firing, postponed()).await;
        assert_eq!(world.count("select count(*) from switchboard.timers").await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_postponed_timer_is_due_again_and_a_released_one_has_not_fired() {
    with_world(2, async |world| {
        set(&world, "a", Due::AfterMs(0)).await;
        let first = claim(&world, NodeId::random(), 10).await.timers.remove(0);
        settle(&world, first, Outcome::Released { after: WITHOUT_DELAY }).await;
        let first = claim(&world, NodeId::random(), 10).await.timers.remove(0);
        assert_eq!(first.attempt, 1);
        settle(&world, first, postponed()).await;
        let second = claim(&world, NodeId::random(), 10).await.timers.remove(0);
        assert_eq!(second.attempt, 2);
        settle(&world, second, Outcome::Postponed { after: LEASE, error: "later".to_owned() }).await;
        assert_eq!(claimed(&world).await, Vec::<String>::new());
    })
    .await;
}

#[tokio::test]
async fn a_parked_timer_is_a_failed_event_that_an_operator_retries_or_drops() {
    with_world(2, async |world| {
        let outbox = world.postgres.outbox();
        for key in ["a", "b"] {
            set(&world, key, Due::AfterMs(0)).await;
            let timer = claim(&world, NodeId::random(), 10).await.timers.remove(0);
            settle(&world, timer, Outcome::Parked { error: format!("{key} failed") }).await;
        }
        assert_eq!(claimed(&world).await, Vec::<String>::new());
        let parked = outbox.parked().await.unwrap();
        let seen: Vec<_> = parked.iter().map(|it| (it.key.as_str(), it.error.as_str())).collect();
        assert_eq!(seen, [("b", "b failed"), ("a", "a failed")]);
        assert_eq!((parked[0].consumer.as_str(), parked[0].event_type.as_str()), ("polls", "timer"));
        assert_eq!(outbox.replay(parked[1].id).await.unwrap(), 1);
        let again = claim(&world, NodeId::random(), 10).await.timers.remove(0);
        assert_eq!((again.key.as_str(), again.attempt), ("a", 1));
        assert_eq!(outbox.drop_parked(parked[0].id).await.unwrap(), 1);
        assert_eq!(outbox.drop_parked(again.id).await.unwrap(), 0, "it is not parked");
        assert!(outbox.parked().await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_handler_with_too_many_timers_can_only_replace_them() {
    with_world(2, async |world| {
        world
            .owner(&format!(
                "insert into switchboard.timers (handler, key, payload, due_at, next_at)
                 select 'polls', n::text, '', now() + interval '1 day', now() + interval '1 day'
                 from generate_series(1, {}) as n",
                limits::TIMERS_PER_HANDLER_MAX
            ))
            .await;
        let timers = world.postgres.timers();
        let due = Due::AfterMs(1000);
        assert_eq!(timers.set("polls", &[new("another", due)]).await.unwrap(), Set::Full);
        assert_eq!(timers.set("polls", &[new("7", due), new("another", due)]).await.unwrap(), Set::Full);
        assert_eq!(timers.set("polls", &[new("7", due)]).await.unwrap(), Set::Stored);
        assert_eq!(timers.set("others", &[new("another", due)]).await.unwrap(), Set::Stored);
        timers.cancel("polls", "7").await.unwrap();
        assert_eq!(timers.set("polls", &[new("another", due)]).await.unwrap(), Set::Stored);
    })
    .await;
}

#[tokio::test]
async fn operators_see_timers_and_cancel_them() {
    with_world(2, async |world| {
        let timers = world.postgres.timers();
        set(&world, "later", Due::AfterMs(3_600_000)).await;
        set(&world, "now", Due::AfterMs(0)).await;
        claim(&world, NodeId::random(), 10).await;
        let listed = timers.listed(Some("polls")).await.unwrap();
        let seen: Vec<_> = listed.iter().map(|it| (it.key.as_str(), it.state.as_str())).collect();
        assert_eq!(seen, [("now", "firing"), ("later", "waiting")]);
        assert!(timers.listed(Some("others")).await.unwrap().is_empty());
        assert_eq!(timers.listed(None).await.unwrap(), listed);
        assert_eq!(timers.cancel_all("polls").await.unwrap(), 2);
    })
    .await;
}
