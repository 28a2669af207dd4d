//! Wrong admin tokens are counted and logged, and each further one from an address is answered more slowly.
//!
//! The number of delayed answers is bounded. At the bound, a request from an address with wrong tokens is
//! refused without a check, even if its token is right. Otherwise many connections at once could guess as
//! fast as without any delay.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep};
use tracing::warn;

use switchboard_contract::types::Problem;
use switchboard_core::limits::{
    ADMIN_ATTEMPT_DELAY_MAX, ADMIN_ATTEMPT_DELAY_MIN, ADMIN_ATTEMPTS_ADDRESSES_MAX,
    ADMIN_ATTEMPTS_DELAYED_MAX, ADMIN_ATTEMPTS_FORGOTTEN_AFTER, ADMIN_ATTEMPTS_LOGGED_EVERY,
};
use switchboard_http::http_server::slots::Address;
use switchboard_protocol::wire::problem::Code;

pub(super) struct Attempts {
    known: Mutex<Addresses>,
    delayed: Semaphore,
}

/// One token that is being checked.
pub(super) struct Attempt<'a> {
    attempts: &'a Attempts,
    remote: IpAddr,
    /// Set for an address with wrong tokens.
    permit: Option<SemaphorePermit<'a>>,
}

#[derive(Default)]
struct Addresses {
    addresses: HashMap<Address, Wrong>,
    logged_at: Option<Instant>,
    /// The number of wrong tokens since the last log line.
    unlogged: u64,
}

struct Wrong {
    times: u32,
    last: Instant,
}

impl Default for Attempts {
    fn default() -> Self {
        Self { known: Mutex::default(), delayed: Semaphore::new(ADMIN_ATTEMPTS_DELAYED_MAX) }
    }
}

impl Attempts {
    /// Checks whether a token from this address may be tried now. An address with wrong tokens gets the
    /// permit of a delayed answer before its token is checked, so it never has more checks in progress than
    /// answers can be delayed.
    pub(super) fn may_try(&self, remote: IpAddr) -> Result<Attempt<'_>, Problem> {
        if !self.lock().is_suspect(remote.into(), Instant::now()) {
            return Ok(Attempt { attempts: self, remote, permit: None });
        }
        if let Ok(permit) = self.delayed.try_acquire() {
            return Ok(Attempt { attempts: self, remote, permit: Some(permit) });
        }
        metrics::counter!("switchboard_admin_tokens_refused_total", "why" => "unread").increment(1);
        let detail = "too many wrong admin tokens came from this address; this token was not checked";
        Err(Code::RateLimited.problem(detail).retry_after(ADMIN_ATTEMPT_DELAY_MAX))
    }

    fn lock(&self) -> MutexGuard<'_, Addresses> {
        self.known.lock()
    }
}

impl Attempt<'_> {
    /// Counts a wrong token, and waits until the answer may be sent.
    pub(super) async fn was_wrong(self) {
        metrics::counter!("switchboard_admin_tokens_refused_total", "why" => "wrong").increment(1);
        let (now, remote) = (Instant::now(), self.remote);
        let (delay, logged) = {
            let mut known = self.attempts.lock();
            (known.wrong(remote.into(), now), known.log(now))
        };
        if let Some(count) = logged {
            warn!(%remote, count, "refused a request to the admin listener: its token is not an admin token");
        }
        // Without a permit, other answers are already delayed, and the next request of this address is
        // refused without a check.
        if let Some(_permit) = self.permit.or_else(|| self.attempts.delayed.try_acquire().ok()) {
            sleep(delay).await;
        }
    }
}

impl Addresses {
    fn is_suspect(&self, address: Address, now: Instant) -> bool {
        self.addresses.get(&address).is_some_and(|wrong| wrong.counts(now))
    }

