//! The endpoints of the admin API.

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap};
use serde_json::{Map, Value, json};
use tokio::time::timeout;
use tracing::{info, warn};

use super::fields::text;
use super::roles::Role;
use super::route::Endpoint;
use super::{Admin, AdminRequest, disconnect};
use switchboard_contract::types::Problem;
use switchboard_core::ids::Digest;
use switchboard_core::limits;
use switchboard_core::manifest::Pattern;
use switchboard_http::answers::{self, Answer};
use switchboard_postgres as postgres;
use switchboard_protocol::wire::close::Close;
use switchboard_protocol::wire::problem::Code;
use switchboard_releases::repository::RepositoryError;
use switchboard_releases::signature::Signature;
use switchboard_releases::{Deployment, Error, Origin, Outcome, Selection, SelectionError};
use switchboard_runtime::Load;

/// The header with the signatures of the uploaded release, separated by commas, each in the form of a line in
/// a `.sig` file.
pub const SIGNATURE: &str = "x-release-signature";

impl<L: Load> Admin<L> {
    pub(super) async fn perform(&self, endpoint: Endpoint, request: AdminRequest) -> Result<Answer, Problem> {
        let repository = self.rollout.repository();
        match endpoint {
            // Answered before the operator was identified.
            Endpoint::Healthz | Endpoint::Readyz | Endpoint::Metrics | Endpoint::Console(_) => {
                Err(Code::NotFound.problem("this path does not exist"))
            }
            Endpoint::Releases => {
                let only_current = request.flag("current")?;
                let listed = repository.releases(request.parameter("handler"), only_current);
                let releases = listed.await.map_err(unavailable)?;
                Ok(request.json(&json!({ "releases": releases })))
            }
            Endpoint::History => {
                let history = repository.history(request.parameter("handler")).await.map_err(unavailable)?;
                Ok(request.json(&json!({ "history": history })))
            }
            Endpoint::Nodes => {
                let nodes = repository.nodes().await.map_err(unavailable)?;
                Ok(request.json(&json!({ "nodes": nodes, "self": self.rollout.node.to_string() })))
            }
            Endpoint::ReleaseFile(hex) => self.release_file(&hex, &request).await,
            Endpoint::Deploy => self.deploy(request).await,
            Endpoint::Rollback(handler) => {
                let rollback = async |release: Option<&str>, origin: Origin<'_>| {
                    self.rollout.deployer.rollback(&handler, release, origin).await
                };
                change(request, rollback).await
            }
            Endpoint::Promote(handler) => {
                let promote = async |release: Option<&str>, origin: Origin<'_>| {
                    self.rollout.deployer.promote(&handler, release, origin).await
                };
                change(request, promote).await
            }
            Endpoint::Retire(handler) => {
                let retire = async |_: Option<&str>, origin: Origin<'_>| {
                    self.rollout.deployer.retire(&handler, origin).await
                };
                change(request, retire).await
            }
            Endpoint::Unshadow(handler) => {
                let unshadow = async |_: Option<&str>, origin: Origin<'_>| {
                    self.rollout.deployer.unshadow(&handler, origin).await
                };
                change(request, unshadow).await
            }
            Endpoint::Settings(handler) => self.settings(&handler, &request).await,
            Endpoint::SettingsHistory(handler) => self.settings_history(&handler, &request).await,
            Endpoint::ChangeSettings(handler) => self.change_settings(&handler, request).await,
            Endpoint::Shadows(handler) => {
                let mut shadows = repository.shadows(&handler).await.map_err(unavailable)?;
                if request.by.role < Role::Deploy {
                    // They quote answers to users.
                    shadows.iter_mut().for_each(|shadow| shadow.examples.clear());
                }
                Ok(request.json(&json!({ "shadows": shadows })))
            }
            Endpoint::FirstFailure(generation) => {
                let none = || Code::NotFound.problem("no recording is stored for this generation");
                let generation = generation.parse().map_err(|_| none())?;
                let recording =
                    repository.recording(generation).await.map_err(unavailable)?.ok_or_else(none)?;
                Ok(answers::answer(200, "text/plain; charset=utf-8", recording, &request.id))
            }
            Endpoint::Consumers => self.consumers(&request).await,
            Endpoint::Events => self.failed_events(&request).await,
            Endpoint::RetryEvent(id) => self.retry_event(&id, &request).await,
            Endpoint::DropEvent(id) => self.drop_event(&id, &request).await,
            Endpoint::Timers => self.timers(&request).await,
            Endpoint::CancelTimers(handler) => self.cancel_timers(&handler, request).await,
            Endpoint::Disconnect => self.disconnect(request).await,
            Endpoint::Forget => self.forget(request).await,
            Endpoint::Handler => self.ask_handler(request).await,
            Endpoint::Revoke => self.revoke(request).await,
            Endpoint::Tokens => self.tokens(&request).await,
            Endpoint::MakeToken => self.make_token(request).await,
            Endpoint::RevokeToken(name) => self.revoke_token(&name, &request).await,
            Endpoint::Audit => self.audit(&request).await,
            Endpoint::Tail => self.tail(&request).await,
            Endpoint::Secrets => self.secrets(&request).await,
            Endpoint::SetSecret(name) => self.set_secret(&name, request).await,
            Endpoint::RemoveSecret(name) => self.remove_secret(&name, request).await,
        }
    }

    async fn release_file(&self, hex: &str, request: &AdminRequest) -> Result<Answer, Problem> {
        let digest = self.rollout.deployer.find(None, hex).await.map_err(refused)?;
        let file = self.rollout.repository().file(digest).await.map_err(unavailable)?;
        let file = file.ok_or_else(|| Code::NotFound.problem("no such release"))?;
        Ok(answers::answer(200, "application/wasm", file, &request.id))
    }

    async fn deploy(&self, request: AdminRequest) -> Result<Answer, Problem> {
        let note = match request.parameter("note") {
            Some(note) => Some(parse_note(note)?),
            None => None,
        };
        let deployment = deployment(&request)?;
        let Ok(_permit) = self.deploys.try_acquire() else {
            let several = "this node already runs its maximum number of deploys: try again later";
            return Err(Code::Unavailable.problem(several).retry_after(limits::RETRY_AFTER));
        };
        let signatures = signatures_in(&request.headers)?;
        let upload = answers::read_body(&request.headers, request.body, limits::RELEASE_BYTES_MAX);
        let file = timeout(limits::UPLOAD_WAIT, upload)
            .await
            .unwrap_or_else(|_| Err(Code::Malformed.problem("the file did not arrive in time")))?;
        let digest = Digest::of(&file);
        let how = match &deployment {
            None => String::new(),
            Some(Deployment::Canary(percent)) => format!(", canary {percent} %"),
            Some(Deployment::SelectiveCanary(selection, percent)) => {
                format!(", canary {percent} % and {selection}")
            }
            Some(Deployment::Shadow(percent)) => format!(", shadow {percent} %"),
        };
        let detail = request.detail.clone();
        detail.set(format!("{}{how}", digest.short()));
        if !signatures.is_empty() {
            if !signatures.iter().all(|signature| signature.is_of(digest)) {
                return Err(no_signature("a signature is not for this file"));
            }
            let repository = self.rollout.repository();
            repository.keep_signatures(digest, &signatures, &request.by.name).await.map_err(unavailable)?;
        }
        let origin = Origin::new(&request.by.name, note.as_deref());
        let outcome = match deployment {
            None => self.rollout.deployer.deploy(file, origin).await,
            Some(how) => self.rollout.deployer.deploy_beside(file, how, origin).await,
        };
        let outcome = outcome.map_err(refused)?;
        detail.set(format!("{} {}{how}", outcome.name, digest.short()));
        Ok(answers::json(200, &outcome, &request.id))
    }

    /// Answers after every node was notified. The number of closed connections is not counted.
    async fn disconnect(&self, request: AdminRequest) -> Result<Answer, Problem> {
        let (id, by) = (request.id.clone(), request.by.name.clone());
        let detail = request.detail.clone();
        let target = disconnect::target(&request.fields().await?)?;
        detail.set(disconnect::describe(&target));
        info!(request_id = %id, by, ?target, "an operator closes connections");
        self.hub.disconnect(&target, &Close::DISCONNECTED).await.map_err(|_| {
            let detail = "closed on this node, but the other nodes could not be notified: try again";
            Code::Unavailable.problem(detail).retry_after(limits::RETRY_AFTER)
        })?;
        Ok(answers::json(202, &json!({ "told": true }), &id))
    }

    /// `{"keys": ["page:*"]}`: deletes these keys in Redis, so that they are read from Postgres again.
    async fn forget(&self, request: AdminRequest) -> Result<Answer, Problem> {
        let (id, detail) = (request.id.clone(), request.detail.clone());
        let wrong = || {
            let rule = format!(
                "`keys` must be a list of 1 to {} names or patterns `name:*`",
                limits::FORGET_PATTERNS_MAX
            );
            Code::Invalid.problem(rule).field("keys")
        };
        let keys = request.fields().await?.remove("keys").ok_or_else(wrong)?;
        let patterns: Vec<Pattern> = serde_json::from_value(keys).map_err(|_| wrong())?;
        if !(1..=limits::FORGET_PATTERNS_MAX).contains(&patterns.len()) {
            return Err(wrong());
        }
        let named: Vec<&str> = patterns.iter().map(Pattern::as_str).collect();
        detail.set(format!("keys {}", named.join(" ")));
        let forgotten = self.redis.forget(&patterns).await.map_err(|error| {
            warn!(?error, "keys in Redis were not deleted");
            Code::Unavailable
                .problem("Redis did not delete the keys: try again")
                .retry_after(limits::RETRY_AFTER)
        })?;
        Ok(answers::json(200, &json!({ "forgotten": forgotten }), &id))
    }
}

