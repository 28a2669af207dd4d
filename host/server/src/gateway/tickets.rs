//! Tickets: a client that cannot set headers puts a ticket into the URL of its WebSocket instead of its
//! token. A ticket is for one connection, can be used once, and is valid for half a minute. Tickets are in
//! Redis, so that every node accepts the tickets of all nodes. Without Redis there are no tickets.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::warn;

use switchboard_contract::redis::Node;
use switchboard_contract::types::{Principal, Problem};
use switchboard_core::ids::{Digest, UserId};
use switchboard_core::limits::{TICKET_VALID_FOR, TICKET_WAIT, TICKETS_PER_MINUTE};
use switchboard_protocol::session::Credentials;
use switchboard_protocol::wire::problem::Code;
use switchboard_redis::Redis;

pub struct Tickets(Redis);

/// The content of a ticket.
#[derive(Serialize, Deserialize)]
struct TicketContent {
    principal: Principal,
    expires_ms: u64,
    issued_ms: u64,
}

impl Tickets {
    pub fn new(redis: Redis) -> Self {
        Self(redis)
    }

    pub async fn issue(&self, who: &Credentials) -> Result<String, Problem> {
        self.count(&who.user).await?;
        let ticket: String = rand::random::<[u8; 32]>().iter().map(|byte| format!("{byte:02x}")).collect();
        let content = TicketContent {
            principal: who.principal.clone(),
            expires_ms: who.expires_ms,
            issued_ms: who.issued_ms,
        };
        let content = serde_json::to_string(&content).expect("a principal is plain data");
        let seconds = TICKET_VALID_FOR.as_secs().to_string();
        self.command(&["SET", &key(&ticket), &content, "EX", &seconds]).await?;
        Ok(ticket)
    }

    /// Counts one ticket of this user, in a window that begins with the first.
    async fn count(&self, user: &UserId) -> Result<(), Problem> {
        let key = format!("switchboard:tickets-of:{}", Digest::of(user.as_str().as_bytes()));
        self.command(&["SET", &key, "0", "EX", "60", "NX"]).await?;
        match self.command(&["INCR", &key]).await?.as_slice() {
            [Node::Integer(issued)] if *issued > TICKETS_PER_MINUTE => Err(Code::RateLimited
                .problem(format!(
                    "this user has requested more than {TICKETS_PER_MINUTE} tickets within a minute"
                ))
                .retry_after_ms(60_000)),
            _ => Ok(()),
        }
    }

    /// Redeems a ticket. It can be used only once.
    pub async fn redeem(&self, ticket: &str) -> Result<Arc<Credentials>, Problem> {
        let used = || Code::Unauthorized.problem("the ticket is unknown, used or too old");
        match self.command(&["GETDEL", &key(ticket)]).await?.as_slice() {
            [Node::Text(content)] => {
                let TicketContent { principal, expires_ms, issued_ms } =
                    serde_json::from_str(content).map_err(|_| used())?;
                let user = UserId::parse(&principal.user_id).ok_or_else(used)?;
                Ok(Arc::new(Credentials { user, principal, expires_ms, issued_ms, renewed_as: None }))
            }
            _ => Err(used()),
        }
    }

    async fn command(&self, args: &[&str]) -> Result<Vec<Node>, Problem> {
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        self.0.command(&args, Instant::now() + TICKET_WAIT).await.map_err(|error| {
            warn!(?error, "ticket store unavailable: Redis did not answer");
            Code::Unavailable.problem("tickets are not available now").retry_after_ms(1000)
        })
    }
}

/// The key holds the ticket's digest, so that a reader of Redis cannot use the ticket.
fn key(ticket: &str) -> String {
    format!("switchboard:ticket:{}", Digest::of(ticket.as_bytes()))
}
