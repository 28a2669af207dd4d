//! Notifications for tests: the list of a person over REST, and an internal system that publishes.

use serde_json::{Value, json};

use crate::host::Host;
use crate::patience::until;
use crate::rest::Answer;
use crate::token::Token;

impl Host {
    /// Sends `POST /internal/v1/publish` as an internal system.
    pub async fn publish(&self, body: Value) -> Answer {
        let token = Token::of("billing").roles(&["service"]).sign();
        self.rest_with(token).post("/internal/v1/publish", body).await
    }

    /// Makes a notification with this title for a user, as an internal system.
    pub async fn notice(&self, user: &str, title: &str) {
        let body = json!({"target": format!("user:{user}"), "type": "notice", "payload": {},
            "notify": {"title": title}});
        self.publish(body).await.expect(202);
    }

    /// Reads `GET /notifications` with this query string.
    pub async fn notifications(&self, user: &str, query: &str) -> Value {
        self.rest(user).get(&format!("/api/v1/notifications{query}")).await.expect(200)
    }

    /// Waits until every consumer has read everything, so that no further notification can come.
    pub async fn outbox_read(&self) {
        until("every consumer to have read the outbox", async || {
            self.database.outbox_unread().await.is_empty().then_some(())
        })
        .await;
    }

    /// The type and the body of each of a user's notifications, oldest first. It first waits until every
    /// consumer has read the outbox.
    pub async fn notified(&self, user: &str) -> Vec<(String, String)> {
        self.outbox_read().await;
        let page = self.notifications(user, "?limit=100").await;
        let list = page["notifications"].as_array().expect("a list");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        list.iter().rev().map(|one| (text(&one["type"]), text(&one["body"]))).collect()
    }
}
