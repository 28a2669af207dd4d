//! WASI 0.2 for components that were built with other tools. It has no files, no network, no environment and
//! no arguments. Standard output and standard error become log lines. Clocks and randomness go through the
//! same middleware as `clock` and `random`, so that a replay is exact. A handler that does not import WASI
//! pays nothing for it.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::Serialize;
use tokio::io::AsyncWrite;
use wasmtime::component::{HasSelf, Linker, Resource, ResourceTable};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::clocks::WasiClocksView as _;
use wasmtime_wasi::p2::bindings::clocks::{monotonic_clock, wall_clock};
use wasmtime_wasi::p2::bindings::random;
use wasmtime_wasi::p2::{DynPollable, OutputStream, Pollable, StreamResult};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::CallState;
use super::call::Function;
use super::log::CallLogger;
use super::random::draw;
use super::stop::Stop;
use switchboard_contract::log::Level;
use switchboard_core::limits;
use switchboard_fanout::{Hub, Watches};

/// The level of the lines of standard error.
const STDERR_LEVEL: Level = Level::Warn;

/// The WASI state of one call, created when the guest first uses WASI.
pub(super) struct Wasi {
    ctx: WasiCtx,
    table: ResourceTable,
    /// The last answer of the monotonic clock. Deadlines are measured from it, so that a replay, in which the
    /// answers come from a recording, computes the same deadlines.
    now_ns: u64,
    begun: Instant,
}

impl Wasi {
    fn new(lines: &CallLogger, watches: Option<&Watches>) -> Self {
        let output = |level| Output { lines: lines.clone(), level, watches: watches.cloned() };
        let mut table = ResourceTable::new();
        table.set_max_capacity(limits::WASI_RESOURCES_MAX);
        let ctx = WasiCtx::builder()
            .stdout(output(Level::Info))
            .stderr(output(STDERR_LEVEL))
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false)
            .build();
        Self { ctx, table, now_ns: 0, begun: Instant::now() }
    }
}

pub(super) fn link(linker: &mut Linker<CallState>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    linker.allow_shadowing(true);
    wall_clock::add_to_linker::<_, HasSelf<_>>(linker, |state: &mut CallState| state)?;
    monotonic_clock::add_to_linker::<_, HasSelf<_>>(linker, |state: &mut CallState| state)?;
    random::random::add_to_linker::<_, HasSelf<_>>(linker, |state: &mut CallState| state)?;
    random::insecure::add_to_linker::<_, HasSelf<_>>(linker, |state: &mut CallState| state)?;
    random::insecure_seed::add_to_linker::<_, HasSelf<_>>(linker, |state: &mut CallState| state)?;
    linker.allow_shadowing(false);
    Ok(())
}

impl CallState {
    fn wasi(&mut self) -> &mut Wasi {
        let watches = self.backends.hub.as_ref().map(Hub::watches);
        self.wasi.get_or_insert_with(|| Box::new(Wasi::new(&self.log, watches)))
    }

    fn draw_for_wasi(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        #[derive(Serialize)]
        struct Args {
            len: u64,
        }
        if len > limits::WASI_RANDOM_BYTES_MAX {
            let most = limits::WASI_RANDOM_BYTES_MAX;
            return Err(Stop::Broke(format!("wasi:random gives at most {most} bytes, not {len}")).into());
        }
        Ok(self.middleware.call_now(Function::WasiRandom, &Args { len }, || draw(len as usize))?.random)
    }

    fn draw_u64_for_wasi(&mut self) -> wasmtime::Result<u64> {
        let bytes = self.draw_for_wasi(8)?;
        Ok(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }
}

impl WasiView for CallState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let wasi = self.wasi();
        WasiCtxView { ctx: &mut wasi.ctx, table: &mut wasi.table }
    }
}

#[derive(Serialize)]
struct NoArgs {}

impl wall_clock::Host for CallState {
    fn now(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        let (seconds, nanoseconds) = self.middleware.call_now(Function::WasiWallClock, &NoArgs {}, || {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            (since.as_secs(), since.subsec_nanos())
        })?;
        Ok(wall_clock::Datetime { seconds, nanoseconds })
    }

    fn resolution(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        Ok(wall_clock::Datetime { seconds: 0, nanoseconds: 1_000_000 })
    }
}

impl monotonic_clock::Host for CallState {
    fn now(&mut self) -> wasmtime::Result<u64> {
        let begun = self.wasi().begun;
        let now = self
            .middleware
            .call_now(Function::WasiMonotonicClock, &NoArgs {}, || begun.elapsed().as_nanos() as u64)?;
        self.wasi().now_ns = now;
        Ok(now)
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        Ok(1)
    }

