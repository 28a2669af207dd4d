//! What the admin API does, endpoint by endpoint.

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap};
use serde_json::{Map, Value, json};
use tokio::time::timeout;
use tracing::{info, warn};

use super::roles::Role;
use super::route::Endpoint;
use super::{Admin, Asked, disconnect};
use crate::contract::types::Problem;
use crate::ids::Digest;
use crate::limits;
use crate::manifest::Pattern;
use crate::releases::repository::Error;
use crate::releases::signature::Signature;
use crate::releases::{Beside, Load, Refused};
use crate::wire::close::Close;
use crate::wire::http::{self, Answer};
use crate::wire::problem::Code;

/// Signatures of the release that is uploaded, separated by commas, each as its line in a `.sig` file.
pub const SIGNATURE: &str = "x-release-signature";

impl<L: Load> Admin<L> {
    pub(super) async fn perform(&self, endpoint: Endpoint, asked: Asked) -> Result<Answer, Problem> {
        let repository = self.rollout.repository();
        match endpoint {
            // Answered before anyone was asked who they are.
            Endpoint::Healthz | Endpoint::Readyz | Endpoint::Metrics | Endpoint::Console(_) => {
                Err(Code::NotFound.problem("there is nothing here"))
            }
            Endpoint::Releases => {
                let only_current = asked.flag("current")?;
                let listed = repository.releases(asked.parameter("handler"), only_current);
                let releases = listed.await.map_err(unavailable)?;
                Ok(asked.json(&json!({ "releases": releases })))
            }
            Endpoint::History => {
                let history = repository.history(asked.parameter("handler")).await.map_err(unavailable)?;
                Ok(asked.json(&json!({ "history": history })))
            }
            Endpoint::Nodes => {
                let nodes = repository.nodes().await.map_err(unavailable)?;
                Ok(asked.json(&json!({ "nodes": nodes, "self": self.rollout.node.to_string() })))
            }
            Endpoint::ReleaseFile(hex) => self.release_file(&hex, &asked).await,
            Endpoint::Deploy => self.deploy(asked).await,
            Endpoint::Rollback(handler) => self.rollback(&handler, asked).await,
            Endpoint::Promote(handler) => self.promote(&handler, asked).await,
            Endpoint::Retire(handler) => self.retire(&handler, asked).await,
            Endpoint::Unshadow(handler) => self.unshadow(&handler, asked).await,
            Endpoint::Shadows(handler) => {
                let mut shadows = repository.shadows(&handler).await.map_err(unavailable)?;
                if asked.by.role < Role::Deploy {
                    // They quote what users were answered.
                    shadows.iter_mut().for_each(|shadow| shadow.examples.clear());
                }
                Ok(asked.json(&json!({ "shadows": shadows })))
            }
            Endpoint::FirstFailure(generation) => {
                let none = || Code::NotFound.problem("no trace is kept of this generation");
                let generation = generation.parse().map_err(|_| none())?;
                let trace = repository.trace(generation).await.map_err(unavailable)?.ok_or_else(none)?;
                Ok(http::answer(200, "text/plain; charset=utf-8", trace, &asked.id))
            }
            Endpoint::Consumers => self.consumers(&asked).await,
            Endpoint::Events => self.failed_events(&asked).await,
            Endpoint::RetryEvent(id) => self.retry_event(&id, &asked).await,
            Endpoint::DropEvent(id) => self.drop_event(&id, &asked).await,
            Endpoint::Disconnect => self.disconnect(asked).await,
            Endpoint::Forget => self.forget(asked).await,
            Endpoint::Handler => self.ask_handler(asked).await,
            Endpoint::Revoke => self.revoke(asked).await,
            Endpoint::Tokens => self.tokens(&asked).await,
            Endpoint::MakeToken => self.make_token(asked).await,
            Endpoint::RevokeToken(name) => self.revoke_token(&name, &asked).await,
            Endpoint::Audit => self.audit(&asked).await,
        }
    }

    async fn release_file(&self, hex: &str, asked: &Asked) -> Result<Answer, Problem> {
        let digest = self.rollout.find(None, hex).await.map_err(refused)?;
        let file = self.rollout.repository().file(digest).await.map_err(unavailable)?;
        let file = file.ok_or_else(|| Code::NotFound.problem("no such release"))?;
        Ok(http::answer(200, "application/wasm", file, &asked.id))
    }

