//! The spans of a message's path: the frame, its handler, each host call, the consumer that the commit woke,
//! the fan-out, in one trace. The request id that leads to them. And the data that spans must not contain.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use hyper::Method;
use serde_json::{Value, json};
use switchboard_tests::client::Client;
use switchboard_tests::host::{Host, Options};
use switchboard_tests::patience::until;
use switchboard_tests::release::Release;
use switchboard_tests::socket::Handshake;
use switchboard_tests::token::Token;
use switchboard_tests::web::Web;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A collector of the test, which accepts and keeps everything.
pub(crate) struct Collector {
    pub(crate) address: SocketAddr,
    documents: Arc<Mutex<Vec<Value>>>,
}

impl Collector {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound listener");
        let documents = Arc::<Mutex<Vec<Value>>>::default();
        let kept = documents.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let document = take(stream).await.expect("a whole request");
                kept.lock().unwrap().push(document);
            }
        });
        Self { address, documents }
    }

    /// Everything that it got.
    pub(crate) fn text(&self) -> String {
        serde_json::to_string(&*self.documents.lock().unwrap()).expect("JSON")
    }

    pub(crate) fn spans(&self) -> Vec<Value> {
        let documents = self.documents.lock().unwrap();
        let spans = documents.iter().flat_map(|document| {
            let of_node = &document["resourceSpans"][0];
            let attributes = of_node["resource"]["attributes"].as_array().expect("attributes");
            let node = attributes.iter().find(|of| of["key"] == "service.instance.id").expect("its node");
            let node = node["value"]["stringValue"].clone();
            let spans = of_node["scopeSpans"][0]["spans"].as_array().cloned().expect("spans");
            spans.into_iter().map(move |mut span| {
                span["node"] = node.clone();
                span
            })
        });
        spans.collect()
    }
}

async fn take(mut stream: TcpStream) -> Option<Value> {
    let mut request = Vec::new();
    let head = loop {
        stream.read_buf(&mut request).await.ok().filter(|read| *read > 0)?;
        if let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let lines = String::from_utf8_lossy(&request[..head]).to_lowercase();
    assert!(lines.starts_with("post /v1/traces http/1.1"), "{lines}");
    assert!(lines.contains("content-type: application/json"), "{lines}");
    let length =
        lines.lines().find_map(|line| line.strip_prefix("content-length: "))?.parse::<usize>().ok()?;
    while request.len() < head + length {
        stream.read_buf(&mut request).await.ok().filter(|read| *read > 0)?;
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await.ok()?;
    serde_json::from_slice(&request[head..]).ok()
}

#[tokio::test]
async fn a_message_is_one_trace_from_its_frame_to_the_fan_out() {
    let collector = Collector::start().await;
    let options = Options::default()
        .without_rate_limits()
        .set("OTLP_ENDPOINT", format!("http://{}", collector.address))
        .set("OTLP_SAMPLE", "1.0");
    Host::test(options, async |host| {
        let (mut ana, mut bo) = host.two_members("lobby").await;
        let of_trace = |spans: &[Value], name: &str, trace: &Value| {
            spans.iter().find(|span| span["name"] == name && span["traceId"] == *trace).cloned()
        };
        let (frame, relay, spans) = until("the whole trace", async || {
            // A relay that already reads its shard may handle a message before its wake comes: then the test
            // uses another message.
            ana.send("a text that nobody else is to read").await.expect_sent();
            bo.expect_message("a text that nobody else is to read").await;
            let spans = collector.spans();
            let whole = spans.iter().filter(|span| span["name"] == "frame send-message").find_map(|frame| {
                of_trace(&spans, "fan-out", &frame["traceId"])?;
                Some((frame.clone(), of_trace(&spans, "event outbox-relay", &frame["traceId"])?))
            });
            whole.map(|(frame, relay)| (frame, relay, spans))
        })
        .await;
        let trace = &frame["traceId"];
        assert_eq!((&frame["parentSpanId"], &frame["kind"]), (&json!(""), &json!(2)));
        let collect = of_trace(&spans, "postgres.collect", trace).expect("its host call");
        assert_eq!(collect["parentSpanId"], frame["spanId"]);
        assert_eq!(relay["parentSpanId"], frame["spanId"], "woken by the frame");
        let publish = of_trace(&spans, "channels.publish", trace).expect("the relay publishes");
        assert_eq!(publish["parentSpanId"], relay["spanId"]);
        let fan_out = of_trace(&spans, "fan-out", trace).expect("it arrives here");
        assert_eq!(fan_out["parentSpanId"], relay["spanId"]);
        // Each host call has the attributes of its call.
        for (call, by) in [(&collect, &frame), (&publish, &relay)] {
            for key in ["handler.name", "handler.release", "call"] {
                let documents = attribute(call, key);
                assert!(documents.is_some() && documents == attribute(by, key), "{key} of {call}, by {by}");
            }
        }
        assert_eq!(attribute(&collect, "handler.name"), Some(&json!("send-message")));
        println!("{}", tree(&spans, trace));

        let all = serde_json::to_string(&*collector.documents.lock().unwrap()).unwrap();
        assert!(!all.contains("nobody else is to read"), "a text is in a span");
        let documents = collector.documents.lock().unwrap();
        let resource = documents[0]["resourceSpans"][0]["resource"]["attributes"].to_string();
        assert!(resource.contains("service.name") && resource.contains("switchboard"), "{resource}");
    })
    .await;
}

fn attribute<'a>(span: &'a Value, key: &str) -> Option<&'a Value> {
    let attributes = span["attributes"].as_array()?;
    Some(&attributes.iter().find(|of| of["key"] == key)?["value"]["stringValue"])
}

