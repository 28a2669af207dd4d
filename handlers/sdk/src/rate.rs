//! Rate limits with fixed windows, which Redis counts. A window begins with its first call. While Redis is
//! unavailable every call is allowed, because a rate limit only protects users from each other. A handler
//! that uses this module needs three things: `scripts/rate.lua`, a link to `handlers/sdk/scripts/rate.lua`;
//! `rate` under `[scripts]` in its manifest; and the grant `redis = ["rate:WHAT:*"]`.

use crate::{Problem, config, log, redis};

/// The rate limit of one user on one kind of call.
pub struct Window<'a> {
    /// The kind of call; part of the Redis key.
    pub what: &'a str,
    pub user: &'a str,
    /// The calls that one window allows; 0 is no limit.
    pub most: u64,
    pub window_ms: u64,
}

/// The answer to one call.
#[derive(Debug, PartialEq)]
pub enum Verdict {
    /// The call is allowed, and the window has counted it.
    Counted,
    /// The call is allowed and not counted: there is no limit, or Redis is unavailable.
    Uncounted,
    /// The window is full for this many milliseconds.
    Full(u32),
}

impl Window<'_> {
    fn key(&self) -> String {
        format!("rate:{}:{}", self.what, self.user)
    }

    /// Counts one call.
    pub fn count(&self) -> Verdict {
        self.count_with(&[])
    }

    /// Counts one call, with one command if the window is neither new nor full, otherwise with two requests.
    /// For calls that one user makes often: [`Self::count`] always takes one request, of a script with two
    /// commands or more.
    ///
    /// A node that dies between the two requests of a new window leaves a window without end. It allows
    /// `most` calls like any other; the next call then finds that it has no end, and begins a new one.
    pub fn count_frequent(&self) -> Verdict {
        if self.most == 0 {
            return Verdict::Uncounted;
        }
        let key = self.key();
        let counted = match redis::command(&["INCR", &key]) {
            Ok(reply) => reply.integer(),
            // Redis is full. The script knows whether the window is.
            Err(redis::Error::Failed(_)) => return self.count(),
            Err(error) => return uncounted(&error),
        };
        match counted {
            None => Verdict::Uncounted,
            Some(..=1) => {
                if let Err(error) = redis::command(&["PEXPIRE", &key, &self.window_ms.to_string()]) {
                    log::warn("a rate limit has no end yet", &[("why", &redis::describe(&error))]);
                }
                Verdict::Counted
            }
            Some(counted) if counted.unsigned_abs() <= self.most => Verdict::Counted,
            Some(counted) => self.count_with(&["1", &counted.to_string()]),
        }
    }

    /// Counts one call as `calls`. If the window is not full yet, all of them are allowed.
    pub fn count_as(&self, calls: usize) -> Verdict {
        self.count_with(&[&calls.to_string()])
    }

    /// `more` are the arguments of the script after the first two.
    fn count_with(&self, more: &[&str]) -> Verdict {
        if self.most == 0 {
            return Verdict::Uncounted;
        }
        let (most, window) = (self.most.to_string(), self.window_ms.to_string());
        let args = [&[most.as_str(), &window], more].concat();
        match redis::script("rate", &[&self.key()], &args) {
            Ok(reply) => match reply.integer() {
                Some(0) => Verdict::Counted,
                Some(wait_ms) => Verdict::Full(u32::try_from(wait_ms).unwrap_or(1000)),
                None => Verdict::Uncounted,
            },
            Err(error) => uncounted(&error),
        }
    }

    /// Takes one counted call back, for instance because it was a retry of an earlier one.
    pub fn uncount(&self) {
        // If Redis fails, the user has one call less in this window.
        let _ = redis::script("rate", &[&self.key()], &[]);
    }
}

fn uncounted(error: &redis::Error) -> Verdict {
    log::warn("rate limit not counted", &[("why", &redis::describe(error))]);
    Verdict::Uncounted
}

impl Verdict {
    /// Returns `rate_limited` if the window is full.
    pub fn or_refuse(self) -> Result<(), Problem> {
        match self {
            Self::Counted | Self::Uncounted => Ok(()),
            Self::Full(wait_ms) => Err(Problem::rate_limited(wait_ms)),
        }
    }
}

/// Counts one call of `what` by `user`. Returns `rate_limited` if the user has reached the limit of the
/// current minute. `setting` names the limit; 0 is no limit.
pub fn per_minute(what: &str, user: &str, setting: &str, default: u64) -> Result<(), Problem> {
    Window { what, user, most: most(setting, default), window_ms: 60_000 }.count().or_refuse()
}

/// The limit that a setting states.
pub fn most(setting: &str, default: u64) -> u64 {
    config::number(setting, default)
}
