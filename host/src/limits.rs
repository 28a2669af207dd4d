//! Every bound of the host, with what happens at it. A handler's own limits are in its manifest; their ceilings are here.

use std::time::Duration;

// ---- words -----------------------------------------------------------------------------------------------------------

/// A token whose `sub` is longer is refused.
pub const USER_ID_CHARS_MAX: usize = 64;
/// A longer address is `refused` to the handler that names it.
pub const ADDRESS_BYTES_MAX: usize = 160;

// ---- the wire --------------------------------------------------------------------------------------------------------

/// A larger REST body is 413, before it is read whole.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// A larger frame closes its connection with 1009.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;
/// A frame with a longer `type` is answered by an error: no binding has such a name.
pub const FRAME_TYPE_BYTES_MAX: usize = 64;
/// A frame with a longer `id`, text or digits, is answered by an error.
pub const FRAME_ID_CHARS_MAX: usize = 64;
/// A frame nested deeper is malformed. Below what JSON parsers of guests stand.
pub const JSON_DEPTH_MAX: usize = 64;
/// A release is uploaded whole; a larger one is 413.
pub const RELEASE_BYTES_MAX: usize = 32 * 1024 * 1024;

// ---- handlers: ceilings of what a manifest may ask for ----------------------------------------------------------------

/// A longer call would hold a connection's queue of frames that long.
pub const HANDLER_DEADLINE_MS_MAX: u64 = 60_000;
pub const HANDLER_CPU_MS_MAX: u64 = 10_000;
/// The pool reserves address space for this much in every slot.
pub const HANDLER_MEMORY_MIB_MAX: u32 = 64;
pub const HANDLER_HOST_CALLS_MAX: u32 = 10_000;
pub const HANDLER_HOST_BYTES_MAX: u64 = 64 * 1024 * 1024;
pub const HANDLER_CONCURRENCY_MAX: u32 = 1024;
/// More often than this is not a schedule but a loop.
pub const SCHEDULE_EVERY_MS_MIN: u64 = 100;
/// Events of one call, so that a batch fits the memory of a guest.
pub const EVENT_BATCH_MAX: u32 = 256;

// ---- releases ----------------------------------------------------------------------------------------------------------

/// A deploy that would add one more is refused.
pub const HANDLERS_MAX: usize = 256;
/// Lists of releases and of their history end here, the newest first.
pub const RELEASES_LISTED_MAX: i64 = 200;
/// A node that says nothing for so long is dead to a deploy: it is not waited for, and converges when it is back.
pub const NODE_SILENT_AFTER: Duration = Duration::from_secs(5);

// ---- Postgres ----------------------------------------------------------------------------------------------------------

/// A longer statement is `refused`.
pub const STATEMENT_BYTES_MAX: usize = 64 * 1024;
/// More parameters, or larger ones together, are `refused`.
pub const PARAMETERS_MAX: usize = 256;
pub const PARAMETERS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// A larger answer is `too-large`, and its connection is thrown away with what is still in it. A cell counts its bytes
/// and [`CELL_BYTES`].
pub const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What a cell costs in the memory of a guest beside its text.
pub const CELL_BYTES: usize = 24;
/// One message of the server, so that a cell of a gigabyte is not held before it is counted. Above `ANSWER_BYTES_MAX`.
pub const POSTGRES_MESSAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Prepared statements a connection keeps; the least recently used is closed.
pub const STATEMENTS_CACHED_MAX: usize = 128;
/// Calls waiting for a connection, all roles together. One more is `busy`.
pub const POSTGRES_WAITING_MAX: usize = 4096;
/// A login that takes longer has failed.
pub const POSTGRES_CONNECT_MS_MAX: u64 = 5_000;
/// After a cancel request the statement gets this long to end before its connection is closed under it.
pub const POSTGRES_CANCEL_GRACE_MS: u64 = 100;
/// Calls in one flight: beyond this the server gains little and a culprit costs more.
pub const COLLECT_BATCH_MAX: usize = 64;
/// Calls waiting in one lane for the next flight. One more is `busy`.
pub const COLLECT_QUEUE_MAX: usize = 1024;
/// Lanes with a flight or a queue, all handlers together. One more is `busy`.
pub const COLLECT_LANES_MAX: usize = 4096;
/// Statements of one collection.
pub const COLLECT_STATEMENTS_MAX: usize = 8;