impl AdminRequest {
    pub(super) fn json(&self, document: &Value) -> Answer {
        answers::json(200, document, &self.id)
    }

    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.parameter(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Code::Invalid.problem(format!("`{name}` must be true or false")).field(name)),
        }
    }

    /// Returns the body as an object; an empty body is an empty object.
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

    /// Reads the whole body: declared as JSON, or empty.
    pub(super) async fn read_body(&mut self) -> Result<Bytes, Problem> {
        let says_json =
            |value: &str| value.split(';').next().is_some_and(|kind| kind.trim() == "application/json");
        let kind = self.headers.get(CONTENT_TYPE).map(|value| value.to_str().is_ok_and(says_json));
        let reading = answers::read_body(&self.headers, &mut self.body, limits::BODY_BYTES_MAX);
        let body = timeout(limits::UPLOAD_WAIT, reading)
            .await
            .unwrap_or_else(|_| Err(Code::Malformed.problem("the body did not arrive in time")))?;
        if kind == Some(false) && !body.is_empty() {
            return Err(Code::UnsupportedMediaType.problem("the body must be application/json"));
        }
        Ok(body)
    }
}

/// Makes a change that is described by `release` and `note` of the request's body. An action that needs no
/// release ignores it.
async fn change(
    request: AdminRequest,
    act: impl AsyncFnOnce(Option<&str>, Origin<'_>) -> Result<Outcome, Error>,
) -> Result<Answer, Problem> {
    let (id, by, detail) = (request.id.clone(), request.by.name.clone(), request.detail.clone());
    let fields = request.fields().await?;
    let (release, note) = (text(&fields, "release")?, text(&fields, "note")?);
    let note = note.as_deref().map(parse_note).transpose()?;
    let outcome = act(release.as_deref(), Origin::new(&by, note.as_deref())).await.map_err(refused)?;
    detail.set(outcome.digest.short());
    Ok(answers::json(200, &outcome, &id))
}

/// `?canary=10` or `?shadow=10`, in percent. A canary may select callers beside its percentage, or alone:
/// `canary_user` (once for each), `canary_role`, `canary_group`, `canary_tester`. Without all of them, the
/// release is for everybody.
fn deployment(request: &AdminRequest) -> Result<Option<Deployment>, Problem> {
    let percent = |name: &str, most: u8| {
        let Some(text) = request.parameter(name) else { return Ok(None) };
        let percent = text.strip_suffix('%').unwrap_or(text).parse::<u8>().ok();
        let rule = || Code::Invalid.problem(format!("`{name}` must be 1 to {most}, in percent")).field(name);
        percent.filter(|percent| (1..=most).contains(percent)).map(Some).ok_or_else(rule)
    };
    let users = request.query.iter().filter(|(name, _)| name == "canary_user");
    let users = users.map(|(_, user)| user.clone()).collect();
    let once = |parameter: &str| {
        let mut values = request.query.iter().filter(|(name, _)| name == parameter);
        match (values.next(), values.next()) {
            (first, None) => Ok(first.map(|(_, value)| value.clone())),
            _ => Err(Code::Invalid.problem(format!("`{parameter}` may be given once")).field(parameter)),
        }
    };
    let (role, group) = (once("canary_role")?, once("canary_group")?);
    let selection = Selection::new(users, role, group, request.parameter("canary_tester"))
        .map_err(|SelectionError { parameter, rule }| Code::Invalid.problem(rule).field(parameter))?;
    match (percent("canary", 99)?, percent("shadow", 100)?) {
        (None, None) if selection.is_empty() => Ok(None),
        (Some(percent), None) if selection.is_empty() => Ok(Some(Deployment::Canary(percent))),
        (percent, None) => Ok(Some(Deployment::SelectiveCanary(selection, percent.unwrap_or(0)))),
        (None, Some(percent)) if selection.is_empty() => Ok(Some(Deployment::Shadow(percent))),
        (_, Some(_)) => {
            Err(Code::Invalid.problem("a release is either a canary or a shadow").field("shadow"))
        }
    }
}

/// The signatures are sent beside the file, so that its digest stays the same.
fn signatures_in(headers: &HeaderMap) -> Result<Vec<Signature>, Problem> {
    let Some(value) = headers.get(SIGNATURE) else { return Ok(Vec::new()) };
    let text = value.to_str().unwrap_or("not text");
    Signature::parse_all(text).ok_or_else(|| no_signature("the header does not hold signatures"))
}

fn no_signature(what: &str) -> Problem {
    Code::Invalid.problem(what).field(SIGNATURE)
}

/// A note. It is stored for ever and shown in one line.
pub(super) fn parse_note(note: &str) -> Result<String, Problem> {
    let fits = note.chars().count() <= limits::NOTE_CHARS_MAX && !note.chars().any(char::is_control);
    let rule =
        || format!("`note` must have at most {} characters and no line breaks", limits::NOTE_CHARS_MAX);
    fits.then(|| note.to_owned()).ok_or_else(|| Code::Invalid.problem(rule()).field("note"))
}

/// Logged here, once: the operator gets the message, and the log the cause.
pub(super) fn unavailable(error: RepositoryError) -> Problem {
    refused(Error::Backend(error))
}

pub(super) fn refused(refused: Error) -> Problem {
    let problem = refused.problem();
    let mut causes = std::iter::successors(std::error::Error::source(&refused), |cause| cause.source());
    let cause = causes.find_map(|cause| cause.downcast_ref::<postgres::Error>()).map(ToString::to_string);
    warn!(error = %refused, cause, status = problem.status, "a request of an operator was refused");
    problem
}
