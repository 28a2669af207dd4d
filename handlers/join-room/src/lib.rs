//! Subscribes connections to conversations and topics. It first subscribes behind closed gates, and then
//! reads permissions and heads from Postgres. So no message is lost between the head and the first push.

mod join;
mod looking;
mod rules;
mod store;

use chat::{address, membership};
use rules::{ClientPosition, Heads, ResolvedSelection, Selection, Start};
use sdk::connection::{self, Gap, Page};
use sdk::frame::{Reply, Request, Subscription};
use sdk::{Id, Problem, Push, channels, frame, http};
use serde_json::{Map, Value, json};
use store::{Epoch, Membership, Standing};

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
        join::join(conversation, user)?;
        let text = store::conversation(conversation)?;
        Ok(http::Response::text(200, format!(r#"{{"conversation":{text}}}"#)))
    }
}

impl connection::Handler for JoinRoom {
    fn missed(gap: Gap) -> Result<Page, Problem> {
        let conversation =
            address::conversation_of(&gap.address).ok_or_else(|| Problem::not_found("conversation"))?;
        let (seq, change) = (gap.after(address::SEQ), gap.after(address::CHANGE));
        let Standing { heads, epoch, common, is_another_epoch, some_left } =
            store::standing(conversation, seq, change)?;
        let has = Heads { seq: seq.number, change: change.number };
        // The history went back to an earlier state. The reader gets everything after the point that both
        // histories share.
        let after = if is_another_epoch { has.and(common) } else { has };
        let mut pushes = Vec::new();
        if is_another_epoch {
            pushes.push(Push { frame: reset(conversation, &epoch, common), position: None });
        }
        // The subscriptions of users who left meanwhile end before the others get the page.
        if some_left || is_another_epoch || after.seq < heads.seq {
            for user in store::gone(conversation, after, heads)? {
                channels::revoke(&gap.address, &user)?;
            }
        }
        if heads.is_too_far_from(after) {
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
        // The page may end above the heads, which were read before it.
        let more = !missed.is_empty() && (reached.seq < heads.seq || reached.change < heads.change);
        pushes.extend(missed.into_iter().map(|one| one.into_push(&epoch)));
        Ok(Page { pushes, reached: positions(reached, &epoch), more })
    }
}

/// The frame that notifies the subscribers of a conversation of a new epoch. Its history has no messages that
/// a subscriber has above `common`; the new ones follow the frame. A client without support for epochs
/// requests `history`, as for every `resync`.
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
    let selection = Selection::subscribe(request.payload()?, request.alias.is_some())?;
    let selection = selection.resolve_for(user)?;
    let mut answer = Answer::default();
    if selection.join {
        answer.join(&selection, user)?;
    }

    let ids: Vec<Id> = selection.ids.iter().copied().filter(|id| !answer.is_refused(*id)).collect();
    let topics: Vec<String> = selection.topics.iter().filter_map(|topic| address::topic(topic)).collect();
    let addresses: Vec<String> =
        ids.iter().map(|id| address::conversation(*id)).chain(topics.iter().cloned()).collect();
    channels::subscribe(&addresses)?;

    // The permissions are read after the gates are set. A later removal also ends these subscriptions.
    let epoch_of =
        |id: &Id| selection.client_positions.get(id).and_then(|position| position.epoch.as_deref());
    for member in store::memberships(user, &ids, epoch_of)? {
        match member.refusal() {
            Some(code) => answer.refuse(&member.id.to_string(), code),
            None => answer.subscribe(&member, selection.client_positions.get(&member.id)),
        }
    }
    for name in &selection.unknown {
        answer.refuse(name, "not_found");
    }
    for topic in topics {
        answer.subscriptions.push(Subscription { address: topic, after: Vec::new(), missed: false });
    }
    looking::begin(&request.connection, user, &answer.ids);
    if !answer.lost.is_empty() {
        // This frame follows the reply, for clients without support for epochs.
        let payload = json!({ "conversation_ids": answer.lost }).to_string();
        channels::send(&request.connection, &frame::push("resync", &payload))?;
    }
    // The aliases return the conversation too.
    let shown = match (&request.alias, &answer.ids[..]) {
        (Some(_), [id]) => Some(store::conversation(*id)?),
        _ => None,
    };
    let mut reply = answer.reply(&selection);
    if let Some(conversation) = shown {
        reply.payload.truncate(reply.payload.len() - 1);
        reply.payload += &format!(r#","conversation":{conversation}}}"#);
    }
    Ok(reply)
}

fn unsubscribe(request: &Request) -> Result<Reply, Problem> {
    let selection = Selection::unsubscribe(request.payload()?)?.resolve_for(&request.caller.user_id)?;
    let ids = selection.ids;
    let topics = selection.topics.iter().filter_map(|topic| address::topic(topic));
    let addresses: Vec<String> = ids.iter().map(|id| address::conversation(*id)).chain(topics).collect();
    channels::unsubscribe(&addresses)?;
    looking::end(&request.connection, &ids);
    Ok(Reply::new("unsubscribed", &json!({ "conversation_ids": ids, "topics": selection.topics })))
}

impl Selection {
    /// Resolves the names of conversations, as this user sees them, with one query.
    fn resolve_for(self, user: &str) -> Result<ResolvedSelection, Problem> {
        let ids = membership::find_all(self.names().chain(self.client_positions.keys()), user)?;
        Ok(self.resolve(&ids))
    }
}

/// Collects the reply to `subscribe`.
#[derive(Default)]
struct Answer {
    ids: Vec<Id>,
    heads: Map<String, Value>,
    changes: Map<String, Value>,
    /// The present epoch; `None` until a conversation was subscribed.
    epoch: Option<String>,
    /// For clients with support for epochs: the point up to which the client's history and the present one
    /// are the same.
    reset: Map<String, Value>,
    /// For other clients: the conversations whose history differs from theirs.
    lost: Vec<Id>,
    refused: Vec<Value>,
    subscriptions: Vec<Subscription>,
}

impl Answer {
    /// Joins public channels. Most callers are participants already and write nothing. A caller who may
    /// not join is refused later, when the permissions are read.
    fn join(&mut self, selection: &ResolvedSelection, user: &str) -> Result<(), Problem> {
        for member in store::memberships(user, &selection.ids, |_| None)? {
            if member.seated || !member.open {
                continue;
            }
            match join::join(member.id, user) {
                Ok(()) => {}
                Err(problem) if problem.status < 500 => self.refuse(&member.id.to_string(), &problem.code),
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

    fn subscribe(&mut self, member: &Membership, position: Option<&ClientPosition>) {
        let (id, heads, epoch) = (member.id, member.heads(), member.epoch());
        let Start { after, missed, has_lost } = heads.start(position, member.common());
        self.ids.push(id);
        if has_lost && position.is_some_and(|position| position.epoch.is_some()) {
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

    fn reply(self, selection: &ResolvedSelection) -> Reply {
        let mut payload = json!({
            "conversation_ids": self.ids,
            "heads": self.heads,
            "changes": self.changes,
            "refused": self.refused,
            "topics": selection.topics,
        });
        if !selection.slugs.is_empty() {
            payload["slugs"] = json!(selection.slugs);
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