    fn subscribe_instant(&mut self, when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let after = when.saturating_sub(self.wasi().now_ns);
        monotonic_clock::Host::subscribe_duration(self, after)
    }

    fn subscribe_duration(&mut self, after: u64) -> wasmtime::Result<Resource<DynPollable>> {
        monotonic_clock::Host::subscribe_duration(&mut self.clocks(), after)
    }
}

impl random::random::Host for CallState {
    fn get_random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        self.draw_for_wasi(len)
    }

    fn get_random_u64(&mut self) -> wasmtime::Result<u64> {
        self.draw_u64_for_wasi()
    }
}

impl random::insecure::Host for CallState {
    fn get_insecure_random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        self.draw_for_wasi(len)
    }

    fn get_insecure_random_u64(&mut self) -> wasmtime::Result<u64> {
        self.draw_u64_for_wasi()
    }
}

impl random::insecure_seed::Host for CallState {
    fn insecure_seed(&mut self) -> wasmtime::Result<(u64, u64)> {
        Ok((self.draw_u64_for_wasi()?, self.draw_u64_for_wasi()?))
    }
}

/// Standard output or standard error. Each whole line goes to the log.
#[derive(Clone)]
struct Output {
    lines: CallLogger,
    level: Level,
    /// None without a hub.
    watches: Option<Watches>,
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Output {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(LineStream { output: self.clone(), unfinished: Line::default() })
    }

    /// Only WASI 0.3 uses this, and it is not linked.
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink())
    }
}

struct LineStream {
    output: Output,
    unfinished: Line,
}

impl LineStream {
    /// The whole line is concealed before it is divided: a part may end in the middle of a secret.
    fn finish_line(&mut self) {
        let Self { output: Output { lines, level, watches }, unfinished } = self;
        let watches = watches.as_ref().filter(|watches| watches.is_watched());
        let line = unfinished.take();
        let line = lines.concealed(line.trim_end());
        if *level == STDERR_LEVEL && !line.is_empty() {
            lines.keep_stderr(&line);
        }
        parts(&line).for_each(|part| lines.write(*level, part, &[], watches));
    }
}

/// A line without its end: at most [`limits::WASI_LINE_BYTES_MAX`]; the rest of a longer line is dropped.
#[derive(Default)]
struct Line(Vec<u8>);

impl Line {
    fn push(&mut self, byte: u8) {
        if self.0.len() < limits::WASI_LINE_BYTES_MAX {
            self.0.push(byte);
        }
    }

    fn take(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.0)).into_owned()
    }
}

/// Divides a line into parts of the size of a log line. A part of white space, and what follows it, is left
/// out.
fn parts(line: &str) -> impl Iterator<Item = &str> {
    let mut rest = line;
    std::iter::from_fn(move || {
        let (part, further) = rest.split_at(rest.floor_char_boundary(limits::LOG_LINE_BYTES_MAX));
        rest = further;
        (!part.trim().is_empty()).then_some(part)
    })
}

#[wasmtime_wasi::async_trait]
impl Pollable for LineStream {
    async fn ready(&mut self) {}
}

impl OutputStream for LineStream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        for byte in bytes {
            match byte {
                b'\n' => self.finish_line(),
                byte => self.unfinished.push(byte),
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(limits::LOG_LINE_BYTES_MAX)
    }
}

impl Drop for LineStream {
    fn drop(&mut self) {
        self.finish_line();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use switchboard_recording::Secrets;

    #[test]
    fn a_long_line_is_divided_and_an_endless_one_is_cut() {
        let mut line = Line::default();
        "ä".repeat(limits::WASI_LINE_BYTES_MAX).bytes().for_each(|byte| line.push(byte));
        let long = line.take();
        assert!(long.len() <= limits::WASI_LINE_BYTES_MAX && line.0.is_empty());
        assert_eq!(parts(&long).collect::<String>(), long);
        assert!(parts(&long).all(|part| part.len() <= limits::LOG_LINE_BYTES_MAX));
        assert_eq!(parts("  ").count(), 0);
    }

    #[test]
    fn a_secret_at_the_end_of_a_part_is_concealed() {
        let secrets = [("KEY".to_owned(), b"s3cret-key".to_vec())].into();
        let secrets = Secrets::new(&Default::default(), &[], &secrets);
        for before in limits::LOG_LINE_BYTES_MAX - 12..limits::LOG_LINE_BYTES_MAX {
            let line = ".".repeat(before) + "s3cret-key";
            let concealed = secrets.conceal_text(&line);
            assert_eq!(parts(&concealed).collect::<String>(), ".".repeat(before) + "[secret KEY]");
        }
    }
}
