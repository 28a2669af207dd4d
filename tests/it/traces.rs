//! What a collector is told of a message's way: the frame, its handler, each host call, the consumer that the commit woke,
//! the fan-out, under one trace. And what it is not told.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use switchboard_tests::host::{Host, Options};
use switchboard_tests::patience::until;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A collector of its own: takes everything, keeps everything.
struct Collector {
    address: SocketAddr,
    said: Arc<Mutex<Vec<Value>>>,
}

impl Collector {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound listener");
        let said = Arc::<Mutex<Vec<Value>>>::default();
        let kept = said.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let document = take(stream).await.expect("a whole request");
                kept.lock().unwrap().push(document);
            }
        });
        Self { address, said }
    }

    fn spans(&self) -> Vec<Value> {
        let said = self.said.lock().unwrap();
        let spans = said.iter().flat_map(|document| {
            document["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().cloned().expect("spans")
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
        .set("OTLP_ENDPOINT", format!("http://{}", collector.address))
        .set("OTLP_SAMPLE", "1.0");
    Host::test(options, async |host| {
        let (mut ana, mut bo) = host.two_members("lobby").await;
        ana.send("a text that nobody else is to read").await.expect_sent();
        bo.expect_message("a text that nobody else is to read").await;

        let of_trace = |spans: &[Value], name: &str, trace: &Value| {
            spans.iter().find(|span| span["name"] == name && span["traceId"] == *trace).cloned()
        };
        let (frame, relay, spans) = until("the whole trace", async || {
            let spans = collector.spans();
            let frame = spans.iter().find(|span| span["name"] == "frame send-message")?.clone();
            let trace = &frame["traceId"];
            let relay = of_trace(&spans, "event outbox-relay", trace)?;
            of_trace(&spans, "fan-out", trace)?;
            Some((frame, relay, spans))
        })
        .await;
        let trace = &frame["traceId"];
        assert_eq!((&frame["parentSpanId"], &frame["kind"]), (&json!(""), &json!(2)));
        let collect = of_trace(&spans, "postgres.collect", trace).expect("its host call");
        assert_eq!(collect["parentSpanId"], frame["spanId"]);
        assert_eq!(relay["parentSpanId"], frame["spanId"], "woken by the frame");
        let publish = of_trace(&spans, "channels.publish", trace).expect("the relay publishes");
        assert_eq!(publish["parentSpanId"], relay["spanId"]);
        let fan_out = of_trace(&spans, "fan-out", trace).expect("heard here");
        assert_eq!(fan_out["parentSpanId"], relay["spanId"]);
        println!("{}", page(&spans, trace));

        let all = serde_json::to_string(&*collector.said.lock().unwrap()).unwrap();
        assert!(!all.contains("nobody else is to read"), "a text is in a span");
        let said = collector.said.lock().unwrap();
        let resource = said[0]["resourceSpans"][0]["resource"]["attributes"].to_string();
        assert!(resource.contains("service.name") && resource.contains("switchboard"), "{resource}");
    })
    .await;
}

/// One line a span, as a person would read it.
fn page(spans: &[Value], trace: &Value) -> String {
    let nanos =
        |span: &Value, key: &str| span[key].as_str().and_then(|text| text.parse::<u128>().ok()).unwrap_or(0);
    let mut of_trace: Vec<&Value> = spans.iter().filter(|span| span["traceId"] == *trace).collect();
    of_trace.sort_by_key(|span| nanos(span, "startTimeUnixNano"));
    let start = of_trace.first().map_or(0, |span| nanos(span, "startTimeUnixNano"));
    let lines = of_trace.iter().map(|span| {
        let (from, to) = (nanos(span, "startTimeUnixNano"), nanos(span, "endTimeUnixNano"));
        format!("{:>8} us  {:>7} us  {}", (from - start) / 1000, (to - from) / 1000, span["name"])
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn a_request_that_is_traced_already_goes_on_in_its_trace_and_others_are_not_sampled() {
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
        ana.send(hyper::Method::GET, "/api/v1/conversations", &headers, "").await.expect(200);
        let spans = until("the traced request", async || {
            let spans = collector.spans();
            (!spans.is_empty()).then_some(spans)
        })
        .await;
        assert!(spans.iter().all(|span| span["traceId"] == trace), "{spans:?}");
        assert!(spans.iter().any(|span| span["parentSpanId"] == parent), "{spans:?}");
    })
    .await;
}