/// The tree of spans: each below its cause, with its begin, its duration, and its node.
fn tree(spans: &[Value], trace: &Value) -> String {
    let of_trace: Vec<&Value> = spans.iter().filter(|span| span["traceId"] == *trace).collect();
    let start = of_trace.iter().map(|span| micros(span, "startTimeUnixNano")).min().unwrap_or_default();
    let nodes: Vec<&str> = of_trace.iter().fold(Vec::new(), |mut nodes, span| {
        let node = span["node"].as_str().unwrap_or_default();
        if !nodes.contains(&node) {
            nodes.push(node);
        }
        nodes
    });
    let mut lines = Vec::new();
    branch(&of_trace, &json!(""), 0, &mut |depth, span| {
        let (from, to) = (micros(span, "startTimeUnixNano"), micros(span, "endTimeUnixNano"));
        let node = nodes.iter().position(|node| span["node"] == **node).map_or(0, |at| at + 1);
        let name = format!("{}{}", "  ".repeat(depth), span["name"].as_str().unwrap_or_default());
        lines.push(format!("{:>7} us {:>6} us  node {node}  {name}", from - start, to - from));
    });
    lines.join("\n")
}

fn branch<'a>(spans: &[&'a Value], parent: &Value, depth: usize, see: &mut impl FnMut(usize, &'a Value)) {
    let mut children: Vec<_> = spans.iter().filter(|span| span["parentSpanId"] == *parent).collect();
    children.sort_by_key(|span| micros(span, "startTimeUnixNano"));
    for child in children {
        see(depth, child);
        branch(spans, &child["spanId"], depth + 1, see);
    }
}

fn micros(span: &Value, key: &str) -> i128 {
    span[key].as_str().and_then(|text| text.parse::<i128>().ok()).unwrap_or_default() / 1000
}

