//! The costs of what the platform gives to handlers beside Postgres, Redis and channels. A fetch is measured
//! inside the host's own code (`host/http/benches/fetch_cost.rs`), because its cost is a part of a call that
//! no client can see alone. The service is a server of this process, on the loopback, with TLS. The control
//! is a client of this process that does the same without grants, breaker, pool and checks of addresses.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use switchboard_tests::paths;
use switchboard_tests::web::{Authority, Web};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::figures::{By, Figures, Latencies, Row, Spread};

/// None, with a note to the reader, if the example was not built.
pub(crate) async fn rows(fetches: usize) -> Vec<Row> {
    let authority = Authority::make();
    let web = Web::https(&authority).await;
    let Some(document) = measured(&authority, &web, fetches).await else { return Vec::new() };
    let controls = match native(&authority, &web, fetches).await {
        Ok(controls) => controls,
        Err(error) => {
            eprintln!("fetch: the native client: {error}");
            return Vec::new();
        }
    };
    let names = [("pooled_us", "pooled connection"), ("new_us", "new connection")];
    names
        .into_iter()
        .zip(controls)
        .filter_map(|((key, name), control)| {
            let us = |of: &str| document[key][of].as_f64();
            let spread = Spread { p50_us: us("p50")?, p99_us: us("p99")?, max_us: us("max")? };
            Some(Row {
                name: format!("fetch over TLS on the loopback, {name}"),
                figures: Figures { spread: Some(spread), ..Figures::default() },
                control_name: "the same with hyper alone".into(),
                control: Figures { spread: control.spread(), ..Figures::default() },
                peers: None,
                by: By::P50,
                to_reach: "a fetch costs what its exchange costs",
            })
        })
        .collect()
}

async fn measured(authority: &Authority, web: &Web, fetches: usize) -> Option<Value> {
    let program = paths::sibling("examples/fetch_cost");
    let output = tokio::process::Command::new(&program)
        .arg(web.url("/"))
        .arg(fetches.to_string())
        .env("SSL_CERT_FILE", authority.file())
        .output()
        .await;
    match output {
        Ok(output) if output.status.success() => serde_json::from_slice(&output.stdout).ok(),
        Ok(output) => {
            eprintln!("fetch: {}", String::from_utf8_lossy(&output.stderr));
            None
        }
        Err(error) => {
            eprintln!("fetch: {}: {error}; scripts/bench builds it", program.display());
            None
        }
    }
}

/// The same requests by hyper: over one connection, and with a connection each.
async fn native(
    authority: &Authority,
    web: &Web,
    fetches: usize,
) -> Result<[Latencies; 2], Box<dyn std::error::Error>> {
    let connector = authority.connector();
    let (mut pooled, mut new) = (Latencies::default(), Latencies::default());
    let mut kept = connect(&connector, web).await?;
    for round in 0..fetches + fetches / 10 {
        let begun = Instant::now();
        get(&mut kept, web).await?;
        let of_pool = begun.elapsed();
        let begun = Instant::now();
        get(&mut connect(&connector, web).await?, web).await?;
        let of_new = begun.elapsed();
        if round >= fetches / 10 {
            pooled.add(of_pool);
            new.add(of_new);
        }
    }
    Ok([pooled, new])
}

async fn connect(
    connector: &Arc<TlsConnector>,
    web: &Web,
) -> Result<SendRequest<Empty<Bytes>>, Box<dyn std::error::Error>> {
    let stream = TcpStream::connect(web.address).await?;
    stream.set_nodelay(true)?;
    let stream = connector.connect(web.address.ip().into(), stream).await?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    // It ends with the sender.
    tokio::spawn(connection);
    Ok(sender)
}

async fn get(sender: &mut SendRequest<Empty<Bytes>>, web: &Web) -> Result<(), Box<dyn std::error::Error>> {
    sender.ready().await?;
    let request = Request::get("/").header("host", web.address.to_string()).body(Empty::new())?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    answer.into_body().collect().await?;
    if status == 200 { Ok(()) } else { Err(format!("status {status}").into()) }
}
