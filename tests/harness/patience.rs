//! Waiting for a state, never for a time. Every wait has one deadline, and its failure names the state.

use std::fmt::Display;
use std::time::Duration;

use tokio::time::Instant;

/// Far longer than any wait on a loaded machine; only a broken test reaches it.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// Interval between two checks of a state that has no notification of changes.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// A check that began in time may end this much later: on a loaded machine it takes long, and its answer
/// counts.
const LAST_LOOK: Duration = Duration::from_secs(10);

/// Checks until `probe` has an answer.
///
/// # Panics
/// If the probe returns no value within [`PATIENCE`].
pub async fn until<T>(what: impl Display, probe: impl AsyncFnMut() -> Option<T>) -> T {
    within(PATIENCE, what, probe).await
}

pub async fn within<T>(
    patience: Duration,
    what: impl Display,
    mut probe: impl AsyncFnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + patience;
    loop {
        // A hanging probe is a failure too.
        match tokio::time::timeout_at(deadline + LAST_LOOK, probe()).await {
            Ok(Some(answer)) => return answer,
            Ok(None) => assert!(Instant::now() < deadline, "waited {patience:?} in vain: {what}"),
            Err(_) => panic!("waited {patience:?} in vain, the last look did not end: {what}"),
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
