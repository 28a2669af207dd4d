//! `/secrets`: the secrets of the fleet. Their values come in, and no answer, log line or entry of the audit
//! contains one.

use serde_json::{Value, json};
use tokio::time::timeout;
use tracing::info;

use super::api::{refused, unavailable};
use super::{Admin, AdminRequest};
use switchboard_contract::types::Problem;
use switchboard_core::limits;
use switchboard_http::answers::{self, Answer};
use switchboard_protocol::wire::problem::Code;
use switchboard_releases::Origin;
use switchboard_runtime::Load;

impl<L: Load> Admin<L> {
    /// The secrets that are set, and those that releases are granted which run and that are not set.
    pub(super) async fn secrets(&self, request: &AdminRequest) -> Result<Answer, Problem> {
        let repository = self.rollout.repository();
        let secrets = repository.secrets_listed().await.map_err(unavailable)?;
        let missing = repository.secrets_wanted().await.map_err(unavailable)?;
        Ok(request.json(&json!({ "secrets": secrets, "missing": missing })))
    }

    /// The body is the value, byte for byte.
    pub(super) async fn set_secret(&self, name: &str, mut request: AdminRequest) -> Result<Answer, Problem> {
        // A body that is a little too large is read, so that the answer can name the rule.
        let reading = answers::read_body(&request.headers, &mut request.body, limits::BODY_BYTES_MAX);
        let value = timeout(limits::UPLOAD_WAIT, reading)
            .await
            .unwrap_or_else(|_| Err(Code::Malformed.problem("the body did not arrive in time")))?;
        let origin = Origin::new(&request.by.name, None);
        let outcome = self.rollout.deployer.set_secret(name, &value, origin).await.map_err(refused)?;
        request.detail.set(format!("version {}", outcome.version.unwrap_or_default()));
        let (by, version) = (&request.by.name, outcome.version);
        info!(request_id = %request.id, by, secret = name, version, "an operator has set the secret {name}");
        Ok(answers::json(200, &outcome, &request.id))
    }

    /// `{"force": true}` removes a secret that a running release needs.
    pub(super) async fn remove_secret(&self, name: &str, request: AdminRequest) -> Result<Answer, Problem> {
        let (id, by, detail) = (request.id.clone(), request.by.name.clone(), request.detail.clone());
        let force = match request.fields().await?.get("force") {
            None | Some(Value::Null) => false,
            Some(Value::Bool(force)) => *force,
            Some(_) => return Err(Code::Invalid.problem("`force` must be true or false").field("force")),
        };
        if force {
            detail.set("force");
        }
        let removed = self.rollout.deployer.remove_secret(name, force, Origin::new(&by, None)).await;
        let outcome = removed.map_err(refused)?;
        info!(request_id = %id, by, secret = name, force, "an operator has removed the secret {name}");
        Ok(answers::json(200, &outcome, &id))
    }
}