/// The spans of another node are below it too: its fan-out, and the consumers that it owns.
#[tokio::test]
async fn a_message_is_one_trace_over_two_nodes() {
    let collector = Collector::start().await;
    let options = Options::default()
        .set("OTLP_ENDPOINT", format!("http://{}", collector.address))
        .set("OTLP_SAMPLE", "1.0");
    Host::test(options, async |host| {
        let mut other = host.another_node().await;
        let room = host.group("lobby", &["ana", "bo"]).await;
        let (mut ana, mut bo) = (host.client("ana").await, other.client("bo").await);
        ana.enter(&room).await;
        bo.enter(&room).await;
        // A client on each node sends a message: whichever node owns the room's shard, one of the two
        // messages comes from the other.
        let mut traces = Vec::new();
        for (number, text) in ["from here", "from there"].into_iter().enumerate() {
            let (from, to) = if number == 0 { (&mut ana, &mut bo) } else { (&mut bo, &mut ana) };
            from.send(text).await.expect_sent();
            to.expect_message(text).await;
            from.expect_message(text).await;
            let (trace, spans) = until("the whole trace", async || {
                let spans = collector.spans();
                let frame = spans.iter().find(|span| {
                    span["name"] == "frame send-message" && !traces.contains(&span["traceId"])
                })?;
                let trace = frame["traceId"].clone();
                let named = |name: &str| {
                    let of = |span: &&Value| span["name"] == name && span["traceId"] == trace;
                    spans.iter().filter(of).collect::<Vec<_>>()
                };
                let relay = named("event outbox-relay").first()?["spanId"].clone();
                // The fan-out to the conversation, on both nodes.
                let to_room: Vec<_> = named("fan-out")
                    .into_iter()
                    .filter(|span| span["attributes"].to_string().contains(&format!("conv:{room}")))
                    .collect();
                let nodes: std::collections::BTreeSet<_> =
                    to_room.iter().map(|span| span["node"].to_string()).collect();
                assert!(to_room.iter().all(|span| span["parentSpanId"] == relay), "{to_room:?}");
                // Each node exports its spans in batches: a cause can arrive after its effect.
                let whole: Vec<_> = spans.iter().filter(|span| span["traceId"] == trace).collect();
                let mut reached = 0;
                branch(&whole, &json!(""), 0, &mut |_, _| reached += 1);
                (nodes.len() == 2 && reached == whole.len()).then(|| (trace.clone(), spans.clone()))
            })
            .await;
            println!("{}\n", tree(&spans, &trace));
            traces.push(trace);
        }
        drop((ana, bo));
        other.terminate();
        other.ended().await;
    })
    .await;
}

#[tokio::test]
async fn a_traced_request_continues_its_trace_and_others_are_not_sampled() {
    let collector = Collector::start().await;
    let options = Options::default()
        .set("OTLP_ENDPOINT", format!("http://{}", collector.address))
        .set("OTLP_SAMPLE", "0.0");
    Host::test(options, async |host| {
        let (trace, parent) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
        let headers = [("traceparent", format!("00-{trace}-{parent}-01"))];
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let ana = host.rest("ana");
        ana.get("/api/v1/conversations").await.expect(200);
        ana.send(Method::GET, "/api/v1/conversations", &headers, "").await.expect(200);
        // The spans of its host calls can come in an earlier batch.
        let spans = until("the span of the traced request", async || {
            let spans = collector.spans();
            spans.iter().any(|span| span["parentSpanId"] == parent).then_some(spans)
        })
        .await;
        assert!(spans.iter().all(|span| span["traceId"] == trace), "{spans:?}");
    })
    .await;
}

/// Each fetch has a span of its own below that of its call, with the host that it went to, and without the
/// path, the query and the headers.
#[tokio::test]
async fn each_fetch_has_a_span() {
    let (collector, web) = (Collector::start().await, Web::http().await);
    let options = Options::default()
        .set("OTLP_ENDPOINT", format!("http://{}", collector.address))
        .set("OTLP_SAMPLE", "1.0")
        .set("HANDLERS__FETCHES__BASE", web.base());
    Host::test(options, async |host| {
        host.admin.release(&Release::guest("fetches")).await;
        let asked = |together: bool| {
            let ok = json!({ "url": web.url("/private-path?private=query"), "headers": { "x-a": "private-header" } });
            let refused = json!({ "url": "http://127.0.0.9:1/private-path" });
            json!({ "requests": [ok, refused], "together": together })
        };
        for together in [false, true] {
            host.rest("eve").post("/api/v1/guests/fetches", asked(together)).await.expect(200);
        }
        let (fetches, spans) = until("the spans of four fetches", async || {
            let spans = collector.spans();
            let fetches: Vec<_> = spans.iter().filter(|span| span["name"] == "fetch.send").cloned().collect();
            (fetches.len() == 4).then_some((fetches, spans))
        })
        .await;
        for fetch in &fetches {
            let is_call = |span: &&Value| span["name"] == "http fetches" && span["spanId"] == fetch["parentSpanId"];
            assert!(spans.iter().any(|span| is_call(&span)), "its call is its parent: {fetch}");
            assert_eq!(attribute(fetch, "http.method"), Some(&json!("GET")));
            assert_eq!(attribute(fetch, "handler.name"), Some(&json!("fetches")));
        }
        let with = |key: &str, value: Value| {
            fetches.iter().filter(|fetch| attribute(fetch, key) == Some(&value)).count()
        };
        assert_eq!((with("http.status", json!("200")), with("error.type", json!("refused"))), (2, 2));
        assert_eq!((with("server.address", json!("127.0.0.1")), with("server.address", json!("127.0.0.9"))), (2, 2));
        let port = web.address.port().to_string();
        assert_eq!(with("server.port", json!(port)), 2);
        let all = serde_json::to_string(&*collector.documents.lock().unwrap()).unwrap();
        assert!(!all.contains("private"), "a path, a query or a header is in a span");
    })
    .await;
}

