//! Whether this node can do its work, and what is in the way. Each check asks the thing itself, each time.

use std::collections::BTreeMap;
use std::pin::Pin;

use futures_util::future::join_all;
use serde::Serialize;
use tokio::time::timeout;

use crate::limits;

type Answer = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// What must hold for a node to take traffic; filled where the parts are known.
#[derive(Default)]
pub struct Readiness {
    checks: Vec<(&'static str, Probe)>,
}

type Probe = Box<dyn Fn() -> Answer + Send + Sync>;

#[derive(Serialize)]
pub struct Report {
    pub ready: bool,
    /// `ok`, or why not.
    pub checks: BTreeMap<&'static str, String>,
}

impl Readiness {
    /// The error is the reason, for an operator.
    pub fn check<F, A>(mut self, name: &'static str, probe: F) -> Self
    where
        F: Fn() -> A + Send + Sync + 'static,
        A: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.checks.push((name, Box::new(move || Box::pin(probe()))));
        self
    }

    /// All at once; one that does not answer in time has failed.
    pub async fn report(&self) -> Report {
        let asked = self.checks.iter().map(|(name, probe)| async move {
            let answer = timeout(limits::READY_WAITS, probe()).await;
            (*name, answer.unwrap_or_else(|_| Err("no answer in time".to_owned())))
        });
        let answers = join_all(asked).await;
        Report {
            ready: answers.iter().all(|(_, answer)| answer.is_ok()),
            checks: answers
                .into_iter()
                .map(|(name, answer)| (name, answer.err().unwrap_or_else(|| "ok".to_owned())))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_check_that_fails_or_hangs_is_enough_and_is_named() {
        let fine = Readiness::default().check("postgres", || async { Ok(()) });
        assert!(fine.report().await.ready);

        let report = fine
            .check("redis", || async { Err("connection refused".to_owned()) })
            .check("bus", std::future::pending)
            .report()
            .await;
        assert!(!report.ready);
        let said: Vec<_> = report.checks.into_iter().collect();
        assert_eq!(
            said,
            [
                ("bus", "no answer in time".to_owned()),
                ("postgres", "ok".to_owned()),
                ("redis", "connection refused".to_owned())
            ]
        );
    }
}
