//! The operator's side of a host: health, metrics, releases.

use std::net::SocketAddr;

use hyper::Method;
use serde_json::{Value, json};

use crate::release::Release;
use crate::rest::{Answer, Rest};

/// The token of the first administrator of every test host.
pub const ADMIN_TOKEN: &str = "admin-token-of-the-black-box-tests";

#[derive(Clone)]
pub struct Admin {
    rest: Rest,
}

impl Admin {
    pub fn new(address: SocketAddr) -> Self {
        Self { rest: Rest::new(address, ADMIN_TOKEN.to_owned()) }
    }

    /// A REST client with the administrator's token.
    pub fn rest(&self) -> &Rest {
        &self.rest
    }

    /// Whether the host is ready. False while it cannot be reached.
    pub async fn ready(&self) -> bool {
        self.rest.try_send(Method::GET, "/readyz", &[], "").await.is_ok_and(|answer| answer.status == 200)
    }

    pub async fn deploy(&self, release: &Release) -> Answer {
        let headers = [("content-type", "application/wasm")];
        self.rest.send(Method::POST, "/admin/v1/releases", &headers, release.bytes.clone()).await
    }

    /// Deploys beside the running release: `canary=10%` or `shadow=5`.
    pub async fn try_out(&self, release: &Release, share: &str) -> Answer {
        let headers = [("content-type", "application/wasm")];
        let path = format!("/admin/v1/releases?{}", share.replace('%', "%25"));
        self.rest.send(Method::POST, &path, &headers, release.bytes.clone()).await
    }

    /// Deploys it; returns when every node runs it.
    pub async fn release(&self, release: &Release) {
        let outcome = self.deploy(release).await.expect(200);
        assert_eq!(outcome["complete"], true, "{outcome}");
        assert_eq!(outcome["release"], release.digest(), "{outcome}");
    }

    /// Rolls back to the release before the current one.
    pub async fn rollback(&self, handler: &str) -> Answer {
        self.rest.post(&format!("/admin/v1/handlers/{handler}/rollback"), json!({})).await
    }

    /// Retires the handler.
    pub async fn retire(&self, handler: &str) -> Answer {
        self.rest.post(&format!("/admin/v1/handlers/{handler}/retire"), json!({})).await
    }

    pub async fn releases(&self) -> Value {
        self.rest.get("/admin/v1/releases").await.expect(200)
    }

    /// The sum of a metric over all labels; absent before anything was counted.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        let answer = self.rest.get("/metrics").await;
        assert_eq!(answer.status, 200, "{answer}");
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let samples = text.lines().filter_map(|line| {
            let (sample, value) = line.rsplit_once(' ')?;
            (sample.split('{').next() == Some(name)).then(|| value.parse::<f64>().ok())?
        });
        samples.reduce(|all, one| all + one)
    }
}