    async fn deploy(&self, asked: Asked) -> Result<Answer, Problem> {
        let note = match asked.parameter("note") {
            Some(note) => Some(a_note(note)?),
            None => None,
        };
        let beside = beside(&asked)?;
        let Ok(_place) = self.deploys.try_acquire() else {
            let several = "several deploys are under way on this node";
            return Err(Code::Unavailable.problem(several).retry_after_ms(1000));
        };
        let signatures = signatures_in(&asked.headers)?;
        let upload = http::read_body(&asked.headers, asked.body, limits::RELEASE_BYTES_MAX);
        let file = timeout(limits::UPLOAD_WAITS, upload)
            .await
            .unwrap_or_else(|_| Err(Code::Malformed.problem("the file did not arrive in time")))?;
        let digest = Digest::of(&file);
        let how = match beside {
            None => String::new(),
            Some(Beside::Canary(percent)) => format!(", canary {percent} %"),
            Some(Beside::Shadow(percent)) => format!(", shadow {percent} %"),
        };
        let detail = asked.detail.clone();
        detail.say(format!("{}{how}", digest.short()));
        if !signatures.is_empty() {
            if !signatures.iter().all(|signature| signature.is_of(digest)) {
                return Err(no_signature("a signature is not of this file"));
            }
            let repository = self.rollout.repository();
            repository.keep_signatures(digest, &signatures, &asked.by.name).await.map_err(unavailable)?;
        }
        let (by, note) = (&asked.by.name, note.as_deref());
        let outcome = match beside {
            None => self.rollout.deploy(file, by, note).await,
            Some(how) => self.rollout.try_out(file, how, by, note).await,
        };
        let outcome = outcome.map_err(refused)?;
        detail.say(format!("{} {}{how}", outcome.name, digest.short()));
        Ok(http::json(200, &outcome, &asked.id))
    }

    async fn promote(&self, handler: &str, asked: Asked) -> Result<Answer, Problem> {
        let (id, by) = (asked.id.clone(), asked.by.name.clone());
        let detail = asked.detail.clone();
        let fields = asked.fields().await?;
        let (release, note) = (text(&fields, "release")?, text(&fields, "note")?);
        let note = note.as_deref().map(a_note).transpose()?;
        let promoted = self.rollout.promote(handler, release.as_deref(), &by, note.as_deref());
        let promoted = promoted.await.map_err(refused)?;
        detail.say(promoted.digest.short());
        Ok(http::json(200, &promoted, &id))
    }

    async fn unshadow(&self, handler: &str, asked: Asked) -> Result<Answer, Problem> {
        let (id, by) = (asked.id.clone(), asked.by.name.clone());
        let note = text(&asked.fields().await?, "note")?;
        let note = note.as_deref().map(a_note).transpose()?;
        let ended = self.rollout.unshadow(handler, &by, note.as_deref());
        Ok(http::json(200, &ended.await.map_err(refused)?, &id))
    }

    async fn retire(&self, handler: &str, asked: Asked) -> Result<Answer, Problem> {
        let (id, by) = (asked.id.clone(), asked.by.name.clone());
        let detail = asked.detail.clone();
        let note = text(&asked.fields().await?, "note")?;
        let note = note.as_deref().map(a_note).transpose()?;
        let retired = self.rollout.retire(handler, &by, note.as_deref()).await.map_err(refused)?;
        detail.say(retired.digest.short());
        Ok(http::json(200, &retired, &id))
    }

    async fn rollback(&self, handler: &str, asked: Asked) -> Result<Answer, Problem> {
        let (id, by) = (asked.id.clone(), asked.by.name.clone());
        let detail = asked.detail.clone();
        let fields = asked.fields().await?;
        let (release, note) = (text(&fields, "release")?, text(&fields, "note")?);
        let note = note.as_deref().map(a_note).transpose()?;
        let back = self.rollout.rollback(handler, release.as_deref(), &by, note.as_deref());
        let back = back.await.map_err(refused)?;
        detail.say(back.digest.short());
        Ok(http::json(200, &back, &id))
    }

    /// Answered once every node has been told; how many connections that closes nobody counts.
    async fn disconnect(&self, asked: Asked) -> Result<Answer, Problem> {
        let (id, by) = (asked.id.clone(), asked.by.name.clone());
        let detail = asked.detail.clone();
        let target = disconnect::target(&asked.fields().await?)?;
        detail.say(disconnect::said(&target));
        info!(request.id = %id, by, ?target, "an operator disconnects");
        self.hub.disconnect(&target, &Close::DISCONNECTED).await.map_err(|_| {
            let told = "closed on this node; the others could not be told, ask again";
            Code::Unavailable.problem(told).retry_after_ms(1000)
        })?;
        Ok(http::json(202, &json!({ "told": true }), &id))
    }

