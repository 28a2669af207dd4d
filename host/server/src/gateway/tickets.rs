//! Tickets: a client that cannot set headers puts a ticket into the URL of its WebSocket instead of its
//! token. A ticket is for one connection, can be used once, and is valid for half a minute. Tickets are in
//! Redis, so that every node accepts the tickets of all nodes. Without Redis there are no tickets.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::warn;

use switchboard_contract::redis::Node;
use switchboard_contract::types::{Principal, Problem};
use switchboard_core::ids::{Digest, UserId};
use switchboard_core::limits::{
    RETRY_AFTER, TICKET_VALID_FOR, TICKET_WAIT, TICKET_WINDOW, TICKETS_PER_MINUTE,
};
use switchboard_protocol::session::Credentials;
use switchboard_protocol::wire::problem::Code;
use switchboard_redis::Redis;

pub struct Tickets(Redis);

/// The content of a ticket.
#[derive(Serialize, Deserialize)]
struct TicketContent {
    principal: Principal,
    /// Absent in a ticket of a node of the version before.
    #[serde(default)]
    groups: Box<[u64]>,
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
            groups: who.groups.clone(),
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
        let replies = self.run(&[&["INCR", &key], &["PTTL", &key]]).await?;
        let number = |index: usize| match replies.get(index).map(Vec::as_slice) {
            Some([Node::Integer(number)]) => *number,
            _ => 0,
        };
        let (issued, left_ms) = (number(0), number(1));
        let window_ms = TICKET_WINDOW.as_millis() as i64;
        // A counter without an end is the first one of a window, or one whose node stopped before the next
        // command. Without an end, the user would never get a ticket again after the last one of the window.
        if left_ms < 0 {
            self.command(&["PEXPIRE", &key, &window_ms.to_string()]).await?;
        }
        if issued <= TICKETS_PER_MINUTE {
            return Ok(());
        }
        let wait_ms = if left_ms > 0 { left_ms } else { window_ms };
        Err(Code::RateLimited
            .problem(format!(
                "this user has requested more than {TICKETS_PER_MINUTE} tickets within a minute"
            ))
            .retry_after(Duration::from_millis(wait_ms.unsigned_abs())))
    }

    /// Redeems a ticket. It can be used only once.
    pub async fn redeem(&self, ticket: &str) -> Result<Arc<Credentials>, Problem> {
        let used = || Code::Unauthorized.problem("the ticket is unknown, used or too old");
        match self.command(&["GETDEL", &key(ticket)]).await?.as_slice() {
            [Node::Text(content)] => {
                let TicketContent { principal, groups, expires_ms, issued_ms } =
                    serde_json::from_str(content).map_err(|_| used())?;
                let user = UserId::parse(&principal.user_id).ok_or_else(used)?;
                let renewed_as = None;
                Ok(Arc::new(Credentials { user, principal, groups, expires_ms, issued_ms, renewed_as }))
            }
            _ => Err(used()),
        }
    }

    async fn command(&self, args: &[&str]) -> Result<Vec<Node>, Problem> {
        Ok(self.run(&[args]).await?.pop().unwrap_or_default())
    }

    /// Runs commands in one round trip, and returns the reply of each.
    async fn run(&self, commands: &[&[&str]]) -> Result<Vec<Vec<Node>>, Problem> {
        let words = |args: &&[&str]| args.iter().map(|&arg| arg.to_owned()).collect();
        let commands: Vec<Vec<String>> = commands.iter().map(words).collect();
        let unavailable =
            || Code::Unavailable.problem("tickets are not available now").retry_after(RETRY_AFTER);
        let replies = self.0.pipeline(&commands, Instant::now() + TICKET_WAIT).await.map_err(|error| {
            warn!(?error, "ticket store unavailable: Redis did not answer");
            unavailable()
        })?;
        // For instance when the memory of Redis is full.
        if let Some(Node::Failed(error)) =
            replies.iter().flatten().find(|node| matches!(node, Node::Failed(_)))
        {
            warn!(error, "ticket store unavailable: Redis refused a command");
            return Err(unavailable());
        }
        Ok(replies)
    }
}

/// The key holds the ticket's digest, so that a reader of Redis cannot use the ticket.
fn key(ticket: &str) -> String {
    format!("switchboard:ticket:{}", Digest::of(ticket.as_bytes()))
}
