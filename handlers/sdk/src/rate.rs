//! Fixed windows, counted in Redis from the first call of a window. Without Redis everything is allowed: a limit is a
//! courtesy to the others, not a truth. A handler that uses it has the script `rate` in its manifest, a link to
//! `handlers/sdk/scripts/rate.lua`, and the grant `redis = ["rate:WHAT:*"]`.

use crate::{Problem, config, log, redis};

pub struct Window<'a> {
    /// What is counted: part of the key.
    pub what: &'a str,
    pub user: &'a str,
    /// 0 is no limit.
    pub most: u64,
    pub window_ms: u64,
}

/// What became of a request for a place in the window.
#[derive(Debug, PartialEq)]
pub enum Place {
    /// Counted.
    Taken,
    /// Not counted: there is no limit, or Redis is away.
    Free,
    /// Full until so many milliseconds from now.
    Full(u32),
}

impl Window<'_> {
    fn key(&self) -> String {
        format!("rate:{}:{}", self.what, self.user)
    }

    pub fn take(&self) -> Place {
        if self.most == 0 {
            return Place::Free;
        }
        let (most, window) = (self.most.to_string(), self.window_ms.to_string());
        match redis::script("rate", &[&self.key()], &[&most, &window]) {
            Ok(reply) => match reply.integer() {
                Some(0) => Place::Taken,
                Some(wait_ms) => Place::Full(u32::try_from(wait_ms).unwrap_or(1000)),
                None => Place::Free,
            },
            Err(error) => {
                log::warn("rate limit not counted", &[("why", &redis::describe(&error))]);
                Place::Free
            }
        }
    }

    /// The place was not needed after all: a replay is free.
    pub fn give_back(&self) {
        // Lost with Redis at worst: the user has one call less in this window.
        let _ = redis::script("rate", &[&self.key()], &[]);
    }
}

impl Place {
    pub fn or_refuse(self) -> Result<(), Problem> {
        match self {
            Self::Taken | Self::Free => Ok(()),
            Self::Full(wait_ms) => Err(Problem::rate_limited(wait_ms)),
        }
    }
}

/// Counts one call of `what` by `user` in the running minute; refuses it when the setting's number is reached. 0 is no limit.
pub fn per_minute(what: &str, user: &str, setting: &str, default: u64) -> Result<(), Problem> {
    Window { what, user, most: most(setting, default), window_ms: 60_000 }.take().or_refuse()
}

/// The setting that names how many calls of `what` a user has.
pub fn most(setting: &str, default: u64) -> u64 {
    config::number(setting, default)
}
