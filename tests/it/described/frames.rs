//! `docs/asyncapi.yaml` against the host: every frame that a handler binds is described, each described frame
//! gets its described reply, and the prose has the same names. Every test checks the host's own frames
//! against the description.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use switchboard_tests::client::Client;
use switchboard_tests::description::{self, Message};
use switchboard_tests::host::{Host, Options};
use switchboard_tests::socket::Handshake;
use switchboard_tests::token::Token;

use super::sampler::Sampler;
use super::world::{World, fresh};

/// The frames that the host answers itself.
const OF_THE_HOST: [(&str, &[&str]); 3] = [("auth", &[]), ("auth.refresh", &[]), ("ping", &["heartbeat"])];

fn received() -> Vec<(Message, Vec<Message>)> {
    let receive = description::operations().into_iter().filter(|(messages, _)| !messages.is_empty());
    receive.map(|(mut messages, replies)| (messages.remove(0), replies)).collect()
}

/// The frame types and their aliases in the manifests.
fn bound() -> BTreeMap<String, Vec<String>> {
    let text = |value: &toml::Value| value.as_str().expect("a text").to_owned();
    let named = |frame: &toml::Value| {
        let aliases = frame.get("aliases").and_then(toml::Value::as_array).into_iter().flatten();
        (text(&frame["type"]), aliases.map(text).collect())
    };
    description::bindings("frame").iter().map(named).collect()
}

#[test]
fn every_frame_is_described_under_all_its_names() {
    let of_the_host = OF_THE_HOST.map(|(name, aliases)| {
        (name.to_owned(), aliases.iter().map(|alias| (*alias).to_owned()).collect::<Vec<_>>())
    });
    let mut known = bound();
    known.extend(of_the_host);
    let described: BTreeMap<_, _> =
        received().into_iter().map(|(message, _)| (message.name, message.aliases)).collect();
    assert_eq!(described, known);
}

/// The table and the list of pushes in `docs/protocol.md`.
#[test]
fn the_prose_has_the_same_names() {
    const PROSE: &str = include_str!("../../../docs/protocol.md");
    let (_, section) = PROSE.split_once("## 2. WebSocket").expect("a section");
    let (section, _) = section.split_once("\n## ").expect("its end");
    let is_name = |c: char| c.is_ascii_lowercase() || c == '.' || c == '_';
    let words: BTreeSet<&str> = section.split(|c| !is_name(c)).map(|word| word.trim_matches('.')).collect();
    for (receives, says) in description::operations() {
        for message in receives.iter().chain(&says) {
            assert!(words.contains(&*message.name), "{} is not in the prose", message.name);
        }
    }
    let described: BTreeSet<_> = received().into_iter().map(|(message, _)| message.name).collect();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| ")?.split([' ', '|']).next());
    let missing: Vec<_> = rows
        .skip_while(|word| *word != "auth")
        .take_while(|word| *word != "close")
        .filter(|word| !described.contains(*word))
        .collect();
    assert!(missing.is_empty(), "docs/asyncapi.yaml lacks {missing:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn described_frames_get_described_replies() {
    Host::test(Options::default().without_rate_limits(), async |host| {
        let world = World::make(host, "frames").await;
        for least in [true, false] {
            for (message, replies) in received() {
                let mut client = speaker(host, &world, &message.name).await;
                let frame = frame(host, &world, &message.schema, least).await;
                client.write(frame.clone()).await;
                let names: Vec<_> = replies.iter().map(|reply| &*reply.name).collect();
                if names == ["error"] {
                    // There is no reply on success; an error would come before the next answer.
                    client.expect_alive().await;
                    assert_eq!(client.take_buffered("error"), None, "{frame}");
                    continue;
                }
                let reply = client.reply_to(&frame["id"]).await.0;
                assert_ne!(reply["type"], "error", "{frame}: {reply}");
                assert!(names.contains(&reply["type"].as_str().expect("a type")), "{frame}: {reply}");
            }
        }
    })
    .await;
}

/// A client that authenticates by frame is not authenticated before.
async fn speaker(host: &Host, world: &World, name: &str) -> Client {
    if name == "auth" {
        let opened = Client::connect(host.address, &Handshake::bare()).await;
        return opened.unwrap_or_else(|why| panic!("{why}")).0;
    }
    host.client(&world.owner).await
}

/// A valid frame. `least`: only required fields.
async fn frame(host: &Host, world: &World, schema: &Value, least: bool) -> Value {
    let path = format!("/api/v1/conversations/{}/messages", world.conversation);
    let message = host.rest(&world.owner).post(&path, json!({"content": "x"})).await.expect(201);
    let token = Token::of(&world.owner).sign();
    let known = |name: &str| match name {
        "conversation_id" | "conversation_ids" => Some(json!(world.conversation)),
        "message_id" | "reply_to_id" => Some(message["message"]["id"].clone()),
        "id" => Some(json!(world.notification)),
        "token" => Some(json!(token)),
        "user_ids" | "mentions" => Some(json!(world.member)),
        "up_to_seq" | "before_seq" => Some(json!(2)),
        // Together with the other bound it would be refused.
        "after_seq" => Some(Value::Null),
        "positions" => Some(json!({ &*world.conversation: 1 })),
        _ => None,
    };
    let mut frame = Sampler { known: &known, fresh: &fresh, least }.value("", schema);
    frame["id"] = json!(fresh());
    frame
}
