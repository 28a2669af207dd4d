//! Subscribes connections to conversations and topics. The order makes it gapless: first the gates, then the question who
//! may and where the conversation stands, so that nothing falls between the head and the first push.

mod looking;
mod rules;
mod store;

use rules::{Found, Heads, Wish};
use sdk::connection::{self, Gap, Page};
use sdk::frame::{Reply, Request, Subscription};
use sdk::{Id, Problem, Push, channels, frame, http, membership};
use serde_json::{Map, Value, json};

struct JoinRoom;
frame::export!(JoinRoom);
http::export!(JoinRoom);
connection::export!(JoinRoom);

impl frame::Handler for JoinRoom {
    fn handle(request: Request) -> Result<Option<Reply>, Problem> {
        match request.frame_type.as_str() {
            "subscribe" => subscribe(&request).map(Some),
            "unsubscribe" => unsubscribe(&request).map(Some),
            _ => frame::unknown_type(&request),
        }
    }
}

impl http::Handler for JoinRoom {
    fn handle(request: http::Request) -> Result<http::Response, Problem> {
        let user = &request.caller()?.user_id;
        let conversation = membership::find(request.param("conversation_id"), user)?;
        let text = membership::join(conversation, user)?;
        Ok(http::Response::text(200, format!(r#"{{"conversation":{text}}}"#)))
    }
}

impl connection::Handler for JoinRoom {
    fn missed(gap: Gap) -> Result<Page, Problem> {
        let conversation =
            channels::conversation_of(&gap.address).ok_or_else(|| Problem::not_found("conversation"))?;
        let after = Heads { seq: gap.after(channels::SEQ), change: gap.after(channels::CHANGE) };
        let heads = store::heads(conversation)?;
        // What was missed may hold that somebody was removed: first they hear no more, then the others what was missed.
        for user in store::gone(conversation, after, heads)? {
            channels::revoke(&gap.address, &user)?;
        }
        if heads.is_far_from(after) {
            let payload = json!({ "conversation_ids": [conversation] }).to_string();
            let resync = Push { frame: frame::push("resync", &payload), position: None };
            return Ok(Page { pushes: vec![resync], reached: positions(heads), more: false });
        }
        let pushes = store::missed(conversation, &gap)?;
        let mut reached = after;
        for position in pushes.iter().filter_map(|push| push.position) {
            match position.track {
                channels::SEQ => reached.seq = position.number,
                _ => reached.change = position.number,
            }
        }
        // The page may have gone beyond the heads read before it.
        let more = !pushes.is_empty() && (reached.seq < heads.seq || reached.change < heads.change);
        Ok(Page { pushes, reached: positions(reached), more })
    }
}

fn subscribe(request: &Request) -> Result<Reply, Problem> {
    let user = &request.caller.user_id;
    let wish = Wish::subscribe(request.payload()?, request.alias.is_some())?;
    let wish = wish.found_for(user)?;
    let mut answer = Answer::default();
    if wish.join {
        answer.join(&wish, user)?;
    }

    let ids: Vec<Id> = wish.ids.iter().copied().filter(|id| !answer.is_refused(*id)).collect();
    let topics: Vec<String> = wish.topics.iter().filter_map(|topic| channels::topic(topic)).collect();
    let addresses: Vec<String> =
        ids.iter().map(|id| channels::conversation(*id)).chain(topics.iter().cloned()).collect();
    channels::subscribe(&addresses)?;

    // Asked behind the gates: whoever is removed from here on is removed from these too.
    for seat in store::seats(user, &ids)? {
        match seat.refusal() {
            Some(code) => answer.refuse(&seat.id.to_string(), code),
            None => answer.open(seat.id, seat.heads(), wish.stands.get(&seat.id).copied()),
        }
    }
    for name in &wish.unknown {
        answer.refuse(name, "not_found");
    }
    for topic in topics {
        answer.subscriptions.push(Subscription { address: topic, after: Vec::new(), missed: false });
    }
    looking::begin(&request.connection, user, &answer.ids);
    // Who comes in by the alias is shown where they are.
    let shown = match (&request.alias, &answer.ids[..]) {
        (Some(_), [id]) => Some(store::conversation(*id)?),
        _ => None,
    };
    let mut reply = answer.reply(&wish);
    if let Some(conversation) = shown {
        reply.payload.truncate(reply.payload.len() - 1);
        reply.payload += &format!(r#","conversation":{conversation}}}"#);
    }
    Ok(reply)
}

fn unsubscribe(request: &Request) -> Result<Reply, Problem> {
    let wish = Wish::unsubscribe(request.payload()?)?.found_for(&request.caller.user_id)?;
    let ids = wish.ids;
    let topics = wish.topics.iter().filter_map(|topic| channels::topic(topic));
    let addresses: Vec<String> = ids.iter().map(|id| channels::conversation(*id)).chain(topics).collect();
    channels::unsubscribe(&addresses)?;
    looking::end(&request.connection, &ids);
    Ok(Reply::new("unsubscribed", &json!({ "conversation_ids": ids, "topics": wish.topics })))
}

impl Wish {
    /// With the conversations that this user means by these names, in one question.
    fn found_for(self, user: &str) -> Result<Found, Problem> {
        let ids = membership::find_all(self.names().chain(self.stands.keys()), user)?;
        Ok(self.found(&ids))
    }
}

/// What the reply to `subscribe` says, while it is found out.
#[derive(Default)]
struct Answer {
    ids: Vec<Id>,
    heads: Map<String, Value>,
    changes: Map<String, Value>,
    refused: Vec<Value>,
    subscriptions: Vec<Subscription>,
}

impl Answer {
    /// Most who join are participants already; only the others need a transaction, and only public channels have one for
    /// them. Whoever may not is refused behind the gates, like everyone.
    fn join(&mut self, wish: &Found, user: &str) -> Result<(), Problem> {
        for seat in store::seats(user, &wish.ids)? {
            if seat.seated || !seat.open {
                continue;
            }
            match membership::join(seat.id, user) {
                Ok(_) => {}
                Err(problem) if problem.status < 500 => self.refuse(&seat.id.to_string(), &problem.code),
                Err(problem) => return Err(problem),
            }
        }
        Ok(())
    }

    fn is_refused(&self, id: Id) -> bool {
        let id = id.to_string();
        self.refused.iter().any(|refusal| refusal["id"] == id.as_str())
    }

    fn refuse(&mut self, id: &str, code: &str) {
        self.refused.push(json!({ "id": id, "code": code }));
    }

    fn open(&mut self, id: Id, heads: Heads, stand: Option<rules::Stand>) {
        let (after, missed) = heads.begin(stand);
        self.ids.push(id);
        self.heads.insert(id.to_string(), heads.seq.into());
        self.changes.insert(id.to_string(), heads.change.into());
        let address = channels::conversation(id);
        self.subscriptions.push(Subscription { address, after: positions(after), missed });
    }

    fn reply(self, wish: &Found) -> Reply {
        let mut payload = json!({
            "conversation_ids": self.ids,
            "heads": self.heads,
            "changes": self.changes,
            "refused": self.refused,
            "topics": wish.topics,
        });
        if !wish.slugs.is_empty() {
            payload["slugs"] = json!(wish.slugs);
        }
        let mut reply = Reply::new("subscribed", &payload);
        reply.subscriptions = self.subscriptions;
        reply
    }
}

fn positions(heads: Heads) -> Vec<sdk::Position> {
    vec![channels::seq(heads.seq), channels::change(heads.change)]
}