    /// Returns how long the answer is delayed.
    fn wrong(&mut self, address: Address, now: Instant) -> Duration {
        if self.addresses.len() >= ADMIN_ATTEMPTS_ADDRESSES_MAX && !self.addresses.contains_key(&address) {
            self.addresses.retain(|_, wrong| wrong.counts(now));
            let oldest =
                self.addresses.iter().min_by_key(|(_, wrong)| wrong.last).map(|(address, _)| *address);
            if let Some(oldest) = oldest.filter(|_| self.addresses.len() >= ADMIN_ATTEMPTS_ADDRESSES_MAX) {
                self.addresses.remove(&oldest);
            }
        }
        let wrong = self.addresses.entry(address).or_insert(Wrong { times: 0, last: now });
        if !wrong.counts(now) {
            wrong.times = 0;
        }
        let delay = ADMIN_ATTEMPT_DELAY_MIN * 2u32.saturating_pow(wrong.times.min(16));
        wrong.times += 1;
        wrong.last = now;
        delay.min(ADMIN_ATTEMPT_DELAY_MAX)
    }

    /// Returns the number of wrong tokens since the last log line, when it is time for another line.
    fn log(&mut self, now: Instant) -> Option<u64> {
        self.unlogged += 1;
        if self.logged_at.is_some_and(|at| now.duration_since(at) < ADMIN_ATTEMPTS_LOGGED_EVERY) {
            return None;
        }
        self.logged_at = Some(now);
        Some(std::mem::take(&mut self.unlogged))
    }
}

impl Wrong {
    fn counts(&self, now: Instant) -> bool {
        now.duration_since(self.last) < ADMIN_ATTEMPTS_FORGOTTEN_AFTER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANA: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const BO: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    #[test]
    fn every_further_wrong_token_of_an_address_waits_longer_up_to_a_bound() {
        let (mut known, now) = (Addresses::default(), Instant::now());
        let delays: Vec<_> = (0..10).map(|_| known.wrong(ANA.into(), now).as_millis()).collect();
        assert_eq!(delays, [50, 100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000]);
        assert_eq!(known.wrong(BO.into(), now), ADMIN_ATTEMPT_DELAY_MIN);
        let later = now + ADMIN_ATTEMPTS_FORGOTTEN_AFTER;
        assert!(known.is_suspect(ANA.into(), now) && !known.is_suspect(ANA.into(), later));
        assert_eq!(known.wrong(ANA.into(), later), ADMIN_ATTEMPT_DELAY_MIN);
    }

    #[test]
    fn addresses_are_bounded_and_the_log_has_a_line_a_second() {
        let (mut known, now) = (Addresses::default(), Instant::now());
        for number in 0..2 * ADMIN_ATTEMPTS_ADDRESSES_MAX as u32 {
            let address = IpAddr::from(number.to_be_bytes());
            known.wrong(address.into(), now + Duration::from_micros(number.into()));
        }
        assert_eq!(known.addresses.len(), ADMIN_ATTEMPTS_ADDRESSES_MAX);
        assert_eq!([known.log(now), known.log(now), known.log(now)], [Some(1), None, None]);
        assert_eq!(known.log(now + ADMIN_ATTEMPTS_LOGGED_EVERY), Some(3));
    }

    #[tokio::test]
    async fn guesses_in_parallel_are_not_looked_at_and_other_addresses_are() {
        let attempts = Attempts::default();
        let began = Instant::now();
        // Two requests arrive together, before the first wrong token is known.
        let (first, second) = (attempts.may_try(ANA).unwrap(), attempts.may_try(ANA).unwrap());
        first.was_wrong().await;
        assert!(began.elapsed() >= ADMIN_ATTEMPT_DELAY_MIN);
        // The tokens of a suspect address that are being checked count before they are found to be wrong.
        let checked: Vec<_> = std::iter::from_fn(|| attempts.may_try(ANA).ok()).collect();
        assert_eq!(checked.len(), ADMIN_ATTEMPTS_DELAYED_MAX);
        assert_eq!(attempts.may_try(ANA).err().map(|problem| problem.status), Some(429));
        assert!(attempts.may_try(BO).is_ok());
        // At the bound, a further answer is not delayed.
        second.was_wrong().await;
        // A right token returns its permit at once.
        drop(checked);
        assert!(attempts.may_try(ANA).is_ok());
    }
}
