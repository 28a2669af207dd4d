//! Subscribes connections to conversations and topics. The order makes it gapless: first the gates, then the question who
//! may and where the conversation stands, so that nothing falls between the head and the first push.

mod looking;
mod rules;
mod store;

use chat::{address, membership};
use rules::{Beginning, Found, Heads, Stand, Wish};
use sdk::connection::{self, Gap, Page};
use sdk::frame::{Reply, Request, Subscription};
use sdk::{Id, Problem, Push, channels, frame, http};
use serde_json::{Map, Value, json};
use store::{Epoch, Seat, Standing};

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
            address::conversation_of(&gap.address).ok_or_else(|| Problem::not_found("conversation"))?;
        let (seq, change) = (gap.after(address::SEQ), gap.after(address::CHANGE));
        let Standing { heads, epoch, common, is_another_epoch } = store::standing(conversation, seq, change)?;
        let has = Heads { seq: seq.number, change: change.number };
        // History went back under this reader: what follows is sent from the point that both have.
        let after = if is_another_epoch { has.and(common) } else { has };
        let mut pushes = Vec::new();
        if is_another_epoch {
            pushes.push(Push { frame: reset(conversation, &epoch, common), position: None });
        }
        // What was missed may hold that somebody was removed: first they hear no more, then the others what was missed.
        for user in store::gone(conversation, after, heads)? {
            channels::revoke(&gap.address, &user)?;
        }
        if heads.is_far_from(after) {
            let payload = json!({ "conversation_ids": [conversation] }).to_string();
            pushes.push(Push { frame: frame::push("resync", &payload), position: None });
            return Ok(Page { pushes, reached: positions(heads, &epoch), more: false });
        }
        let missed = store::missed(conversation, after, gap.bytes_max)?;
        let mut reached = after;
        for one in &missed {
            match one.track {
                address::SEQ => reached.seq = one.number,
                _ => reached.change = one.number,
            }
        }
        // The page may have gone beyond the heads read before it.
        let more = !missed.is_empty() && (reached.seq < heads.seq || reached.change < heads.change);
        pushes.extend(missed.into_iter().map(|one| one.into_push(&epoch)));
        Ok(Page { pushes, reached: positions(reached, &epoch), more })
    }
}

/// The frame that tells the subscribers of a conversation of a new epoch: what they have above `common` is not in its history.
/// What is there instead follows it. A client that does not know of epochs asks `history`, as for any `resync`.
fn reset(conversation: Id, epoch: &Epoch, common: Heads) -> String {
    let payload = json!({
        "conversation_ids": [conversation],
        "epoch": epoch.name,
        "reset": { conversation.to_string(): { "seq": common.seq, "change": common.change } },
    });
    frame::push("resync", &payload.to_string())
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
    let topics: Vec<String> = wish.topics.iter().filter_map(|topic| address::topic(topic)).collect();
    let addresses: Vec<String> =
        ids.iter().map(|id| address::conversation(*id)).chain(topics.iter().cloned()).collect();
    channels::subscribe(&addresses)?;

    // Asked behind the gates: whoever is removed from here on is removed from these too.
    let epoch_of = |id: &Id| wish.stands.get(id).and_then(|stand| stand.epoch.as_deref());
    for seat in store::seats(user, &ids, epoch_of)? {
        match seat.refusal() {
            Some(code) => answer.refuse(&seat.id.to_string(), code),
            None => answer.open(&seat, wish.stands.get(&seat.id)),
        }
    }
    for name in &wish.unknown {
        answer.refuse(name, "not_found");
    }
    for topic in topics {
        answer.subscriptions.push(Subscription { address: topic, after: Vec::new(), missed: false });
    }
    looking::begin(&request.connection, user, &answer.ids);
    if !answer.lost.is_empty() {
        // Sent after the reply, in which a client that does not know of epochs finds nothing of this.
        let payload = json!({ "conversation_ids": answer.lost }).to_string();
        channels::send(&request.connection, &frame::push("resync", &payload))?;
    }
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
    let topics = wish.topics.iter().filter_map(|topic| address::topic(topic));
    let addresses: Vec<String> = ids.iter().map(|id| address::conversation(*id)).chain(topics).collect();
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
    /// The present epoch, once a conversation was looked at.
    epoch: Option<String>,
    /// Where the client's history and this one part, for clients that know of epochs.
    reset: Map<String, Value>,
    /// Where they part for the others: the same as a position above the head.
    lost: Vec<Id>,
    refused: Vec<Value>,
    subscriptions: Vec<Subscription>,
}

impl Answer {
    /// Most who join are participants already; only the others need a transaction, and only public channels have one for
    /// them. Whoever may not is refused behind the gates, like everyone.
    fn join(&mut self, wish: &Found, user: &str) -> Result<(), Problem> {
        for seat in store::seats(user, &wish.ids, |_| None)? {
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

    fn open(&mut self, seat: &Seat, stand: Option<&Stand>) {
        let (id, heads, epoch) = (seat.id, seat.heads(), seat.epoch());
        let Beginning { after, missed, has_lost } = heads.begin(stand, seat.common());
        self.ids.push(id);
        if has_lost && stand.is_some_and(|stand| stand.epoch.is_some()) {
            self.reset.insert(id.to_string(), json!({ "seq": after.seq, "change": after.change }));
        } else if has_lost {
            self.lost.push(id);
        }
        self.heads.insert(id.to_string(), heads.seq.into());
        self.changes.insert(id.to_string(), heads.change.into());
        let address = address::conversation(id);
        self.subscriptions.push(Subscription { address, after: positions(after, &epoch), missed });
        self.epoch = Some(epoch.name);
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
        if let Some(epoch) = self.epoch {
            payload["epoch"] = epoch.into();
        }
        if !self.reset.is_empty() {
            payload["reset"] = self.reset.into();
        }
        let mut reply = Reply::new("subscribed", &payload);
        reply.subscriptions = self.subscriptions;
        reply
    }
}

fn positions(heads: Heads, epoch: &Epoch) -> Vec<sdk::Position> {
    vec![address::seq(epoch.ordinal, heads.seq), address::change(epoch.ordinal, heads.change)]
}
