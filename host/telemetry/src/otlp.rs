//! Sends spans to a collector, as OTLP over HTTP in JSON: one batch a second. If the collector is away, its
//! spans are lost and nothing else happens.

use std::time::UNIX_EPOCH;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::handshake;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::{debug, info};

use super::Error;
use super::spans::{Span, Tracer};
use switchboard_core::config::Config;
use switchboard_core::ids::NodeId;
use switchboard_core::limits;

/// The path of collectors, below the configured address.
const PATH: &str = "/v1/traces";

/// Starts an exporter if the configuration names a collector. Returns the tracer that feeds it; without a
/// collector, one that records nothing.
///
/// # Errors
/// If the collector's address or the sample's share is not valid.
pub(super) fn start(config: &Config, node: NodeId) -> Result<Tracer, Error> {
    let Some(endpoint) = &config.otlp_endpoint else { return Ok(Tracer::default()) };
    let uri: Uri = endpoint.parse().map_err(Error::OtlpAddress)?;
    let is_http = uri.scheme_str() == Some("http");
    let authority = uri.authority().filter(|_| is_http).ok_or(Error::OtlpEndpoint)?;
    if !(0.0..=1.0).contains(&config.otlp_sample) {
        return Err(Error::OtlpSample);
    }
    let address = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(4318));
    let path = if uri.path().len() > 1 { uri.path().to_owned() } else { PATH.to_owned() };
    let (tracer, queue) = Tracer::new(config.otlp_sample);
    info!(%address, sample = config.otlp_sample, "spans go to a collector");
    tokio::spawn(export(queue, address, path, node));
    Ok(tracer)
}

async fn export(mut queue: mpsc::Receiver<Span>, address: String, path: String, node: NodeId) {
    let mut reachable = true;
    loop {
        let mut batch = Vec::new();
        let began = tokio::time::Instant::now();
        // Wait for the first span; those of the following second go into the same batch.
        if queue.recv_many(&mut batch, limits::SPANS_BATCH_MAX).await == 0 {
            return;
        }
        while batch.len() < limits::SPANS_BATCH_MAX
            && let Ok(Some(span)) =
                tokio::time::timeout_at(began + limits::SPANS_SENT_EVERY, queue.recv()).await
        {
            batch.push(span);
        }
        let body = document(&batch, node).to_string();
        let sent = timeout(limits::SPANS_ANSWER_WAIT, post(&address, &path, body)).await;
        let sent = sent.unwrap_or_else(|_| Err("no answer in time".into()));
        if let Err(error) = &sent {
            metrics::counter!("switchboard_spans_dropped_total").increment(batch.len() as u64);
            if reachable {
                info!(%address, %error, "spans are lost until the collector answers");
            } else {
                debug!(%address, %error, "spans are lost");
            }
        }
        reachable = sent.is_ok();
    }
}

async fn post(
    address: &str,
    path: &str,
    body: String,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    let request = Request::post(path)
        .header(HOST, address)
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))?;
    let answered = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        answer.into_body().collect().await?;
        if status.is_success() { Ok(()) } else { Err(format!("status {status}").into()) }
    };
    let mut answered = std::pin::pin!(answered);
    tokio::select! {
        done = answered.as_mut() => done,
        _ = connection => answered.await,
    }
}

/// `ExportTraceServiceRequest` in its JSON encoding: ids in hex, times as text.
fn document(spans: &[Span], node: NodeId) -> Value {
    let text = |key: &str, value: &str| json!({ "key": key, "value": { "stringValue": value } });
    let spans: Vec<Value> = spans
        .iter()
        .map(|span| {
            let began = span.began.duration_since(UNIX_EPOCH).unwrap_or_default();
            json!({
                "traceId": format!("{:032x}", span.context.trace),
                "spanId": format!("{:016x}", span.context.span),
                "parentSpanId": span.parent.map(|parent| format!("{parent:016x}")).unwrap_or_default(),
                "name": span.name,
                "kind": span.kind as u8,
                "startTimeUnixNano": began.as_nanos().to_string(),
                "endTimeUnixNano": (began + span.took).as_nanos().to_string(),
                "attributes": span.attributes.iter().map(|(key, value)| text(key, value)).collect::<Vec<_>>(),
                "status": if span.failed { json!({ "code": 2 }) } else { json!({}) },
            })
        })
        .collect();
    json!({
        "resourceSpans": [{
            "resource": { "attributes": [
                text("service.name", "switchboard"),
                text("service.version", env!("CARGO_PKG_VERSION")),
                text("service.instance.id", &node.to_string()),
            ] },
            "scopeSpans": [{ "scope": { "name": "switchboard" }, "spans": spans }],
        }],
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::spans::{Context, Kind};

    #[test]
    fn a_batch_reads_as_the_protocol_has_it() {
        let span = Span {
            context: Context { trace: 0xaf, span: 7 },
            parent: Some(5),
            name: "postgres.collect".to_owned(),
            kind: Kind::Client,
            began: SystemTime::UNIX_EPOCH + Duration::from_millis(3),
            took: Duration::from_millis(2),
            attributes: vec![("handler.name", "send-message".to_owned())],
            failed: true,
        };
        let document = document(&[span], NodeId::random());
        let span = &document["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
        assert_eq!(span["traceId"], "000000000000000000000000000000af");
        assert_eq!(
            (&span["spanId"], &span["parentSpanId"]),
            (&json!("0000000000000007"), &json!("0000000000000005"))
        );
        assert_eq!(
            (&span["startTimeUnixNano"], &span["endTimeUnixNano"]),
            (&json!("3000000"), &json!("5000000"))
        );
        assert_eq!((&span["kind"], &span["status"]["code"]), (&json!(3), &json!(2)));
        assert_eq!(span["attributes"][0]["value"]["stringValue"], "send-message");
    }

    #[test]
    fn what_is_no_collector_is_named() {
        let with = |endpoint: &str, sample| Config {
            otlp_endpoint: Some(endpoint.to_owned()),
            otlp_sample: sample,
            ..Config::default()
        };
        for (bad, reason) in [
            (with("collector", 0.1), "otlp_endpoint"),
            (with("https://collector:4318", 0.1), "otlp_endpoint"),
            (with("http://127.0.0.1:4318", 1.5), "otlp_sample"),
        ] {
            assert!(start(&bad, NodeId::random()).err().unwrap().to_string().contains(reason));
        }
        assert!(!start(&Config::default(), NodeId::random()).unwrap().is_on());
    }
}
