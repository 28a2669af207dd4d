//! The objects for requests: a few users, and one of each thing that an endpoint can name.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};
use switchboard_tests::host::Host;
use switchboard_tests::token::Token;

use super::document::{Operation, Place};

pub(super) struct World {
    /// The owner of the conversation and the class; another member of both; a user who is in neither.
    pub owner: String,
    pub member: String,
    pub newcomer: String,
    pub conversation: String,
    pub slug: String,
    pub message: String,
    pub class: String,
    pub notification: String,
    /// The code of another class, with which any user can join.
    open_code: String,
}

impl World {
    pub(super) async fn make(host: &Host, name: &str) -> Self {
        let [owner, member, newcomer] = ["owner", "member", "newcomer"].map(|who| format!("{who}-{name}"));
        let rest = host.rest(&owner);
        let post =
            async |path: &str, body: Value| rest.post(&format!("/api/v1{path}"), body).await.expect(201);
        let text = |value: &Value| value.as_str().expect("a text").to_owned();

        let slug = format!("room-{name}");
        let room = json!({"type": "group", "name": name, "slug": slug, "members": [member]});
        let conversation = text(&post("/conversations", room).await["conversation"]["id"]);
        let sent = post(&format!("/conversations/{conversation}/messages"), json!({"content": "x"})).await;
        let class = post("/classes", json!({"name": name, "code": format!("class-{name}")})).await;
        let class = text(&class["class"]["id"]);
        let enrolment = json!({"user_id": member, "role": "student"});
        post(&format!("/classes/{class}/members"), enrolment).await;
        // Connect, because the directory has only users who have connected.
        let called = json!({"display_name": name});
        host.rest(&member).put("/api/v1/users/me", called).await.expect(200);
        let open_code = format!("open-{name}");
        let others = host.rest(&format!("teacher-{name}"));
        others.post("/api/v1/classes", json!({"name": name, "code": open_code})).await.expect(201);
        // The last one in the order of names.
        let channel = json!({"type": "channel", "name": format!("zzz {name}")});
        others.post("/api/v1/conversations", channel).await.expect(201);
        host.notice(&owner, "x").await;
        host.outbox_read().await;
        let notices = host.notifications(&owner, "?type=system").await;
        Self {
            message: text(&sent["message"]["id"]),
            notification: text(&notices["notifications"][0]["id"]),
            owner,
            member,
            newcomer,
            conversation,
            slug,
            class,
            open_code,
        }
    }

    /// The value of a field of an operation, so that its request is valid.
    pub(super) fn known(&self, operation: &Operation, place: Place, name: &str) -> Option<Value> {
        let named = match (name, place) {
            ("conversation_id", _) => &self.conversation,
            ("message_id" | "reply_to_id", _) => &self.message,
            ("class_id", _) => &self.class,
            ("notification_id", _) => &self.notification,
            ("user_id", Place::Path) => &self.member,
            ("user_id" | "members" | "mentions", _) => &self.newcomer,
            ("code", Place::Path) => &self.open_code,
            // The only body with the code of an existing class.
            ("code", _) if operation.id == "joinClass" => &self.open_code,
            ("seq" | "up_to_seq", _) => return Some(json!(2)),
            ("user_ids", _) => return Some(json!(format!("{},{}", self.owner, self.member))),
            _ => return None,
        };
        Some(json!(named))
    }

    /// Names of all objects, for requests of another user. The directory is open, so the person is one who is
    /// not in it.
    pub(super) fn names(&self) -> [&str; 6] {
        [&self.conversation, &self.slug, &self.message, &self.class, &self.notification, &self.owner]
    }
}

/// A token of a user who may send this request.
pub(super) fn token(operation: &Operation, user: &str) -> String {
    let roles: &[&str] = if operation.path.starts_with("/internal/") {
        &["service"]
    } else if operation.path.starts_with("/api/v1/admin/") {
        &["auditor"]
    } else {
        &[]
    };
    Token::of(user).roles(roles).sign()
}

/// A number that was not used before in this run.
pub(super) fn fresh() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(100);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The stored data of the product, table by table: the number of rows, and a checksum.
pub(super) async fn stored(host: &Host) -> Vec<(String, i64, String)> {
    let connection = host.database.connect().await;
    let tables = connection
        .rows(
            "select format('%I.%I', nspname, relname) from pg_class join pg_namespace on relnamespace = pg_namespace.oid
             where (nspname = 'app' or relname = 'outbox') and relkind in ('r', 'p') and not relispartition
             order by 1",
        )
        .await;
    let of_table = |row: &tokio_postgres::Row| {
        let table: String = row.get(0);
        format!(
            "select '{table}', count(*), coalesce(sum(hashtext(stored::text)::bigint), 0)::text from {table} as stored"
        )
    };
    let statement = tables.iter().map(of_table).collect::<Vec<_>>().join(" union all ");
    let rows = connection.rows(&format!("{statement} order by 1")).await;
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}
