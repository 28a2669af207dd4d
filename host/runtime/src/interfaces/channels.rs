//! `channels`: fan-out by address. The manifest states which addresses a handler may use. Order, gates and
//! other nodes are the hub's part.

use serde::Serialize;

use super::CallState;
use super::call::Function;
use crate::answer;
use switchboard_contract::channels::{self, Error, Publication, Target};
use switchboard_core::ids::{Address, ConnectionId, UserId};
use switchboard_core::manifest::Pattern;
use switchboard_fanout::Addressed;
use switchboard_protocol::wire::close::Close;

#[derive(Serialize)]
struct Publications<'a> {
    publications: &'a [Publication],
}

#[derive(Serialize)]
struct Addresses<'a> {
    addresses: &'a [String],
}

#[derive(Serialize)]
struct Revoke<'a> {
    address: &'a str,
    user_id: &'a str,
}

#[derive(Serialize)]
struct Send<'a> {
    connection: &'a str,
    frame: &'a str,
}

#[derive(Serialize)]
struct Disconnect<'a> {
    target: &'a Target,
    code: u16,
    reason: &'a str,
}

impl channels::Host for CallState {
    async fn publish(&mut self, publications: Vec<Publication>) -> wasmtime::Result<Result<(), Error>> {
        let (hub, grants, span) = (&self.backends.hub, &self.terms.grants, self.middleware.span.clone());
        let live = async {
            let mut addressed = Vec::with_capacity(publications.len());
            for publication in &publications {
                let address = granted("publish", &grants.publish, &publication.address)?;
                answer::frame(&publication.frame).map_err(Error::Refused)?;
                addressed.push(Addressed { address, publication });
            }
            if let Some(span) = span {
                span.publishes(addressed.iter().map(|to| to.address.clone()));
            }
            match hub {
                Some(hub) => hub.publish(&addressed).await,
                None => Err(Error::Unavailable),
            }
        };
        let args = Publications { publications: &publications };
        self.middleware.call(Function::ChannelsPublish, &args, live).await
    }

    async fn subscribe(&mut self, addresses: Vec<String>) -> wasmtime::Result<Result<(), Error>> {
        let (hub, grants, gates) = (&self.backends.hub, &self.terms.grants, self.gates);
        let live = async {
            let connection = gates.ok_or_else(only_in_frames)?;
            let addresses = all_granted(&grants.subscribe, &addresses)?;
            match hub {
                Some(hub) => hub.gate(connection, &addresses).await,
                None => Err(Error::Unavailable),
            }
        };
        self.middleware.call(Function::ChannelsSubscribe, &Addresses { addresses: &addresses }, live).await
    }

    async fn unsubscribe(&mut self, addresses: Vec<String>) -> wasmtime::Result<Result<(), Error>> {
        let (hub, grants, gates) = (&self.backends.hub, &self.terms.grants, self.gates);
        let live = async {
            let connection = gates.ok_or_else(only_in_frames)?;
            let addresses = all_granted(&grants.subscribe, &addresses)?;
            match hub {
                Some(hub) => {
                    hub.unsubscribe(connection, &addresses);
                    Ok(())
                }
                None => Err(Error::Unavailable),
            }
        };
        self.middleware.call(Function::ChannelsUnsubscribe, &Addresses { addresses: &addresses }, live).await
    }

    async fn revoke(&mut self, address: String, user_id: String) -> wasmtime::Result<Result<(), Error>> {
        let (hub, grants) = (&self.backends.hub, &self.terms.grants);
        let live = async {
            let address = granted("publish", &grants.publish, &address)?;
            let user =
                UserId::parse(&user_id).ok_or_else(|| Error::Refused("`user-id` is not one".to_owned()))?;
            match hub {
                Some(hub) => hub.revoke(&address, &user).await,
                None => Err(Error::Unavailable),
            }
        };
        let args = Revoke { address: &address, user_id: &user_id };
        self.middleware.call(Function::ChannelsRevoke, &args, live).await
    }

    async fn send(&mut self, connection: String, frame: String) -> wasmtime::Result<Result<(), Error>> {
        let (hub, grants, own) = (&self.backends.hub, &self.terms.grants, self.gates);
        let live = async {
            let to = ConnectionId::parse(&connection)
                .ok_or_else(|| Error::Refused("`connection` is not a UUID".to_owned()))?;
            let is_own = own == Some(to);
            if !is_own && grants.publish.is_empty() {
                return Err(Error::Refused(
                    "`send` to another connection needs `grants.publish` in the manifest".to_owned(),
                ));
            }
            answer::frame(&frame).map_err(Error::Refused)?;
            match hub {
                Some(hub) if is_own => hub.send_after_reply(to, &frame),
                Some(hub) => hub.send(to, &frame).await,
                None => Err(Error::Unavailable),
            }
        };
        let args = Send { connection: &connection, frame: &frame };
        self.middleware.call(Function::ChannelsSend, &args, live).await
    }

    async fn disconnect(
        &mut self,
        target: Target,
        code: u16,
        reason: String,
    ) -> wasmtime::Result<Result<(), Error>> {
        let (hub, grants) = (&self.backends.hub, &self.terms.grants);
        let live = async {
            if !grants.disconnect {
                return Err(Error::Refused("the manifest does not grant `disconnect`".to_owned()));
            }
            let close = Close::requested(code, &reason)
                .ok_or_else(|| Error::Refused(format!("{code} is not a close code to be sent")))?;
            match hub {
                Some(hub) => hub.disconnect(&target, &close).await,
                None => Err(Error::Unavailable),
            }
        };
        let args = Disconnect { target: &target, code, reason: &reason };
        self.middleware.call(Function::ChannelsDisconnect, &args, live).await
    }
}

fn only_in_frames() -> Error {
    Error::Refused("`subscribe` and `unsubscribe` work only while a frame is handled".to_owned())
}

fn all_granted(patterns: &[Pattern], addresses: &[String]) -> Result<Vec<Address>, Error> {
    addresses.iter().map(|address| granted("subscribe", patterns, address)).collect()
}

fn granted(grant: &str, patterns: &[Pattern], address: &str) -> Result<Address, Error> {
    let shown = || address.chars().take(64).collect::<String>().escape_debug().to_string();
    let parsed =
        Address::parse(address).ok_or_else(|| Error::Refused(format!("`{}` is not an address", shown())))?;
    if !patterns.iter().any(|pattern| pattern.matches(address)) {
        return Err(Error::Refused(format!("`grants.{grant}` does not cover `{}`", shown())));
    }
    Ok(parsed)
}
