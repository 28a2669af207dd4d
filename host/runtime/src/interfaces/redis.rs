//! `redis`: commands and scripts of the release. Every key must match a pattern of the manifest.
//! `redis::keys` knows which arguments of a command are keys.

use serde::Serialize;

use super::call::Function;
use super::{CallState, Terms};
use switchboard_contract::redis::{self, Error, Node, ScriptRun};
use switchboard_core::manifest::Pattern;
use switchboard_redis::{Script, keys};

#[derive(Serialize)]
struct Command<'a> {
    args: &'a [String],
}

#[derive(Serialize)]
struct Commands<'a> {
    commands: &'a [Vec<String>],
}

#[derive(Serialize)]
struct ScriptCall<'a> {
    name: &'a str,
    keys: &'a [String],
    args: &'a [String],
}

#[derive(Serialize)]
struct ScriptCalls<'a> {
    name: &'a str,
    runs: &'a [ScriptRun],
}

impl redis::Host for CallState {
    async fn command(&mut self, args: Vec<String>) -> wasmtime::Result<Result<Vec<Node>, Error>> {
        let (redis, grants, deadline) = (&self.backends.redis, &self.terms.grants.redis, self.deadline);
        let live = async {
            granted(grants, &args)?;
            match redis {
                Some(redis) => redis.command(&args, deadline).await,
                None => Err(Error::Unavailable),
            }
        };
        self.middleware.call(Function::RedisCommand, &Command { args: &args }, live).await
    }

    async fn pipeline(
        &mut self,
        commands: Vec<Vec<String>>,
    ) -> wasmtime::Result<Result<Vec<Vec<Node>>, Error>> {
        let (redis, grants, deadline) = (&self.backends.redis, &self.terms.grants.redis, self.deadline);
        let live = async {
            // All commands are checked before the first one runs. Otherwise a refused pipeline would be half
            // done.
            commands.iter().try_for_each(|args| granted(grants, args))?;
            match redis {
                Some(redis) => redis.pipeline(&commands, deadline).await,
                None => Err(Error::Unavailable),
            }
        };
        self.middleware.call(Function::RedisPipeline, &Commands { commands: &commands }, live).await
    }

    async fn script(
        &mut self,
        name: String,
        keys: Vec<String>,
        args: Vec<String>,
    ) -> wasmtime::Result<Result<Vec<Node>, Error>> {
        let (redis, terms, deadline) = (&self.backends.redis, &self.terms, self.deadline);
        let live = async {
            let script = script_of(terms, &name)?;
            keys.iter().try_for_each(|key| key_granted(&terms.grants.redis, key))?;
            match redis {
                Some(redis) => redis.script(script, &keys, &args, deadline).await,
                None => Err(Error::Unavailable),
            }
        };
        let asked = ScriptCall { name: &name, keys: &keys, args: &args };
        self.middleware.call(Function::RedisScript, &asked, live).await
    }

    async fn scripts(
        &mut self,
        name: String,
        runs: Vec<ScriptRun>,
    ) -> wasmtime::Result<Result<Vec<Vec<Node>>, Error>> {
        let (redis, terms, deadline) = (&self.backends.redis, &self.terms, self.deadline);
        let live = async {
            let script = script_of(terms, &name)?;
            // The keys of all runs are checked before the first run.
            let mut keys = runs.iter().flat_map(|run| &run.keys);
            keys.try_for_each(|key| key_granted(&terms.grants.redis, key))?;
            match redis {
                Some(redis) => redis.scripts(script, &runs, deadline).await,
                None => Err(Error::Unavailable),
            }
        };
        let asked = ScriptCalls { name: &name, runs: &runs };
        self.middleware.call(Function::RedisScripts, &asked, live).await
    }
}

fn script_of<'a>(terms: &'a Terms, name: &str) -> Result<&'a Script, Error> {
    terms.scripts.get(name).ok_or_else(|| Error::Refused(format!("the release has no script `{name}`")))
}

fn granted(grants: &[Pattern], args: &[String]) -> Result<(), Error> {
    let keys = keys::of(args).map_err(|refused| Error::Refused(refused.to_string()))?;
    keys.iter().try_for_each(|key| key_granted(grants, key))
}

fn key_granted(grants: &[Pattern], key: &str) -> Result<(), Error> {
    if grants.iter().any(|pattern| pattern.matches(key)) {
        return Ok(());
    }
    Err(Error::Refused(format!("the key `{}` is not granted", key.escape_debug())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_a_command_must_be_granted() {
        let grants: Vec<Pattern> =
            ["rate:*", "list"].map(|text| serde_json::from_value(text.into()).unwrap()).into();
        let check = |command: &str| {
            let args: Vec<String> = command.split(' ').map(str::to_owned).collect();
            granted(&grants, &args)
        };
        check("INCR rate:ana").unwrap();
        check("MGET rate:ana list").unwrap();
        for bad in
            ["INCR rates", "MGET rate:ana other", "DEL lists", "KEYS rate:*", "FLUSHALL", "EVAL x 0", "GET"]
        {
            assert!(matches!(check(bad), Err(Error::Refused(_))), "{bad}");
        }
        assert!(matches!(granted(&grants, &[]), Err(Error::Refused(_))));
    }
}
