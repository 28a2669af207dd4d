//! `switchboard invoke`: makes one call of a handler as it was built last, and shows its host calls. With the
//! services of the configuration, changes stay; without services, host calls to them fail as unavailable.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Failure, Output};
use switchboard_core::config::Config;
use switchboard_core::ids::NodeId;
use switchboard_core::limits;
use switchboard_fanout::{Hub, Wakes};
use switchboard_harness::{Harness, case, test_inputs};
use switchboard_http::outbound::Outbound;
use switchboard_postgres::Postgres;
use switchboard_recording::{Outcome, Recording, Scenario, keep_all};
use switchboard_redis::{self as redis, Redis};
use switchboard_releases::opened_secrets;
use switchboard_releases::repository::Repository;
use switchboard_runtime::{Backends, Inputs};
use switchboard_server::app::keyspace;
use switchboard_telemetry::Tracer;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The handler's name, or a release file.
    handler: String,
    /// JSON with one member, the trigger, and its input: {"frame": {"type": "…", "payload": {…}, "caller":
    /// "ana"}}. Or a recording, whose input is used.
    event: PathBuf,
    /// Use the Postgres and Redis of the configuration, with the settings and secrets of that fleet, and the
    /// network. Changes of the handler stay.
    #[arg(long)]
    real: bool,
    /// The directory with the release files of `switchboard build`.
    #[arg(long, value_name = "DIRECTORY", default_value = "target/handlers")]
    built: PathBuf,
}

pub(crate) async fn run(args: Args, config: &Config, out: &Output) -> Result<(), Failure> {
    let (trigger, input) = event(&args.event)?;
    let file = match Path::new(&args.handler) {
        path if path.is_file() => path.to_owned(),
        _ => args.built.join(format!("{}.wasm", args.handler)),
    };
    if !file.is_file() {
        let missing = format!("there is no {}: `switchboard build {}`", file.display(), args.handler);
        return Err(Failure::Usage(missing));
    }
    let cache = config.data_dir.join("harness");
    let release = switchboard_harness::read(&file)?;
    let manifest = &release.manifest;
    let (harness, inputs) = match args.real {
        true => {
            let (backends, repository) = backends(config).await?;
            let secrets = opened_secrets(&repository, config, manifest).await?;
            let stored = repository.inputs(manifest).await?;
            (Harness::over(&cache, backends)?, Inputs { secrets, ..stored })
        }
        false => (Harness::keeping(&cache)?, test_inputs(manifest, &Scenario::default())),
    };
    let overrides = config.handler_overrides(&manifest.name);
    let handler = harness.load_with(&release, &Inputs { overrides, ..inputs }).await?;
    let recording = handler.invoke(&trigger, input).await?;
    out.answer(&document(&recording), recording.write(keep_all).trim_end());
    match recording.outcome {
        Outcome::Returned(_) => Ok(()),
        _ => Err(Failure::Answered),
    }
}

fn event(path: &Path) -> Result<(String, Value), Failure> {
    if path.extension() == Some("trace".as_ref()) {
        let recording = case::read("", path)?.recording;
        return Ok((recording.trigger, recording.input));
    }
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::Usage(format!("cannot read {}: {error}", path.display())))?;
    let wrong = |why: String| Failure::Usage(format!("{}: {why}", path.display()));
    let event: Value = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    match event.as_object().map(|members| members.iter().collect::<Vec<_>>()).as_deref() {
        Some([(trigger, input)]) => Ok(((*trigger).clone(), (*input).clone())),
        _ => Err(wrong("an event has one member, its trigger: {\"frame\": {…}}".to_owned())),
    }
}

async fn backends(config: &Config) -> Result<(Backends, Repository), Failure> {
    let postgres = Postgres::connect(config).await?;
    let fleet = postgres.fleet().identify().await.map_err(|error| Failure::failed(error.to_string()))?;
    let redis = Redis::connect(config, keyspace(&fleet, postgres.fleet(), None))?;
    tokio::time::timeout(limits::INVOKE_REDIS_WAIT, redis.up())
        .await
        .map_err(|_| Failure::failed("Redis does not answer"))?;
    let wakes = Wakes::default();
    let hub = Hub::start(
        &redis,
        &redis::namespace(&fleet.name),
        NodeId::random(),
        wakes.clone(),
        Tracer::default(),
    );
    let repository = postgres.access(Repository::new);
    Ok((Backends::new(postgres, redis, hub, wakes, Outbound::default()), repository))
}

fn document(recording: &Recording) -> Value {
    let calls = recording.exchanges.iter().map(|call| {
        serde_json::json!({ "function": call.function, "args": call.args, "answer": call.answer, "micros": call.micros })
    });
    let calls = calls.collect::<Vec<_>>();
    serde_json::json!({ "handler": recording.handler, "release": recording.release, "calls": calls, "outcome": recording.outcome })
}
