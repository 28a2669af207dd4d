//! Resolves the names of hosts. The resolver of the operating system blocks a thread for each name, also long
//! after nobody waits any more. So the names that are being resolved are bounded, for each handler too: the
//! slow names of one handler must not take the threads of the others. Fetches of one handler that need the
//! same name at the same time share one resolution.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use switchboard_contract::fetch::Error;
use switchboard_core::limits;

/// Finds the addresses of a name. Tests have their own.
pub(super) trait Resolve: Send + Sync + 'static {
    fn resolve(&self, name: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;
}

/// The resolver of the operating system.
pub(super) struct System;

impl Resolve for System {
    fn resolve(&self, name: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}

/// A name that a handler asks for.
type Question = (Arc<str>, String);
/// The addresses of a name, which all who wait for it get. `None` if it has none.
type Answer = Shared<BoxFuture<'static, Option<Arc<[IpAddr]>>>>;

pub(super) struct Resolver {
    resolve: Arc<dyn Resolve>,
    under_way: Arc<Mutex<HashMap<Question, Answer>>>,
}

impl Resolver {
    pub(super) fn new(resolve: Arc<dyn Resolve>) -> Self {
        Self { resolve, under_way: Arc::default() }
    }

    /// Returns all addresses of the name, as the resolver found them. They are not checked.
    ///
    /// # Errors
    /// `Busy` at a bound, and `Unavailable`.
    pub(super) async fn addresses(
        &self,
        handler: &Arc<str>,
        name: &str,
        deadline: Instant,
    ) -> Result<Arc<[IpAddr]>, Error> {
        let answer = self.ask(handler, name).ok_or(Error::Busy)?;
        let until = deadline.min(Instant::now() + limits::FETCH_RESOLVE_WAIT);
        match timeout_at(until, answer).await {
            Err(_) => Err(Error::Unavailable(format!("the name {name} was not resolved in time"))),
            Ok(Some(found)) if !found.is_empty() => Ok(found),
            Ok(_) => Err(Error::Unavailable(format!("no address for {name}"))),
        }
    }

    /// The resolution of the name that is under way, or a new one; `None` at a bound.
    fn ask(&self, handler: &Arc<str>, name: &str) -> Option<Answer> {
        let question: Question = (handler.clone(), name.to_owned());
        let mut under_way = self.under_way.lock();
        if let Some(answer) = under_way.get(&question) {
            return Some(answer.clone());
        }
        let of_handler = under_way.keys().filter(|(asking, _)| asking == handler).count();
        let (most, most_of_handler) = (limits::FETCH_RESOLVES_MAX, limits::FETCH_RESOLVES_PER_HANDLER_MAX);
        if under_way.len() >= most || of_handler >= most_of_handler {
            return None;
        }
        let resolving = self.resolve.resolve(name.to_owned());
        let place = Place { under_way: self.under_way.clone(), question: question.clone() };
        // A task of its own: it holds the place as long as the thread is blocked, also when nobody waits.
        let resolving = tokio::spawn(async move {
            let found = resolving.await;
            drop(place);
            found
        });
        let answer = async move {
            match resolving.await {
                Ok(Ok(found)) => Some(Arc::<[IpAddr]>::from(found)),
                Ok(Err(error)) => {
                    debug!(%error, "a name could not be resolved");
                    None
                }
                Err(error) => {
                    debug!(%error, "the task that resolves a name has ended without an answer");
                    None
                }
            }
        };
        let answer: Answer = answer.boxed().shared();
        under_way.insert(question, answer.clone());
        Some(answer)
    }
}

/// The place of a resolution among those that are under way. Dropping it gives it back.
struct Place {
    under_way: Arc<Mutex<HashMap<Question, Answer>>>,
    question: Question,
}

impl Drop for Place {
    fn drop(&mut self) {
        // The answer is dropped after the lock is released.
        let _answer = self.under_way.lock().remove(&self.question);
    }
}
