//! Waiting for a state, never for a moment. Every wait has one deadline and says what it waited for.

use std::fmt::Display;
use std::time::Duration;

use tokio::time::Instant;

/// Far longer than anything takes on a loaded machine; only a broken test waits it out.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks at a state that can not tell of its own change.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// A look that began in time may end so much later: on a loaded machine one takes long, and its answer
/// counts.
const LAST_LOOK: Duration = Duration::from_secs(10);

/// Looks until `probe` has an answer.
///
/// # Panics
/// When there is none within [`PATIENCE`].
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
        // A probe that hangs is no answer either.
        match tokio::time::timeout_at(deadline + LAST_LOOK, probe()).await {
            Ok(Some(answer)) => return answer,
            Ok(None) => assert!(Instant::now() < deadline, "waited {patience:?} in vain: {what}"),
            Err(_) => panic!("waited {patience:?} in vain, the last look did not end: {what}"),
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
