//! A node: clients, operators, triggers, and how all of it starts and ends.

use switchboard_contract as contract;
use switchboard_core::{config, ids, limits, manifest, shares, shutdown};
use switchboard_fanout as fanout;
use switchboard_http::{fetch, http_server};
use switchboard_postgres as postgres;
use switchboard_protocol::{session, wire};
use switchboard_redis as redis;
use switchboard_releases as releases;
use switchboard_runtime as runtime;
use switchboard_telemetry as telemetry;

pub mod admin;
pub mod app;
pub mod gateway;
pub mod revocations;
pub mod triggers;
