//! Measures the cost of a call into a handler besides its work: a send-shaped call with three host calls that
//! are answered at once, each in a fresh instance, beside the same work in plain Rust. Prints one JSON
//! document; asserts no time.
//!
//! `cargo run --example call_overhead -- target/test-guests/send-shaped.wasm [calls]`, after `switchboard
//! build --from tests/guests --out target/test-guests`.

#[path = "../../../tests/guests/send-shaped/src/rules.rs"]
mod rules;

use std::hint::black_box;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rand::TryRngCore as _;
use serde_json::{Value, json};
use switchboard_contract::frame::Request;
use switchboard_contract::types::Principal;
use switchboard_runtime::export::Frame;
use switchboard_runtime::{Backends, Call, Compiler, Inputs, Options, ReleaseFile, Runtime};
use switchboard_telemetry::Tracer;

const PAYLOAD: &str = r#"{"conversation_id":"0198f3c2-7a51-7c3e-9b1a-4f2d8e6b1c90","content":"see you at the con đường at ten, bring the slides","client_msg_id":"7f3d2c1b-0001"}"#;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let file = args.next().ok_or("which release file? (target/test-guests/send-shaped.wasm)")?;
    let calls: usize = args.next().map_or(Ok(20_000), |calls| calls.parse())?;

    let data = tempfile::tempdir()?;
    let options = Options {
        guest_memory_mib: 1024,
        tracer: Tracer::default(),
        compiler: Compiler::InProcess,
        data_dir: data.path().to_owned(),
        secret: "no secret of anyone, only of this run".to_owned(),
        recordings: None,
    };
    let runtime = Runtime::with(options, Backends::default())?;
    let file = ReleaseFile::parse(std::fs::read(file)?)?;
    let release = runtime.load(&file, &Inputs::default()).await?;

    let mut guest = Vec::with_capacity(calls);
    let mut native = Vec::with_capacity(calls);
    // The first ones fault pages in and fill caches. After them both take turns, so that whatever else the
    // machine does meets both.
    for round in 0..calls + calls / 10 {
        let begun = Instant::now();
        let reply = runtime.call::<Frame>(&release, call(), request()).await?;
        let took = begun.elapsed();
        let reply = reply.map_err(|problem| problem.detail)?.ok_or("no reply")?;

        let begun = Instant::now();
        let sent = native_send(black_box(request()));
        let took_native = begun.elapsed();
        assert_eq!(reply.payload.len(), sent.len(), "both do the same");
        if round >= calls / 10 {
            guest.push(took);
            native.push(took_native);
        }
    }
    let (guest, native) = (Figures::of(guest), Figures::of(native));
    let document = json!({
        "what": "call overhead: send-shaped, 3 host calls, fresh instance",
        "profile": if cfg!(debug_assertions) { "dev" } else { "release" },
        "calls": calls,
        "component_bytes": file.bytes.len(),
        "guest_us": guest.document(),
        "native_us": native.document(),
        "over_native_us": { "p50": micros(guest.p50) - micros(native.p50), "p99": micros(guest.p99) - micros(native.p99) },
    });
    println!("{document:#}");
    Ok(())
}

fn call() -> Call {
    Call::new(None)
}

fn request() -> Request {
    Request {
        id: "0198f3c2-7a51-7c3e-9b1a-4f2d8e6b1c91".into(),
        frame_type: "bench.send".into(),
        alias: None,
        payload: PAYLOAD.into(),
        caller: ana(),
        connection: "0198f3c2-7a51-7c3e-9b1a-4f2d8e6b1c92".into(),
    }
}

fn ana() -> Principal {
    Principal { user_id: "ana".into(), name: None, roles: Vec::new(), session_id: "s".into() }
}

fn native_send(request: Request) -> String {
    let world = rules::World {
        chars_max: || black_box(2000),
        now_ms: || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64),
        id: || {
            let mut id = [0; 16];
            rand::rngs::OsRng.try_fill_bytes(&mut id).expect("the operating system gives random bytes");
            id
        },
    };
    rules::send(&request.payload, &request.caller.user_id, &world).expect("a good message")
}

struct Figures {
    p50: Duration,
    p99: Duration,
    max: Duration,
}

impl Figures {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
        Self { p50: at(0.5), p99: at(0.99), max: at(1.0) }
    }

    fn document(&self) -> Value {
        json!({ "p50": micros(self.p50), "p99": micros(self.p99), "max": micros(self.max) })
    }
}

fn micros(time: Duration) -> f64 {
    (time.as_nanos() as f64 / 100.0).round() / 10.0
}
