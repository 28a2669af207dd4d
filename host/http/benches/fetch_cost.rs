//! Measures a fetch in the host: over a connection of the pool, and with a new connection and its TLS
//! handshake. Prints one JSON document; asserts no time. `load` starts it with a service of its own
//! (`tests/load/platform.rs`).
//!
//! `SSL_CERT_FILE=roots.pem fetch_cost https://127.0.0.1:8443/ [fetches]`

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use switchboard_contract::fetch::Request;
use switchboard_core::limits;
use switchboard_core::manifest::{FetchGrant, FetchRules};
use switchboard_http::outbound::{Allowance, Conceal, Outbound, Room, quota};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let url = args.next().ok_or("which URL?")?;
    let fetches: usize = args.next().map_or(Ok(2_000), |fetches| fetches.parse())?;
    let grant = FetchGrant { methods: vec!["GET".to_owned()], url: url.clone(), addresses: Vec::new() };
    let rules = FetchRules::expand(&[grant], &BTreeMap::new())?;
    let outbound = Outbound::default();
    let room_of_all = quota().claim();
    let conceal: Conceal = Arc::new(str::to_owned);
    let one = async |handler: &str| -> Result<Duration, String> {
        let request = Request {
            method: "GET".to_owned(),
            url: url.clone(),
            headers: vec![("accept".to_owned(), "application/json".to_owned())],
            body: Vec::new(),
            timeout_ms: None,
            redirects: 0,
        };
        let begun = Instant::now();
        let room = Room::new(room_of_all.clone(), limits::FETCH_BYTES_MAX);
        let allowed = Allowance {
            handler,
            rules: &rules,
            concurrency: 32,
            bytes_max: limits::FETCH_BYTES_MAX,
            room: &room,
            conceal: &conceal,
            deadline: tokio::time::Instant::now() + Duration::from_secs(10),
        };
        let response = outbound.send(&allowed, request).await.map_err(|error| format!("{error:?}"))?;
        if response.status != 200 { Err(format!("status {}", response.status)) } else { Ok(begun.elapsed()) }
    };
    let (mut pooled, mut new) = (Vec::with_capacity(fetches), Vec::with_capacity(fetches));
    // Both take turns, so that whatever else the machine does meets both. The first ones load the
    // certificates.
    for round in 0..fetches + fetches / 10 {
        // A connection belongs to one handler: another handler needs a new one.
        let (of_pool, of_new) = (one("bench").await?, one(&format!("bench-{round}")).await?);
        if round >= fetches / 10 {
            pooled.push(of_pool);
            new.push(of_new);
        }
    }
    println!("{:#}", json!({ "fetches": fetches, "pooled_us": spread(pooled), "new_us": spread(new) }));
    Ok(())
}

fn spread(mut times: Vec<Duration>) -> Value {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_nanos() as f64 / 1000.0;
    json!({ "p50": at(0.5), "p99": at(0.99), "max": at(1.0) })
}