/// From the id that the client gets, `grep` finds the handler's log line, and a search in the collector finds
/// the spans of the call.
#[tokio::test]
async fn a_request_id_leads_to_the_log_lines_and_the_spans_of_its_call() {
    const PATH: &str = "/api/v1/guests/bad-answers";
    let collector = Collector::start().await;
    let options = Options::default()
        .set("OTLP_ENDPOINT", format!("http://{}", collector.address))
        .set("OTLP_SAMPLE", "1.0")
        .set("LOG_JSON", true);
    Host::test(options, async |host| {
        host.admin.release(&Release::guest("bad-answers")).await;
        let eve = host.rest("eve");
        let post = async |how: &str, sent: &[(&str, &str)]| {
            let headers = [&[("content-type", "application/json")], sent].concat();
            let answer = eve.send(Method::POST, &format!("{PATH}/{how}"), &headers, "{}").await;
            answer.headers["x-request-id"].to_str().expect("a plain id").to_owned()
        };
        let chosen = post("log", &[("x-request-id", "find-me")]).await;
        assert_eq!(chosen, "find-me");
        let replaced = post("log", &[("x-request-id", "find me")]).await;
        let made = post("log", &[]).await;
        for id in [&replaced, &made] {
            assert!(uuid::Uuid::parse_str(id).is_ok(), "{id}");
        }
        for id in [&chosen, &replaced, &made] {
            leads_to_a_call(host, &collector, id, "http bad-answers", "handler").await;
        }
        // The line of the host about a failed call.
        let failed = post("trap", &[]).await;
        leads_to_a_call(host, &collector, &failed, "http bad-answers", "switchboard_runtime::invoke").await;

        let handshake = Handshake::bearer(&Token::of("eve").sign()).header("x-request-id", "one-page");
        let mut client = Client::open(host.address, "eve", &handshake).await;
        let frame = json!({ "type": "guests.bad-answer", "payload": { "how": "log" } });
        client.request("guests.bad-answer", frame["payload"].clone()).await.expect("answered");
        leads_to_a_call(host, &collector, "one-page/r1", "frame bad-answers", "handler").await;
        client.write(frame).await;
        client.expect("answered").await;
        leads_to_a_call(host, &collector, "one-page#2", "frame bad-answers", "handler").await;
    })
    .await;
}

/// Waits for a line of this target and a span of this name with the request id, both of one call.
async fn leads_to_a_call(host: &Host, collector: &Collector, id: &str, span: &str, target: &str) {
    let line = until("the log line", async || {
        let lines = host.log();
        let mut lines = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.find(|line| line["request_id"] == id && line["target"] == target)
    })
    .await;
    until("the spans", async || {
        let spans = collector.spans();
        let found = spans.iter().filter(|span| attribute(span, "request_id") == Some(&json!(id)));
        let found: Vec<_> = found.collect();
        assert!(found.iter().all(|span| attribute(span, "call") == Some(&line["call"])), "{found:?} {line}");
        found.iter().any(|found| found["name"] == span).then_some(())
    })
    .await;
}