    /// `{"keys": ["page:*"]}`: what Redis holds under these names comes back from Postgres.
    async fn forget(&self, asked: Asked) -> Result<Answer, Problem> {
        let (id, detail) = (asked.id.clone(), asked.detail.clone());
        let wrong = || {
            let rule = format!(
                "`keys` is a list of 1 to {} names or patterns `name:*`",
                limits::FORGET_PATTERNS_MAX
            );
            Code::Invalid.problem(rule).field("keys")
        };
        let keys = asked.fields().await?.remove("keys").ok_or_else(wrong)?;
        let patterns: Vec<Pattern> = serde_json::from_value(keys).map_err(|_| wrong())?;
        if !(1..=limits::FORGET_PATTERNS_MAX).contains(&patterns.len()) {
            return Err(wrong());
        }
        let named: Vec<&str> = patterns.iter().map(Pattern::as_str).collect();
        detail.say(format!("keys {}", named.join(" ")));
        let forgotten = self.redis.forget(&patterns).await.map_err(|error| {
            warn!(?error, "keys in Redis were not deleted");
            Code::Unavailable.problem("Redis did not delete the keys; ask again").retry_after_ms(1000)
        })?;
        Ok(http::json(200, &json!({ "forgotten": forgotten }), &id))
    }
}

impl Asked {
    pub(super) fn json(&self, document: &Value) -> Answer {
        http::json(200, document, &self.id)
    }

    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.parameter(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Code::Invalid.problem(format!("`{name}` is true or false")).field(name)),
        }
    }

    /// The body as an object; no body is an empty one.
    pub(super) async fn fields(mut self) -> Result<Map<String, Value>, Problem> {
        let body = self.read_body().await?;
        if body.is_empty() {
            return Ok(Map::new());
        }
        match serde_json::from_slice(&body) {
            Ok(Value::Object(fields)) => Ok(fields),
            Ok(_) => Err(Code::Malformed.problem("the body is not a JSON object")),
            Err(error) => Err(Code::Malformed.problem(format!("the body is not JSON: {error}"))),
        }
    }

    /// Whole, and JSON by what it says of itself, or empty.
    pub(super) async fn read_body(&mut self) -> Result<Bytes, Problem> {
        let says_json =
            |value: &str| value.split(';').next().is_some_and(|kind| kind.trim() == "application/json");
        let kind = self.headers.get(CONTENT_TYPE).map(|value| value.to_str().is_ok_and(says_json));
        let reading = http::read_body(&self.headers, &mut self.body, limits::BODY_BYTES_MAX);
        let body = timeout(limits::UPLOAD_WAITS, reading)
            .await
            .unwrap_or_else(|_| Err(Code::Malformed.problem("the body did not arrive in time")))?;
        if kind == Some(false) && !body.is_empty() {
            return Err(Code::UnsupportedMediaType.problem("the body is application/json"));
        }
        Ok(body)
    }
}

/// `?canary=10` or `?shadow=10`, in percent; neither is a deploy for everybody.
fn beside(asked: &Asked) -> Result<Option<Beside>, Problem> {
    let percent = |name: &str, most: u8| {
        let Some(text) = asked.parameter(name) else { return Ok(None) };
        let percent = text.strip_suffix('%').unwrap_or(text).parse::<u8>().ok();
        let rule = || Code::Invalid.problem(format!("`{name}` is 1 to {most}, in percent")).field(name);
        percent.filter(|percent| (1..=most).contains(percent)).map(Some).ok_or_else(rule)
    };
    match (percent("canary", 99)?, percent("shadow", 100)?) {
        (None, None) => Ok(None),
        (Some(percent), None) => Ok(Some(Beside::Canary(percent))),
        (None, Some(percent)) => Ok(Some(Beside::Shadow(percent))),
        (Some(_), Some(_)) => {
            Err(Code::Invalid.problem("a release is either a canary or a shadow").field("shadow"))
        }
    }
}

/// Beside the file, so that its digest stays what it is.
fn signatures_in(headers: &HeaderMap) -> Result<Vec<Signature>, Problem> {
    let Some(value) = headers.get(SIGNATURE) else { return Ok(Vec::new()) };
    let text = value.to_str().unwrap_or("not text");
    Signature::parse_all(text).ok_or_else(|| no_signature("the header holds something else than signatures"))
}

fn no_signature(what: &str) -> Problem {
    Code::Invalid.problem(what).field(SIGNATURE)
}

/// A text, or nothing where it is absent or null.
pub(super) fn text(fields: &Map<String, Value>, name: &str) -> Result<Option<String>, Problem> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(Code::Invalid.problem(format!("`{name}` is a text")).field(name)),
    }
}

/// Kept for ever and shown in one line.
fn a_note(note: &str) -> Result<String, Problem> {
    let fits = note.chars().count() <= limits::NOTE_CHARS_MAX && !note.chars().any(char::is_control);
    let rule = || format!("`note` has at most {} characters, no line breaks", limits::NOTE_CHARS_MAX);
    fits.then(|| note.to_owned()).ok_or_else(|| Code::Invalid.problem(rule()).field("note"))
}

/// Logged here, once: the asker gets the sentence, the log the cause.
fn unavailable(error: Error) -> Problem {
    refused(Refused::Backend(error))
}

fn refused(refused: Refused) -> Problem {
    let problem = refused.problem();
    let cause = std::error::Error::source(&refused).map(ToString::to_string);
    warn!(error = %refused, cause, status = problem.status, "an operator was refused");
    problem
}
