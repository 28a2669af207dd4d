//! The history goes back while clients are subscribed: the database failed over to a replica that lagged.
//! Positions of the new epoch are above all of the older one (`docs/decisions/position-epochs.md`), whatever
//! their seq.

use super::*;

/// A seq of the epoch with this ordinal, as the sdk packs the two.
fn of(epoch: u64, number: u64) -> Position {
    seq(epoch << 36 | number)
}

fn stored(epoch: u64, number: u64) -> Publication {
    Publication { position: Some(of(epoch, number)), ..unpositioned(&format!("{number}'{epoch}")) }
}

/// The page for a subscriber of an older epoch: the common point, the messages above it, and the last
/// position. that leaves them.
fn page_of(epoch: u64, common: u64, numbers: std::ops::RangeInclusive<u64>) -> Page {
    let reset = Push { frame: format!("reset-to-{common}"), position: None };
    let last = *numbers.end();
    let messages = numbers.map(|n| Push { frame: format!("{n}'{epoch}"), position: Some(of(epoch, n)) });
    let pushes: Vec<_> = [reset].into_iter().chain(messages).collect();
    Page { pushes: Batch::of_page(&pushes), reached: vec![of(epoch, last.max(common))], more: false }
}

#[test]
fn a_push_of_a_new_epoch_is_not_a_duplicate() {
    let mut node = Node::new();
    let ana = node.join("ana");
    node.subscribe(&ana, &[of(0, 300)]);
    // 251 to 300 were lost, and 251 is another message now.
    node.publish(&[stored(1, 251)]);
    let missing = node.expect_question(&[of(0, 300)]);
    node.local.fill(&missing, &page_of(1, 250, 251..=251));
    assert_eq!(ana.reads(), "subscribed reset-to-250 251'1");
    // A relay that still reads the former primary publishes these.
    node.publish(&[stored(0, 301), stored(0, 302)]);
    node.publish(&[stored(1, 252)]);
    assert_eq!(ana.reads(), "252'1");
    node.expect_no_question();
}

#[test]
fn subscribers_learn_of_a_new_epoch_before_the_next_write() {
    let mut node = Node::new();
    let (ana, bo) = (node.join("ana"), node.join("bo"));
    node.subscribe(&ana, &[of(0, 300)]);
    node.subscribe(&bo, &[of(0, 300)]);
    assert_eq!((ana.reads(), bo.reads()), ("subscribed".to_owned(), "subscribed".to_owned()));
    node.local.suspect_loss();
    let missing = node.expect_question(&[of(0, 300)]);
    #[allow(clippy::reversed_empty_ranges)] // nothing is stored above the common point
    node.local.fill(&missing, &page_of(1, 250, 251..=250));
    assert_eq!((ana.reads(), bo.reads()), ("reset-to-250".to_owned(), "reset-to-250".to_owned()));
    // The next push follows without a request.
    node.publish(&[stored(1, 251)]);
    assert_eq!(ana.reads(), "251'1");
    node.expect_no_question();
}

#[test]
fn a_client_that_resumes_in_the_new_epoch_does_not_get_lost_messages() {
    let mut node = Node::new();
    let ana = node.join("ana");
    node.subscribe(&ana, &[of(0, 300)]);
    assert_eq!(ana.reads(), "subscribed");
    let cy = node.join("cy");
    node.gate(&cy);
    // It is in the ring when the reply is sent.
    node.publish(&[stored(0, 301)]);
    node.open(&cy, &[of(1, 250)], false);
    assert_eq!(cy.reads(), "subscribed");
    node.publish(&[stored(1, 251)]);
    let missing = node.expect_question(&[of(0, 301)]);
    node.local.fill(&missing, &page_of(1, 250, 251..=251));
    assert!(ana.reads().ends_with("reset-to-250 251'1"));
    assert_eq!(cy.reads(), "reset-to-250 251'1");
    node.expect_no_question();
}
