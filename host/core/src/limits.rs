//! The limits of the host: every bound of the product, and every time that the operator does not set. They
//! are ordered by layer, as `scripts/crates` prints it, and within a layer by subject. Each comment says what
//! the limit bounds and what happens there. Times are `Duration`s; other limits have their unit in the name.
//!
//! The limits of one handler are in its manifest, and their maxima are here. The operator's settings, with
//! their defaults, are in `config`.
//!
//! These numbers stay where they are used, because they bound nothing that a user, a handler or an operator
//! can meet:
//!
//! - numbers that a format or another product fixes: the control frames of RFC 6455, the slots of a Redis
//!   cluster, the names of a registry, the oldest version of Postgres, the probe rows of a migration;
//! - the form of a text: the width of a recording, the characters of a value that an error shows;
//! - the size of one buffer or the shape of one data structure, the priority of a thread, and how often a
//!   command of the CLI polls;
//! - everything in tests, benches and simulations.

use std::time::Duration;

// ==== core =================================================================================================

// ---- ids --------------------------------------------------------------------------------------------------

/// Maximum length of a token's `sub`. A longer one is refused.
pub const USER_ID_CHARS_MAX: usize = 64;
/// Maximum length of an address. A longer one is `refused` to the handler. The longest user id has 64
/// characters of four bytes.
pub const ADDRESS_BYTES_MAX: usize = 264;

// ---- manifests: maxima. A manifest with more is refused. --------------------------------------------------

/// Maximum length of the name of a handler or of a schedule.
pub const MANIFEST_NAME_BYTES_MAX: usize = 64;
/// Maximum length of `grants.postgres`. A role in Postgres has at most 63 bytes, with the host's prefix.
pub const ROLE_NAME_BYTES_MAX: usize = 40;
/// Maximum `limits.deadline_ms`, because a call delays the later frames of its connection that long.
pub const HANDLER_DEADLINE_MAX: Duration = Duration::from_secs(60);
/// Maximum `limits.cpu_ms`.
pub const HANDLER_CPU_MAX: Duration = Duration::from_secs(10);
/// Maximum `limits.memory_mib`. The pool reserves this much address space in every slot.
pub const HANDLER_MEMORY_MIB_MAX: u32 = 64;
/// Maximum `limits.host_calls`.
pub const HANDLER_HOST_CALLS_MAX: u32 = 10_000;
/// Maximum `limits.host_bytes`.
pub const HANDLER_HOST_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Maximum `limits.concurrency`: half of [`CALLS_MAX`].
pub const HANDLER_CONCURRENCY_MAX: u32 = 1024;
/// Minimum `every_ms` of a schedule, and the minimum interval at which a node looks for due schedules.
pub const SCHEDULE_EVERY_MIN: Duration = Duration::from_millis(100);
/// Maximum number of schedules of one handler.
pub const SCHEDULES_PER_HANDLER_MAX: usize = 256;
/// Maximum length of a cron expression.
pub const CRON_BYTES_MAX: usize = 256;
/// Number of days in which the next time of a cron expression is looked for. There can be eight years from
/// one 29 February to the next. An expression without any time is refused.
pub const CRON_DAYS_MAX: u32 = 9 * 366;
/// Maximum number of events in one call, so that a batch fits into the memory of a guest.
pub const EVENT_BATCH_MAX: u32 = 256;
/// Maximum `pace_ms` of a consumer.
pub const EVENT_PACE_MAX: Duration = Duration::from_secs(1);
/// Maximum `attempts` of a consumer, and of timers. After the last attempt the event or timer is parked.
pub const EVENT_ATTEMPTS_MAX: u32 = 100;
/// Maximum number of actions in `on.before`.
pub const HOOKS_PER_HANDLER_MAX: usize = 64;
/// Maximum number of hooks of one action, of all handlers together, because each of them makes every client
/// of the action wait. A deploy that would add one more is refused.
pub const HOOKS_PER_ACTION_MAX: usize = 8;
/// Maximum number of methods in `on.call`, and of handlers in `grants.calls`.
pub const CALL_METHODS_MAX: usize = 64;
/// Maximum `canary.failures`: a canary that only fails is withdrawn by then.
pub const CANARY_FAILURES_MAX: u32 = 50;
/// Maximum number of grants in `grants.fetch`.
pub const FETCH_GRANTS_MAX: usize = 64;
/// Maximum number of networks in one of them.
pub const FETCH_ADDRESSES_MAX: usize = 64;
/// Maximum `limits.fetches`.
pub const FETCHES_PER_CALL_MAX: u32 = 64;
/// Maximum `limits.fetch_bytes`.
pub const FETCH_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Maximum `limits.fetch_concurrency`: half of [`FETCH_CONNECTIONS_MAX`].
pub const FETCH_CONCURRENCY_MAX: u32 = 256;
/// Maximum number of secrets that `grants.secrets` names, because the host looks for each of them in every
/// log line of the handler.
pub const SECRETS_PER_HANDLER_MAX: usize = 32;
/// Maximum length of a secret's name. A longer one is refused.
pub const SECRET_NAME_BYTES_MAX: usize = 64;
/// Maximum number of `public_settings`.
pub const PUBLIC_SETTINGS_MAX: usize = 64;
/// Maximum number of settings that a manifest names, and of live settings of a handler. More are refused.
pub const SETTINGS_PER_HANDLER_MAX: usize = 128;
/// Maximum size of the value of a setting. A larger one is refused.
pub const SETTING_BYTES_MAX: usize = 16 * 1024;

// ---- settings ---------------------------------------------------------------------------------------------

/// Minimum `guest_memory_mib`. With less, the largest call would fit only on an idle node, so the node does
/// not start.
pub const GUEST_MEMORY_MIB_MIN: u32 = 128;

// ==== protocol =============================================================================================

// ---- frames -----------------------------------------------------------------------------------------------

/// Maximum size of a frame. A larger one closes its connection with 1009.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;
/// Maximum length of a frame's `type`. A longer one gets an error: no binding has such a name.
pub const FRAME_TYPE_BYTES_MAX: usize = 64;
/// Maximum length of a frame's `id`, text or digits. A longer one gets an error.
pub const FRAME_ID_CHARS_MAX: usize = 64;
/// Maximum nesting of a frame. A deeper one is malformed. JSON parsers of guests can handle this depth.
pub const JSON_DEPTH_MAX: usize = 64;
/// Maximum number of malformed frames in a minute. One more closes the connection with 4002.
pub const MALFORMED_FRAMES_MAX: usize = 10;
/// This many overflows of the frame rate within a minute close the connection with 4029.
pub const FLOODS_MAX: usize = 3;
/// The wait that a flooding client gets. Frames that are refused meanwhile belong to the same overflow.
pub const FLOOD_PAUSE: Duration = Duration::from_secs(1);

// ---- one connection ---------------------------------------------------------------------------------------

/// Interval of checking the queue of a socket that accepts no bytes. Once the queue is full, `stall_ms`
/// counts.
pub const BLOCKED_CHECK_EVERY: Duration = Duration::from_secs(5);
/// Maximum time until a connection closes because its token has expired. A token that is valid for longer is
/// checked at the next connection.
pub const TOKEN_TIMER_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

// ---- HTTP -------------------------------------------------------------------------------------------------

/// The wait (`Retry-After`) of a client or an operator for whom a backend or a slot is not available now.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Maximum length of a client's `x-request-id`. A longer one is replaced by a new id.
pub const REQUEST_ID_BYTES_MAX: usize = 64;
/// Maximum length of a handler's sentence: the detail of a problem, the error of a schedule, the reason of a
/// rejected event. A longer one is cut.
pub const REASON_BYTES_MAX: usize = 4 * 1024;

// ==== recording ============================================================================================

/// Maximum size of arguments and answers in one recording; later host calls are left out, and the recording
/// states their number.
pub const RECORDING_BYTES_MAX: u64 = 64 * 1024;
/// A secret setting of at least this many bytes is concealed wherever its value appears in a recording or a
/// log line. A shorter one is concealed only in the answer of `config.get`, because `5` or `true` would match
/// everywhere. A secret of an operator has at least this many bytes; a shorter one is refused.
pub const SECRET_BYTES_MIN: usize = 8;
/// Maximum number of pairs of host calls that a comparison of two recordings aligns. With more pairs it
/// compares the host calls one by one, in order.
pub const DIFF_PAIRS_MAX: usize = 1_000_000;

// ==== telemetry ============================================================================================

/// Maximum number of spans that wait to be sent; one more is dropped and counted.
pub const SPANS_WAITING_MAX: usize = 4096;
/// Maximum number of spans in one request to the collector; more go with the next request.
pub const SPANS_BATCH_MAX: usize = 1024;
/// Interval of these requests, and so the maximum delay of a span.
pub const SPANS_SENT_EVERY: Duration = Duration::from_secs(1);
/// Maximum wait for the collector's answer. Then the spans of the request are dropped and counted.
pub const SPANS_ANSWER_WAIT: Duration = Duration::from_secs(5);
/// Maximum number of wakes and publications of traced calls without a seen effect; beyond it the oldest are
/// forgotten.
pub const TRACES_PENDING_MAX: usize = 64;
/// Time for which a wake by a traced call counts as the cause of a consumer's call. One call wakes several
/// consumers; later calls have another cause.
pub const TRACED_WAKE_VALID_FOR: Duration = Duration::from_millis(500);
/// Maximum wait for a publication of a traced call. If it has not arrived by then, this node has no reader.
pub const TRACED_DELIVERY_WAIT: Duration = Duration::from_secs(5);
/// Interval of folding the samples of histograms into buckets. A histogram keeps every sample until then, and
/// without a scrape nothing else folds them.
pub const METRICS_UPKEEP_EVERY: Duration = Duration::from_secs(5);

// ==== postgres =============================================================================================

// ---- statements of handlers -------------------------------------------------------------------------------

/// Maximum length of a statement. A longer one is `refused`.
pub const STATEMENT_BYTES_MAX: usize = 64 * 1024;
/// Maximum number of parameters. More are `refused`.
pub const PARAMETERS_MAX: usize = 256;
/// Maximum size of all parameters of a statement. More is `refused`.
pub const PARAMETERS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Maximum size of an answer. A larger one is `too-large`, and its connection is closed. A cell counts its
/// bytes and [`CELL_BYTES`].
pub const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Memory of a cell in a guest, beside its text.
pub const CELL_BYTES: usize = 24;
/// Maximum size of one message of the server, so that a cell of a gigabyte is not held before it is counted.
/// It is above [`ANSWER_BYTES_MAX`]. A larger message closes the connection.
pub const POSTGRES_MESSAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Maximum number of prepared statements of a connection; at the bound the least recently used is closed.
pub const STATEMENTS_CACHED_MAX: usize = 128;
/// Maximum time of a handler's statement in Postgres. It is above every call's deadline, so it ends only a
/// statement whose node is gone and cannot cancel it.
pub const POSTGRES_STATEMENT_MAX: Duration = Duration::from_secs(HANDLER_DEADLINE_MAX.as_secs() + 5);
/// Maximum idle time of an open transaction, so that a node that is cut off does not hold its locks. Then
/// Postgres closes the connection.
pub const POSTGRES_IDLE_TRANSACTION_MAX: Duration = POSTGRES_STATEMENT_MAX;
/// Interval at which Postgres checks whether the client of a running statement is gone.
pub const POSTGRES_CLIENT_CHECK_EVERY: Duration = Duration::from_secs(1);
/// Maximum size of the temporary files of a handler's session. A statement that needs more fails with 53400.
pub const POSTGRES_TEMP_FILES_MB_MAX: u32 = 64;

// ---- connections of handlers ------------------------------------------------------------------------------

/// Maximum number of calls that wait for a connection, all roles together. One more is `busy`.
pub const POSTGRES_WAITING_MAX: usize = 4096;
/// Maximum number of calls of one role among them. One more is `busy`, so that no role takes the slots of the
/// others.
pub const POSTGRES_WAITING_PER_ROLE_MAX: usize = 1024;
/// A returned connection goes to a waiting call of the same role before a call of another role, but only
/// while that other call has waited less than this. A login takes milliseconds.
pub const POSTGRES_SAME_ROLE_FIRST_MAX: Duration = Duration::from_millis(20);
/// Maximum time of a login. A longer one has failed.
pub const POSTGRES_CONNECT_WAIT: Duration = Duration::from_secs(5);
/// Time for a statement to end after a cancel request. Then its connection is closed.
pub const POSTGRES_CANCEL_GRACE: Duration = Duration::from_millis(100);

// ---- group commit -----------------------------------------------------------------------------------------

/// Maximum number of calls in one batch: a larger batch gains little, and finding a failing call costs more.
/// Further calls form the next batch.
pub const COLLECT_BATCH_MAX: usize = 64;
/// Maximum number of calls that wait in one lane for the next batch. One more is `busy`.
pub const COLLECT_QUEUE_MAX: usize = 1024;
/// Maximum number of lanes with a batch or a queue, all handlers together. One more is `busy`.
pub const COLLECT_LANES_MAX: usize = 4096;
/// Maximum number of statements of one group commit. More are `refused`.
pub const COLLECT_STATEMENTS_MAX: usize = 8;

// ---- the host's own connections ---------------------------------------------------------------------------

/// Maximum number of connections of the host itself. They do not count in the budget of the handlers. A
/// further statement of the host waits for one, up to [`POSTGRES_HOST_WAIT`].
pub const POSTGRES_HOST_CONNECTIONS_MAX: u32 = 8;
/// Maximum time of a statement of the host, with the wait for its connection. Then it has failed.
pub const POSTGRES_HOST_WAIT: Duration = Duration::from_secs(5);
/// Maximum time of a statement of the host in Postgres, which makes and drops partitions in one statement.
/// The node has given up long before, except for these.
pub const POSTGRES_HOST_STATEMENT_MAX: Duration = Duration::from_secs(300);
/// Maximum wait of the host for a lock on the revocations or on the row of the fleet. Then the operator's
/// request fails.
pub const POSTGRES_HOST_LOCK_WAIT: Duration = Duration::from_secs(5);
/// A connection of the host that was idle for longer is checked before it is used. The node's poll notices a
/// server that is gone or read-only; from then on every connection is checked.
pub const POSTGRES_HOST_IDLE_MAX: Duration = Duration::from_secs(15);
/// After a poll failed, or a server was seen to be read-only, each connection is checked before each use for
/// this long.
pub const POSTGRES_SUSPECTED_FOR: Duration = Duration::from_secs(5);
/// Wait between two attempts to reach a server that is starting up.
pub const POSTGRES_REACH_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// Number of checks for a pooler between node and server. A pooler may give out the same server session twice
/// by chance.
pub const POOLER_CHECKS: usize = 3;
/// Maximum number of attempts to alter a role. When two databases of one server alter the same role at once,
/// one of them fails. After the last attempt the migration fails.
pub const ROLE_ALTER_ATTEMPTS_MAX: usize = 20;

// ---- readiness --------------------------------------------------------------------------------------------

/// Maximum time of a readiness probe until its COMMIT. It is below [`READY_WAIT`], so that the check can name
/// the reason.
pub const POSTGRES_PROBE_WAIT: Duration = Duration::from_millis(900);
/// Time for which the result of a probe is used again, so that several requests cost one COMMIT.
pub const POSTGRES_PROBE_FRESH_FOR: Duration = Duration::from_millis(400);
/// Pause after a probe without an answer: its server process may still hang, and hanging ones must not add
/// up.
pub const POSTGRES_PROBE_PAUSE: Duration = Duration::from_secs(3);
/// Time for which one role is probed; then the probe logs in as the next role.
pub const POSTGRES_PROBE_TURN: Duration = Duration::from_secs(5);

// ---- the outbox -------------------------------------------------------------------------------------------

/// Number of shards of the outbox. It is part of the stored data: `switchboard.shard` in the migrations has
/// the same number.
pub const OUTBOX_SHARDS: u32 = 8;
/// Maximum time of a consumer's read. Then it uses another connection.
pub const OUTBOX_READ_WAIT: Duration = Duration::from_secs(5);
/// Maximum size of the newest events of a shard that a node keeps for its consumers, beside the last page. A
/// consumer that is further behind reads Postgres through a connection of its own.
pub const OUTBOX_TAIL_BYTES_MAX: usize = 256 * 1024;
/// Maximum number of these events and of the steps over holes between them.
pub const OUTBOX_TAIL_ENTRIES_MAX: usize = 1024;
/// Maximum size of the events of a shard that calls of this node have committed and no consumer has taken.
/// Beyond it, consumers read them from Postgres.
pub const OUTBOX_COMMITTED_BYTES_MAX: usize = 256 * 1024;
/// Maximum size of the events of one open transaction that the node keeps until its COMMIT. Beyond it,
/// consumers read them from Postgres. A statement reports at most 1,000 events, and 256 KiB of payloads and
/// keys (`migrations/host/1360_reported_events.sql`).
pub const OUTBOX_REPORTS_BYTES_MAX: usize = 512 * 1024;
/// Maximum number of holes of a cursor. It stops before more: that many transactions are open.
pub const OUTBOX_HOLES_MAX: usize = 1000;
/// Maximum number of parked events in one list, the newest first.
pub const PARKED_LISTED_MAX: i64 = 200;

// ==== redis ================================================================================================

// ---- commands of handlers ---------------------------------------------------------------------------------

/// Maximum size of the arguments of a command, or of all commands of a pipeline, and of the bytes that an
/// offset adds to a value. More is `refused`.
pub const REDIS_COMMAND_BYTES_MAX: usize = 1024 * 1024;
/// Maximum number of commands in a pipeline. A longer one is `refused`.
pub const REDIS_PIPELINE_MAX: usize = 1024;
/// Maximum length of a key. A longer one is `refused`.
pub const REDIS_KEY_BYTES_MAX: usize = 512;
/// Maximum size of an answer. A larger one is `too-large`. Each node of the answer counts its bytes and
/// [`CELL_BYTES`].
pub const REDIS_ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Maximum count of a command that picks random members, in either sign. More is `refused`: a negative count
/// repeats members without end.
pub const REDIS_RANDOM_MEMBERS_MAX: u64 = 10_000;
/// Maximum number of keys of a command over sets or sorted sets. More is `refused`, because a repeated set is
/// read again.
pub const REDIS_SETS_MAX: usize = 32;

// ---- scripts ----------------------------------------------------------------------------------------------

/// Maximum number of loop rounds, function calls and commands of one run of a script. One more ends the
/// script with an error; its writes stay. Without a bound, an endless loop would stop Redis for all clients.
pub const REDIS_SCRIPT_STEPS_MAX: u64 = 2_000_000;
/// Maximum processor time of one run of a script, checked every 256 steps. Beyond it the script ends with an
/// error.
pub const REDIS_SCRIPT_CPU_MAX: Duration = Duration::from_secs(1);
/// Maximum number of commands of one run of a script. One more ends it with an error. A sweep of presence
/// needs about 5,000.
pub const REDIS_SCRIPT_COMMANDS_MAX: u64 = 100_000;
/// Maximum number of bytes in the commands of one run of a script, and of those that an offset adds. More
/// ends it with an error.
pub const REDIS_SCRIPT_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Maximum wait for the answer to `SCRIPT KILL`: Redis reads it only after its own `busy-reply-threshold` (5
/// s by default). Then the node sends it again, as long as the script runs.
pub const REDIS_SCRIPT_KILL_WAIT: Duration = Duration::from_secs(10);
/// Minimum time between two `SCRIPT KILL`s.
pub const REDIS_SCRIPT_KILLS_APART: Duration = Duration::from_secs(1);
/// Minimum time between two log lines about the same outcome of a `SCRIPT KILL`.
pub const REDIS_SCRIPT_KILLS_LOGGED_EVERY: Duration = Duration::from_secs(60);

// ---- connections ------------------------------------------------------------------------------------------

/// Maximum number of commands in flight on one connection. One more waits, within its deadline.
pub const REDIS_QUEUE_MAX: usize = 1024;
/// Maximum wait for an answer. A later one is `deadline`, even if the call has more time left.
pub const REDIS_ANSWER_WAIT: Duration = Duration::from_secs(1);
/// Wait before the second attempt to connect; doubled before each further one, up to the maximum.
pub const REDIS_BACKOFF_MIN: Duration = Duration::from_millis(20);
/// Maximum wait between two attempts to connect.
pub const REDIS_BACKOFF_MAX: Duration = Duration::from_secs(1);
/// Maximum time of an attempt to connect, and maximum silence of a connection. Then it has failed.
pub const REDIS_SILENCE_MAX: Duration = Duration::from_secs(3);
/// Interval of checking the connection for commands. A command that fails causes a check at once.
pub const REDIS_CHECK_EVERY: Duration = Duration::from_millis(1500);
/// Minimum time between two checks: failed commands request one, and share it within this time.
pub const REDIS_CHECKS_APART: Duration = Duration::from_millis(20);
/// A server that refuses writes for this long may be a former primary. The node then connects again, and
/// reaches another server when the address leads to one.
pub const REDIS_REFUSES_WRITES_MAX: Duration = Duration::from_secs(1);
/// Maximum wait for a server's answer about its role, its primary or the slots of its cluster. Then the node
/// asks the next server.
pub const REDIS_TOPOLOGY_WAIT: Duration = Duration::from_secs(1);
/// Interval of reading the slots of a cluster. A server that answers that they are wrong causes a read at
/// once.
pub const REDIS_SLOTS_READ_EVERY: Duration = Duration::from_secs(2);
/// Maximum number of redirects of one command. After them the cluster is still moving slots, and the command
/// is `unavailable`.
pub const REDIS_REDIRECTS_MAX: usize = 4;

// ---- generations: which data of Redis the fleet uses ------------------------------------------------------

/// Maximum number of rounds to settle a guard key that other nodes change too. Then the check has failed.
pub const REDIS_GUARD_ROUNDS_MAX: usize = 8;
/// Number of keys that one `SCAN` visits, of old generations and of the keys that an operator forgets.
pub const REDIS_SCAN_KEYS: u32 = 2000;
/// Time between two steps of deleting the keys of old generations.
pub const REDIS_CLEAN_STEPS_APART: Duration = Duration::from_millis(50);
/// A second pass deletes such keys after this time, when every node uses the new generation.
pub const REDIS_CLEAN_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// The node whose beat is a multiple of this looks for old keys: about once an hour in a fleet of three
/// nodes.
pub const REDIS_CLEAN_BEATS: i64 = 7_000;

// ---- pub/sub ----------------------------------------------------------------------------------------------

/// Maximum number of received messages that are not handled yet. At the bound the node reads nothing more,
/// Redis's buffer fills, and Redis ends the connection, which is handled like any loss of the bus.
pub const REDIS_RECEIVED_MAX: usize = 1024;
/// Maximum size of a message. A longer one ends its connection.
pub const REDIS_MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Maximum length of a line of the protocol; the longest is an error of Redis. A longer one ends its
/// connection.
pub const REDIS_LINE_BYTES_MAX: usize = 1024;
/// Maximum number of subscription requests that wait for the connection. Further callers wait until one is
/// sent.
pub const REDIS_SUBSCRIBE_REQUESTS_MAX: usize = 1024;
/// Interval of checking the connection for messages. It is pinged after one and a half of it without any.
pub const REDIS_PING_EVERY: Duration = Duration::from_secs(1);
/// Maximum wait, after the connection for messages was opened, until the connection for commands has found
/// the same primary. If the two primaries differ after it, the connection for messages is opened again.
pub const REDIS_PRIMARY_AGREE_WAIT: Duration = Duration::from_secs(2);

// ==== http =================================================================================================

/// Connections that the kernel keeps waiting while all slots are taken. The kernel drops further ones, and
/// their clients try again.
pub const BACKLOG: u32 = 4096;
/// Bytes of a connection that the kernel buffers before it sends them. By default it would buffer megabytes
/// for a peer that does not read, and only the other bytes count for [`QUEUE_BYTES_MAX`].
pub const UNSENT_BYTES_MAX: u32 = 64 * 1024;
/// A connection that has waited for its client for less time is not closed for another, because its bytes may
/// be under way.
pub const DROPPED_AFTER_MIN: Duration = Duration::from_secs(2);
/// While no connection can be closed for a new one, the node checks again after this time.
pub const SLOTS_CHECK_EVERY: Duration = Duration::from_millis(100);
/// Maximum size of the request line and headers together. A longer head is answered with 431. It fits a token
/// of [`TOKEN_BYTES_MAX`] and as many bytes of other headers.
pub const REQUEST_HEAD_BYTES_MAX: usize = 64 * 1024;
/// Maximum number of headers: other servers accept 100, and a proxy adds some. One more is answered with 431.
pub const REQUEST_HEADERS_MAX: usize = 128;
/// Maximum time for a request head. Then the connection is closed.
pub const REQUEST_HEAD_WAIT: Duration = Duration::from_secs(30);
/// A peer that reads fewer bytes in `stall_ms`, while more wait for it, has stalled, and its connection ends.
pub const STALL_BYTES_MIN: u32 = 16 * 1024;
/// Minimum size of an answer that counts for [`LARGE_ANSWERS_BYTES_MAX`] until its client has read it.
pub const LARGE_ANSWER_BYTES_MIN: usize = 64 * 1024;
/// Maximum size of all unread large answers of one listener. At the bound, the node closes the connections
/// whose answers have waited longest. If these are too young, the new answer is a 503.
pub const LARGE_ANSWERS_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Time after the last bytes, or after the close frame, in which the peer can read them and close the
/// connection. Then the host closes it.
pub const CLOSE_WAIT: Duration = Duration::from_secs(2);
/// Wait after a failed accept: the process has no file descriptors left, so other connections must end first.
pub const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(50);

// ---- fetches of handlers ----------------------------------------------------------------------------------

/// Maximum length of the URL of a fetch, and of the target of a redirect. A longer one is `refused`.
pub const FETCH_URL_BYTES_MAX: usize = 8 * 1024;
/// Maximum number of headers of a fetch, and of its answer. More are `refused`; in an answer they are
/// `too-large`.
pub const FETCH_HEADERS_MAX: usize = 64;
/// Maximum size of the headers of a fetch, and of the head of its answer. More is `refused`; in an answer it
/// is `too-large`.
pub const FETCH_HEADERS_BYTES_MAX: usize = 16 * 1024;
/// Maximum bytes of an answer on its connection: this many times `limits.fetch_bytes`, and
/// [`FETCH_FRAMING_BYTES_MAX`]. A body in chunks of one byte needs six bytes for each. A server that sends
/// more (informational answers without end, sizes of chunks with zeros without end) is `too-large`.
pub const FETCH_FRAMING_FACTOR: u64 = 8;
/// Maximum bytes of an answer beside its body: head, trailers, informational answers.
pub const FETCH_FRAMING_BYTES_MAX: u64 = 128 * 1024;
/// Maximum number of bytes that a connection reads ahead of the body that is taken from it. A server that
/// sends faster waits.
pub const FETCH_READ_BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Maximum number of redirects that a fetch follows. A request for more is `refused`.
pub const FETCH_REDIRECTS_MAX: u8 = 5;
/// Maximum time to resolve a name. Then the fetch is `unavailable`.
pub const FETCH_RESOLVE_WAIT: Duration = Duration::from_secs(2);
/// Maximum number of names that the node resolves at a time, each on a thread that a name server without an
/// answer blocks beyond [`FETCH_RESOLVE_WAIT`]. One more is `busy`.
pub const FETCH_RESOLVES_MAX: usize = 64;
/// Maximum number of them for one handler, so that a handler with slow names leaves threads to the others.
/// One more is `busy`. Fetches of a handler that need the same name share one of them.
pub const FETCH_RESOLVES_PER_HANDLER_MAX: usize = 8;
/// Maximum time to connect, all addresses and the TLS handshake together. Then the fetch is `unavailable`.
pub const FETCH_CONNECT_WAIT: Duration = Duration::from_secs(3);
/// Maximum number of addresses of a name that one fetch tries, in the order of the answer.
pub const FETCH_ADDRESSES_TRIED_MAX: usize = 4;
/// Maximum number of connections of one handler to one host and port. One more is `busy`.
pub const FETCH_CONNECTIONS_PER_HOST_MAX: usize = 8;
/// Maximum number of connections of all handlers to all hosts. At the bound, the one that has been idle for
/// longest is closed. If none is idle, the fetch is `busy`. A quarter of the fetches in flight is divided
/// among the loaded releases and always available to each of them; the rest is lent.
pub const FETCH_CONNECTIONS_MAX: usize = 512;
/// An idle connection is not used again after this time, and is closed at the next [`FETCH_UPKEEP_EVERY`].
/// Many servers close theirs after a minute.
pub const FETCH_IDLE_MAX: Duration = Duration::from_secs(30);
/// Maximum time until an idle connection is ready for a request. Then it is closed, and the fetch takes
/// another one: the server answered its last request early, and does not read the rest of it.
pub const FETCH_IDLE_READY_WAIT: Duration = Duration::from_millis(50);
/// A connection is not used again at this age, so that a changed address of a name takes effect.
pub const FETCH_CONNECTION_AGE_MAX: Duration = Duration::from_secs(300);
/// Interval of closing idle connections.
pub const FETCH_UPKEEP_EVERY: Duration = Duration::from_secs(10);
/// Maximum size of the bodies that the node holds for fetches: of a request until its fetch has ended, and of
/// an answer until its host call has ended. A quarter is divided among the loaded releases and always
/// available to each of them; the rest is lent. A release that gets no more is `busy` before it sends a
/// request; an answer that it is receiving ends with `unknown-outcome`.
pub const FETCH_BODIES_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Unit in which a release gets its part of [`FETCH_BODIES_BYTES_MAX`].
pub const FETCH_BODIES_UNIT_BYTES: usize = 64 * 1024;
/// Number of failures in a row after which the circuit breaker of a handler, host and port opens.
pub const BREAKER_FAILURES: u32 = 5;
/// Time for which it is open at first. Then one fetch is tried; if it fails, the next time is twice as long.
/// Fetches are `unavailable` meanwhile, without an attempt.
pub const BREAKER_OPEN_MIN: Duration = Duration::from_secs(1);
/// Maximum time for which it is open.
pub const BREAKER_OPEN_MAX: Duration = Duration::from_secs(30);
/// Maximum number of circuit breakers with failures. At the bound, the handler with the most of them loses
/// the one that changed first: it counts from 0 again.
pub const BREAKERS_MAX: usize = 1024;

// ==== fanout ===============================================================================================

// ---- the outlet of one connection -------------------------------------------------------------------------

/// Maximum number of unsent bytes of one connection. Beyond it, pushes that may be dropped are dropped, and
/// durable ones are not queued: the reader gets them later as pages of `connection.missed`. A full queue
/// means that the reader is slower than its rooms.
pub const QUEUE_BYTES_MAX: usize = 256 * 1024;
/// Maximum number of unsent bytes of one connection, with replies and pushes that cannot be requested again.
/// Beyond it the host closes the connection with 4008, and the client resumes.
pub const QUEUE_BYTES_HARD: usize = 2 * QUEUE_BYTES_MAX;
/// Above this size, a push with a merge key replaces the earlier one with the same key.
pub const QUEUE_MERGE_BYTES: usize = 16 * 1024;
/// A droppable push with the same content within this time is left out: several rooms delivered the same
/// push.
pub const DROPPABLE_REPEAT_WINDOW: Duration = Duration::from_secs(1);

// ---- rooms ------------------------------------------------------------------------------------------------

/// Maximum number of subscriptions of one connection; more are refused with `full`.
pub const SUBSCRIPTIONS_MAX: usize = 2_000;
/// Maximum number of pushes that an address keeps while a subscriber is behind its gate, or while a gap is
/// being filled. Beyond it the oldest are forgotten, and the host asks for one more page.
pub const RING_PUSHES_MAX: usize = 256;
/// Maximum size of these pushes; at the bound the same happens.
pub const RING_BYTES_MAX: usize = 128 * 1024;
/// Maximum number of pushes without a position that wait behind one gate; beyond it the oldest is dropped.
pub const GATE_UNPOSITIONED_MAX: usize = 64;
/// Maximum size of one page of `connection.missed`. The host asks for a page only when the reader's queue has
/// room for it. It cuts off what is beyond, and asks for it again.
pub const PAGE_BYTES_MAX: usize = 64 * 1024;
/// Maximum number of pushes in a page. The host cuts off the others and asks for them again.
pub const PAGE_PUSHES_MAX: usize = 1_000;
/// Number of repeated requests about a gap, before the stream continues with a jump that its readers can see.
pub const MISSED_RETRIES_MAX: u32 = 6;
/// Wait before the first repeated request; doubled before each further one.
pub const MISSED_RETRY_AFTER: Duration = Duration::from_millis(100);

// ---- the bus ----------------------------------------------------------------------------------------------

/// Maximum number of publications in one message between nodes. More make more messages.
pub const ENVELOPE_PUSHES_MAX: usize = 256;
/// Maximum size of the frames in one message, unless it has a single publication. More make more messages.
pub const ENVELOPE_BYTES_MAX: usize = 128 * 1024;
/// Maximum wait for the bus to confirm a subscription or publication. Then it is `unavailable`.
pub const BUS_CONFIRM_WAIT: Duration = Duration::from_secs(2);
/// Time for which an address stays subscribed after its last subscriber, so that a page reload costs Redis
/// nothing.
pub const BUS_IDLE_WAIT: Duration = Duration::from_secs(10);
/// Wait after an announcement of lost publications until the rooms ask. Announcements of other nodes that
/// arrive meanwhile need no further questions.
pub const BUS_SUSPECT_WAIT: Duration = Duration::from_millis(500);
/// Maximum number of addresses in one command to Redis that subscribes. More make more commands.
pub const BUS_CHANNELS_PER_COMMAND_MAX: usize = 1000;
/// Maximum number of messages that are handled at a time, before other work gets a turn.
pub const BUS_BURST_MESSAGES_MAX: usize = 256;

// ---- watches of operators (`switchboard tail`) ------------------------------------------------------------

/// Maximum number of watches that operators have open on one node. One more is refused with 503.
pub const WATCHERS_MAX: usize = 16;
/// Maximum number of watches of the fleet for which a node collects events. The node ignores further ones, so
/// their operators do not see its events.
pub const WATCHES_MAX: usize = 64;
/// Maximum size of one event. A larger one is dropped and counted. A failure and a log line of 4 KiB fit even
/// if JSON needs six bytes for each of their bytes, so no handler can hide them.
pub const WATCHED_EVENT_BYTES_MAX: usize = 32 * 1024;
/// Maximum number of events of one watch that wait to be sent to the operator's node. At the bound the oldest
/// is dropped and counted.
pub const WATCHED_EVENTS_WAITING_MAX: usize = 512;
/// Maximum size of these events; at the bound, as above.
pub const WATCHED_BYTES_WAITING_MAX: usize = 256 * 1024;
/// Maximum number of events that the operator's node keeps until the operator takes them. At the bound the
/// oldest is dropped and counted.
pub const WATCHED_EVENTS_KEPT_MAX: usize = 2048;
/// Maximum size of these events; at the bound, as above.
pub const WATCHED_BYTES_KEPT_MAX: usize = 1024 * 1024;
/// Interval at which a node sends collected events.
pub const WATCHED_SENT_EVERY: Duration = Duration::from_millis(200);
/// Interval at which a watch is announced to all nodes.
pub const WATCH_ANNOUNCED_EVERY: Duration = Duration::from_secs(3);
/// A node collects events for a watch this long after the last announcement.
pub const WATCH_KEPT: Duration = Duration::from_secs(10);
/// A watch ends when its operator takes no events for this time.
pub const WATCHER_IDLE_MAX: Duration = Duration::from_secs(20);
/// Maximum time that a request for events waits for the first one.
pub const WATCH_TAKE_WAIT: Duration = Duration::from_secs(5);
/// How often a node publishes a loopback heartbeat to itself.
pub const LOOPBACK_HEARTBEAT_EVERY: Duration = Duration::from_secs(1);
/// When no loopback heartbeat has arrived for this time, the node marks its bus as down and reconnects.
pub const LOOPBACK_TIMEOUT: Duration = Duration::from_secs(2);

// ==== runtime ==============================================================================================

// ---- calls ------------------------------------------------------------------------------------------------

/// Maximum size of a guest's stack of return addresses and spilled registers. Rust keeps its data on a stack
/// in linear memory. A call that needs more traps. A larger one costs memory in every call. With a much
/// smaller one, serde's recursion traps before its limit of 128 levels.
pub const GUEST_STACK_BYTES_MAX: usize = 64 * 1024;
/// Maximum size of the stack that a guest and the host functions that it calls share. If it is too small, a
/// host function overflows it, which ends the process. So host functions have 448 KiB; tokio-postgres with
/// `opt-level = 1` needs about 30 KiB.
pub const CALL_STACK_BYTES_MAX: usize = 512 * 1024;
/// Maximum number of slots that keep the memory of an ended call for the next one, so at most about 150 MiB.
/// With fewer, a burst of calls gets cold slots. More only cost memory.
pub const WARM_SLOTS_MAX: u32 = 256;
/// Maximum number of calls of one connection that are in flight at a time. The node reads the next frame when
/// the oldest one has ended.
pub const CALLS_OF_CONNECTION_MAX: usize = 64;
/// Maximum size of the payloads of these calls together; the last one may exceed it. The calls can end at the
/// same time, and replies are often as large as their frames: they must fit between [`QUEUE_BYTES_MAX`] and
/// [`QUEUE_BYTES_HARD`].
pub const CALLS_OF_CONNECTION_BYTES_MAX: usize = 128 * 1024;
/// Maximum number of concurrent calls inside guests on one node, and so the slots of the instance pool. A
/// quarter is divided among the loaded releases and always available to each of them. The rest is lent, and
/// every borrower leaves a part of it to others. A call that gets no slot is answered 503, as at a handler's
/// own `concurrency`, which is at most half of this.
pub const CALLS_MAX: u32 = 2048;
/// The wait (`Retry-After`) that a caller gets if no call slot was free. Calls take milliseconds.
pub const CALL_RETRY_AFTER: Duration = Duration::from_secs(1);
/// Memory of a call that does not count against the node's `guest_memory_mib`, because the pool keeps it for
/// its slot anyway.
pub const MEMORY_FREE_BYTES: usize = 512 * 1024;
/// Unit of further memory, the size of a WebAssembly page. A quarter of `guest_memory_mib` is divided among
/// the loaded releases, the rest is lent. A guest that gets no more is out of memory: 503.
pub const MEMORY_UNIT_BYTES: usize = 64 * 1024;
/// Time between two ticks of the engine's epoch: a guest can hold a worker thread this long before another
/// task runs. A longer time makes other tasks wait. A shorter one costs more wake-ups of the ticker, each
/// with an atomic increment.
pub const EPOCH_TICK: Duration = Duration::from_millis(1);
/// Number of ticks without a call after which the ticker sleeps until the next call begins.
pub const EPOCH_IDLE_TICKS_MAX: u32 = 10;
/// Maximum sleep of the ticker, and so the time after which it notices that its engine is gone.
pub const EPOCH_SLEEP_MAX: Duration = Duration::from_secs(1);
/// Maximum processor time that counts against `cpu_ms` between two epochs or host calls. A longer span means
/// that the operating system ran other work, which the guest did not cause. (Or one bulk memory instruction
/// ran over the whole memory. It ends by itself, and the call's deadline bounds it.)
pub const CPU_SPAN_MAX: Duration = Duration::from_millis(4);
/// A call that has been inside its guest for longer goes on only with one of the node's turns (one for each
/// processor but one, at least one). Waiting for a turn counts against the call's deadline, not against its
/// `cpu_ms`. Most calls take about 100 µs. A shorter time would make batches of events wait. With a longer
/// one, many long calls at once would use more processor time before they take turns.
pub const LONG_CPU_AFTER: Duration = Duration::from_millis(2);
/// A turn passes to the next release after this time, if one waits.
pub const LONG_CPU_TURN: Duration = Duration::from_millis(4);

// ---- answers of handlers ----------------------------------------------------------------------------------

/// Maximum size of the body of a handler's HTTP answer. Pages of the largest messages stay below it. A larger
/// one is not sent: the caller gets 500, and the failure counts against the release.
pub const ANSWER_BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Maximum number of headers of a handler's HTTP answer. More is 500, as above.
pub const ANSWER_HEADERS_MAX: usize = 64;
/// Maximum size of their names and values together. More is 500, as above.
pub const ANSWER_HEADERS_BYTES_MAX: usize = 16 * 1024;
/// Maximum size of the payload of a handler's reply to a frame. For a larger one the client gets the error
/// `internal`, and the failure counts against the release.
pub const REPLY_BYTES_MAX: usize = 256 * 1024;
/// Maximum size of all frames that one handler sends to a new connection: 200 of the largest messages fit.
/// More counts as a failure of the release, and the connection opens without them.
pub const OPENED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Maximum length of the code of a handler's problem. A longer one counts as a failure of the release.
pub const PROBLEM_CODE_BYTES_MAX: usize = 64;

// ---- hooks ------------------------------------------------------------------------------------------------

/// Maximum time of one hook, also if its `limits.deadline_ms` is longer. It has at most half of the time that
/// its action has left, too, so that a slow hook leaves time for the handler. Then the hook has failed, and
/// its `on_failure` decides.
pub const HOOK_DEADLINE_MAX: Duration = Duration::from_millis(500);
/// Maximum size of the payload of a client, if its action has hooks. A larger request over REST gets 413.
/// Frames have this maximum anyway.
pub const HOOK_PAYLOAD_BYTES_MAX: usize = FRAME_BYTES_MAX;
/// Maximum size of a payload that a hook returns. A hook that returns a larger one has failed. It is larger
/// than the payload of a client, because a payload grows when a hook adds to it or writes its JSON again
/// (`1e15` becomes `1000000000000000.0`). Otherwise a client could make a hook fail by a payload of maximal
/// size, and a hook that opens would not count.
pub const HOOK_CHANGED_BYTES_MAX: usize = 4 * HOOK_PAYLOAD_BYTES_MAX;

// ---- calls between handlers -------------------------------------------------------------------------------

/// Maximum depth of calls between handlers, below the call that a trigger started. A deeper one is `refused`,
/// so handlers that call each other in a circle end here.
pub const CALL_DEPTH_MAX: u8 = 4;
/// Maximum size of the body of a call between handlers, and of its answer. A larger body is `refused`. With a
/// larger answer the called handler has failed.
pub const CALL_BODY_BYTES_MAX: usize = 1024 * 1024;
/// A called handler ends so long before the deadline of its caller, so that the caller can still answer.
pub const CALL_RETURN_MARGIN: Duration = Duration::from_millis(10);

// ---- host calls -------------------------------------------------------------------------------------------

/// Maximum number of log lines of one call; the rest is dropped and counted.
pub const LOG_LINES_MAX: u32 = 64;
/// Maximum size of one log line with its fields; the rest of the line is cut off. A line that a guest writes
/// to its WASI output continues in the next log line.
pub const LOG_LINE_BYTES_MAX: usize = 4 * 1024;
/// Maximum number of fields of one log line; the rest is dropped and counted in the line.
pub const LOG_FIELDS_MAX: usize = 32;
/// Maximum length of the name of a field, without the prefix of the host; the rest is cut off.
pub const LOG_FIELD_NAME_BYTES_MAX: usize = 64;
/// Maximum size of one line of a guest's WASI output; the rest of the line is dropped. The host looks for
/// secrets in the whole line, before it divides the line.
pub const WASI_LINE_BYTES_MAX: usize = 64 * 1024;
/// Maximum size of the message of a panic in the failure of a call; the rest is cut off.
pub const PANIC_MESSAGE_BYTES_MAX: usize = 1024;
/// Maximum size of a panic's place in the source; the rest is cut off.
pub const PANIC_LOCATION_BYTES_MAX: usize = 256;
/// The last bytes of a guest's standard error that the host keeps during a call. If the call traps, they are
/// in its failure.
pub const STDERR_KEPT_BYTES_MAX: usize = 1024;
/// Maximum number of random bytes of one host call; more traps.
pub const RANDOM_BYTES_MAX: u32 = 1024;
/// Maximum number of random bytes of one call of `wasi:random`; more traps. Other languages seed their
/// generators with more bytes than our handlers request.
pub const WASI_RANDOM_BYTES_MAX: u64 = 64 * 1024;
/// Maximum number of WASI resources (streams, pollables) of one call. One more traps.
pub const WASI_RESOURCES_MAX: usize = 1024;
/// Maximum number of shards in one `wake.outbox`. A call with more ends with a trap.
pub const WAKE_HINT_SHARDS_MAX: usize = 1024;
/// Number of last host calls in the log line of a failed call.
pub const LAST_HOST_CALLS: usize = 32;
/// Maximum number of recordings that one process writes into `recording_dir`; then it stops, so that a
/// forgotten setting does not fill a disk.
pub const RECORDINGS_MAX: u32 = 10_000;

// ---- loading a release ------------------------------------------------------------------------------------

/// Maximum size of a release, which is uploaded whole. A larger one is 413.
pub const RELEASE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Maximum number of memories of one instance. A release that needs more is refused when it is loaded.
pub const MEMORIES_PER_INSTANCE_MAX: u32 = 2;
/// Maximum number of tables of one instance. A release that needs more is refused when it is loaded.
pub const TABLES_PER_INSTANCE_MAX: u32 = 8;
/// Maximum number of core instances of one instance. A release that needs more is refused when it is loaded.
/// A component of componentize-py has 38.
pub const CORE_INSTANCES_PER_INSTANCE_MAX: u32 = 64;
/// Maximum number of a table's elements. A larger table fails to grow.
pub const TABLE_ELEMENTS_MAX: usize = 20_000;
/// Maximum wall and CPU time of the child process that compiles a release; then it is killed and the release
/// refused.
pub const COMPILE_WAIT: Duration = Duration::from_secs(60);
/// Maximum address space of that child process. If it needs more, it fails, and the release is refused.
pub const COMPILE_MEMORY_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// Maximum size of that child process's error text; the rest is cut off.
pub const COMPILE_ERROR_BYTES_MAX: u64 = 16 * 1024;
/// Maximum number of concurrent compiles on one node; others wait.
pub const COMPILES_PER_NODE_MAX: usize = 1;
/// Maximum size of a compiled release. A larger one is refused.
pub const ARTIFACT_BYTES_MAX: u64 = 256 * 1024 * 1024;

// ==== releases =============================================================================================

/// Maximum number of handlers. A deploy that would add one more is refused.
pub const HANDLERS_MAX: usize = 256;
/// Maximum number of users whom a canary selects by name. A deploy with more is refused.
pub const SELECTION_USERS_MAX: usize = 100;
/// Maximum length of the role or group that a canary selects. A deploy with a longer one is refused.
pub const SELECTION_GROUP_BYTES_MAX: usize = 256;
/// Maximum length of the value of the header of testers. A deploy with a longer one is refused; a header with
/// a longer value selects nobody.
pub const SELECTION_TESTER_BYTES_MAX: usize = 64;
/// Minimum length of the value of the header of testers, so that nobody guesses it by accident. A deploy with
/// a shorter one is refused.
pub const SELECTION_TESTER_BYTES_MIN: usize = 8;
/// Maximum length of the lists of releases and of their history, the newest first.
pub const RELEASES_LISTED_MAX: i64 = 500;
/// Maximum number of loaded releases of one handler: the running one, its canary, its shadow, the one before,
/// and a new one. At the bound the least recently used is unloaded; a rollback to it must load it again.
pub const RELEASES_LOADED_PER_HANDLER: usize = 5;
/// Minimum number of digits of a digest in a command. Fewer could name two releases.
pub const DIGEST_PREFIX_MIN: usize = 6;
/// Maximum number of signatures of one release in one file or header.
pub const SIGNATURES_MAX: usize = 16;
/// Maximum number of secrets of a fleet. One more is refused.
pub const SECRETS_MAX: i64 = 256;
/// Maximum size of a secret. A larger one is refused.
pub const SECRET_BYTES_MAX: usize = 16 * 1024;
/// Maximum size of the secrets together that a release is granted, because a node keeps up to 100 bytes of
/// encodings for each byte of each loaded release. A deploy, or a value, that exceeds it is refused.
pub const SECRETS_BYTES_MAX: i64 = 64 * 1024;

/// Maximum size of all live settings of a handler together, because each change stores them all. A change
/// beyond it is refused.
pub const SETTINGS_BYTES_MAX: usize = 64 * 1024;
/// Maximum number of stored changes of the live settings of one handler. At the bound the oldest is deleted;
/// a rollback to it is then not possible.
pub const SETTINGS_HISTORY_KEPT: i64 = 1000;
/// Maximum length of a setting's name. Only a handler that never ran can get one that its manifest lacks.
pub const SETTING_KEY_BYTES_MAX: usize = 64;

// ---- deploys ----------------------------------------------------------------------------------------------

/// Maximum number of releases that deploys load at a time; further ones wait. Each may need a compile
/// ([`COMPILES_PER_NODE_MAX`]).
pub const DEPLOYS_PREPARED_AT_ONCE_MAX: usize = 2;
/// Maximum wait of a deploy for the live nodes; the outcome names those that have not reported.
pub const DEPLOY_WAIT: Duration = Duration::from_secs(10);
/// Interval of checking, during this wait, which nodes have reported.
pub const DEPLOY_CHECK_EVERY: Duration = Duration::from_millis(10);
/// Maximum wait before a file of `handlers_dir` is tried again that was refused for its content.
pub const FILE_REFUSED_AGAIN_AFTER_MAX: Duration = Duration::from_secs(600);

// ---- following the fleet ----------------------------------------------------------------------------------

/// Interval of a node's poll, which is also its heartbeat in Postgres, and so the maximum delay of a change
/// whose notification or wake is lost. It is a little below a second, so that a revocation applies within
/// one.
pub const NODE_POLL_EVERY: Duration = Duration::from_millis(950);
/// Maximum time of a poll. The next one must still be able to renew the leases of the node's cursors.
pub const NODE_POLL_WAIT: Duration = Duration::from_secs(1);
/// A deploy does not wait for a node that has reported nothing for this long; the node follows when it is
/// back.
pub const NODE_SILENT_AFTER: Duration = Duration::from_secs(5);
/// A node without a heartbeat for this long is deleted from the fleet's list.
pub const NODE_FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);
/// A node with a heartbeat of this age and without its connection for notifications has died.
pub const NODE_GONE_AFTER: Duration = Duration::from_millis(1500);
/// Interval of the poll while a node receives no notifications, and after a poll that failed.
pub const FOLLOW_EVERY: Duration = Duration::from_millis(250);
/// Maximum time of a query about the fleet; a longer one counts as failed.
pub const FOLLOW_WAIT: Duration = Duration::from_secs(5);
/// Wait before a node connects again for notifications, after it lost that connection.
pub const NOTIFICATIONS_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Wait before a failed load is tried again; doubled each time, up to the maximum.
pub const LOAD_AGAIN_AFTER_MIN: Duration = Duration::from_secs(1);
/// Maximum wait before a failed load is tried again.
pub const LOAD_AGAIN_AFTER_MAX: Duration = Duration::from_secs(60);

// ---- canaries ---------------------------------------------------------------------------------------------

/// Interval of comparing every canary with the running release; a failed call is checked at once.
pub const CANARY_CHECK_EVERY: Duration = Duration::from_millis(250);
/// Minimum time between two comparisons at failed calls: a comparison of full logs takes about a millisecond.
pub const CANARY_CHECKS_APART: Duration = Duration::from_millis(10);
/// The shorter of two windows of calls, in which recent failures are not lost among many good calls.
pub const CANARY_WINDOW_SHORT: Duration = Duration::from_secs(2);
/// The longer window, for rare calls.
pub const CANARY_WINDOW_LONG: Duration = Duration::from_secs(60);
/// A canary with fewer calls than the thresholds need is withdrawn if it has at least this many calls and all
/// of them failed.
pub const CANARY_FAILURES_MIN: u64 = 3;
/// A canary is withdrawn only if at least this many callers had failures, because one person can send input
/// that no release can answer.
pub const CANARY_CALLERS_MIN: usize = 3;
/// A canary is withdrawn only if it is also worse without the two callers with the most failures, and without
/// one more caller for every this many callers.
pub const CANARY_CALLERS_PER_SUSPECT: usize = 20;
/// Maximum number of calls that one caller counts for, in the proportion of that caller's results. So five
/// users are enough for [`CANARY_FAILURES_MAX`].
pub const CANARY_CALLS_PER_CALLER: u64 = 10;
/// A difference that chance causes more often than this does not count. Canaries are compared about 10,000
/// times an hour, mostly over nearly the same calls.
pub const CANARY_CHANCE_MAX: f64 = 1e-4;
/// If the running release had fewer calls than this in a window, it is assumed to have answered the rest,
/// because it has run before.
pub const CANARY_CALLS_SUPPOSED: u64 = 100;
/// Maximum number of calls in the log of a canary, and in the log of the running release. At more than about
/// 270 calls a second the long window is shorter than a minute, for both.
pub const CANARY_CALLS_MAX: usize = 16_384;
/// A difference of latency below this does not count, whatever the percentage.
pub const CANARY_SLOWER_MIN: Duration = Duration::from_millis(5);

// ---- shadows ----------------------------------------------------------------------------------------------

/// Maximum number of live calls that wait for a node's shadow worker; one more is left out and counted.
pub const SHADOWS_WAITING_MAX: usize = 1;
/// Maximum number of distinct differences in a shadow's report; further ones are only counted.
pub const SHADOW_EXAMPLES_MAX: usize = 8;
/// Maximum length of each of them; the rest is cut off.
pub const SHADOW_EXAMPLE_CHARS_MAX: usize = 500;
/// Interval at which a node stores the results of its shadows.
pub const SHADOW_REPORT_EVERY: Duration = Duration::from_secs(1);

// ==== harness ==============================================================================================

/// Maximum size of one test's host calls, arguments and answers together. A test with more fails, because a
/// person cannot read a larger recording.
pub const TEST_RECORDING_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Maximum wait for Postgres, Redis or the bus of a test. Then the test has failed.
pub const TEST_SERVICE_WAIT: Duration = Duration::from_secs(20);

// ==== server ===============================================================================================

// ---- gateway: requests of clients -------------------------------------------------------------------------

/// Time for which a browser keeps the answer to a preflight request.
pub const PREFLIGHT_VALID_FOR: Duration = Duration::from_secs(600);
/// TCP connections of clients that are not WebSockets (yet). At the bound, the node closes the oldest
/// connection that waits for its client. When there is none, further connections wait in the backlog.
pub const HTTP_CONNECTIONS_MAX: usize = 4096;
/// Maximum time for a TLS handshake. Then the connection is closed.
pub const TLS_HANDSHAKE_WAIT: Duration = Duration::from_secs(10);
/// Interval of the check for new certificate files, and so the delay until a new certificate is used.
pub const TLS_FILES_CHECK_EVERY: Duration = Duration::from_secs(1);
/// Maximum size of a REST body. A larger one is 413, before it is read whole.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// Maximum time for a request body. A later one is refused.
pub const BODY_WAIT: Duration = Duration::from_secs(30);
/// Maximum number of tickets of a user in a minute, on all nodes together; beyond it 429. Each is a key in
/// Redis for its lifetime.
pub const TICKETS_PER_MINUTE: i64 = 120;
/// Length of the window in which the tickets of a user are counted. It begins with the first ticket.
pub const TICKET_WINDOW: Duration = Duration::from_secs(60);
/// Lifetime of a ticket, in whole seconds. A later use is refused.
pub const TICKET_VALID_FOR: Duration = Duration::from_secs(30);
/// Maximum wait for Redis when a ticket is made or used. Then the request is answered with 503.
pub const TICKET_WAIT: Duration = Duration::from_secs(2);

// ---- gateway: connections ---------------------------------------------------------------------------------

/// The wait that a client gets when the node is full; up to twice as long, so that clients do not return
/// together.
pub const CONNECTION_RETRY_AFTER: Duration = Duration::from_secs(2);
/// Maximum length of the user agent that handlers see. A longer one is cut.
pub const USER_AGENT_CHARS_MAX: usize = 256;
/// Size of one read, and of a thread's buffer for it.
pub const READ_BYTES_MAX: usize = 32 * 1024;
/// Maximum number of bytes taken from a connection's queue at a time. Bytes that the socket does not accept
/// stay with the connection.
pub const WRITE_BYTES_MAX: usize = 64 * 1024;
/// Maximum number of the host's frames that a socket has not accepted. Beyond it the host reads nothing from
/// the client.
pub const UNWRITTEN_FRAMES_MAX: usize = 64;
/// While a connection has no deadline, its timer fires after this time.
pub const CONNECTION_TIMER_MAX: Duration = Duration::from_secs(90);

// ---- gateway: tokens --------------------------------------------------------------------------------------

/// Maximum length of a token. A longer one is refused without a check. 200 groups with names of 100
/// characters fit.
pub const TOKEN_BYTES_MAX: usize = 32 * 1024;
/// Maximum number of names in the claim `groups` by which a canary can select a user. The rest is ignored.
pub const TOKEN_GROUPS_MAX: usize = 256;
/// Maximum length of a token's `jti`. A token with a longer one is refused.
pub const SESSION_ID_CHARS_MAX: usize = 128;
/// Maximum number of cached verified tokens, by digest. At the bound the least recently used are forgotten,
/// and verified again when they are used.
pub const TOKENS_REMEMBERED_MAX: usize = 32_768;
/// Maximum memory of their claims; at the bound the same happens.
pub const TOKENS_REMEMBERED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Maximum number of tokens that wait for a worker; one more is answered 503.
pub const VERIFICATIONS_WAITING_MAX: usize = 4_096;
/// Maximum size of a key set. A larger one is not read.
pub const JWKS_BYTES_MAX: usize = 256 * 1024;
/// Maximum number of keys in a key set, because a token without a `kid` is checked with each matching key. A
/// set with more is not read.
pub const JWKS_KEYS_MAX: usize = 64;
/// Minimum size of an RSA key. Smaller ones are left out, because they can be forged.
pub const RSA_MODULUS_BYTES_MIN: usize = 256;
/// Maximum size of an RSA key. Larger ones are left out, because they are slow.
pub const RSA_MODULUS_BYTES_MAX: usize = 512;
/// Maximum time to read a key set. Then the read has failed.
pub const JWKS_WAIT: Duration = Duration::from_secs(5);
/// Interval of reading key sets, whatever tokens name: a removed key is valid at most this long.
pub const JWKS_EVERY: Duration = Duration::from_secs(600);
/// Wait after a failed read; doubled after each further one.
pub const JWKS_AGAIN_AFTER_MIN: Duration = Duration::from_secs(1);
/// Number of reads in a row that tokens with unknown keys may cause, because anyone can write such a token.
pub const JWKS_READS_AT_ONCE: u32 = 5;
/// After this time they may cause one more read.
pub const JWKS_READ_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// Maximum number of tokens with unknown keys that wait for a read; one more is answered 503.
pub const JWKS_WAITING_MAX: usize = 256;

// ---- revocations ------------------------------------------------------------------------------------------

/// Maximum number of single revoked tokens, which every node keeps in memory. One more is refused; all tokens
/// of its user can still be revoked.
pub const REVOKED_TOKENS_MAX: usize = 1_000_000;
/// Maximum number of users with revoked tokens, in addition. One more is refused.
pub const REVOKED_USERS_MAX: usize = 1_000_000;
/// Maximum time in the future for `before` of a revocation, which cannot be undone. It allows for different
/// clocks. A later time is refused.
pub const REVOKED_AHEAD_MAX: Duration = Duration::from_secs(3600);
/// A revocation without the end of its token is forgotten after this time, so no token may be valid for
/// longer.
pub const REVOCATION_KEPT: Duration = Duration::from_secs(400 * 24 * 3600);
/// A revocation is kept this long after the end of its token, because clocks differ.
pub const REVOCATION_MARGIN: Duration = Duration::from_secs(3600);
/// Maximum number of revocations read in one query. More make more queries.
pub const REVOCATIONS_PAGE: i64 = 10_000;
/// Interval of deleting expired revocations.
pub const REVOCATIONS_CLEANED_EVERY: Duration = Duration::from_secs(600);

// ---- triggers: connections --------------------------------------------------------------------------------

/// Maximum number of connections in one call of a handler that binds `opened` or `closed` with `"batch"`.
/// More make more calls. With fewer, a burst of clients needs more calls and commits; more gain little, and
/// such a call would hold its connections longer.
pub const CONNECTION_BATCH_MAX: usize = 64;
/// Maximum number of such calls in flight, for each release and each of `opened` and `closed`. Further
/// connections wait for the next batch. With one, the node would wait for Postgres with nothing to do.
pub const CONNECTION_BATCHES_AT_ONCE_MAX: usize = 2;
/// Maximum number of concurrent `open` calls for one connection each. Further connections wait for their turn
/// in order, and the node does not read them meanwhile. When many clients reconnect after a node ended, their
/// connection handlers must run, because nothing else does their work. Each call keeps some 256 KiB of memory
/// resident afterwards.
pub const OPENINGS_AT_ONCE_MAX: usize = 16;
/// Maximum wait of a connection for one turn: in a batch, or for a call of its own. Then the connection opens
/// without this handler, so that a hanging handler does not block all later connections.
pub const OPENING_WAIT: Duration = Duration::from_secs(15);
/// Maximum number of concurrent `closed` calls for one connection each; further ones wait for their turn.
pub const CLOSINGS_AT_ONCE_MAX: usize = 16;
/// Waits before further attempts of a call about a connection that found no call slot. After the last attempt
/// the call is lost, and counted as `busy`.
pub const SLOT_RETRIES_AFTER: [Duration; 8] = [
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
    Duration::from_millis(1_600),
    Duration::from_millis(3_200),
    Duration::from_millis(6_400),
];
/// Wait before each further attempt of a call for many connections that found no call slot, and the maximum
/// number of these attempts. The waits do not grow, because all connections behind such a call wait too.
pub const BATCH_SLOT_RETRY_AFTER: Duration = Duration::from_millis(250);
pub const BATCH_SLOT_RETRIES_MAX: usize = 50;
/// How often handlers get a report of touched connections.
pub const TOUCH_REPORT_EVERY: Duration = Duration::from_secs(1);
/// A connection that only repeats the same kind of frame is reported again after this time. Its last frame is
/// reported at the latest then.
pub const TOUCH_REPEATED_AFTER: Duration = Duration::from_secs(10);
/// Maximum number of touched connections in one call; more make more calls.
pub const TOUCHES_MAX: usize = 1000;
/// Maximum number of concurrent requests about gaps; further ones wait in the hub's mailbox.
pub const GAPS_AT_ONCE_MAX: usize = 32;

// ---- triggers: schedules ----------------------------------------------------------------------------------

/// Maximum number of one handler's runs that begin within [`SCHEDULE_EVERY_MIN`] on one node; more begin at
/// the next ticks. Each costs a call, and a statement of the host that selects the node.
pub const SCHEDULE_STARTS_PER_TICK: usize = 4;
/// Maximum number of concurrent runs of one handler on one node; more wait until one has ended.
pub const SCHEDULE_RUNS_PER_HANDLER_MAX: usize = 8;
/// Maximum number of concurrent runs of all handlers on one node; more wait. Each handler has a share, and
/// borrows while the rest is free.
pub const SCHEDULE_RUNS_MAX: usize = 64;
/// A run of a fleet schedule is leased for this long beyond the deadline of its handler. Then another node
/// may run it.
pub const SCHEDULE_LEASE_MARGIN: Duration = Duration::from_secs(1);
/// Maximum time until the claim of an ended run is given back. The next statement that claims runs gives it
/// back earlier. A node that dies within this time delays the schedule until its lease ends.
pub const SCHEDULE_GIVEN_BACK_WITHIN: Duration = Duration::from_secs(1);
/// A run of a fleet schedule that could not be claimed, because Postgres failed, is claimed again after this
/// time, if it is not due earlier.
pub const SCHEDULE_CLAIMED_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// Interval of looking for due schedules while none is due earlier.
pub const SCHEDULES_LOOKED_FOR_EVERY: Duration = Duration::from_secs(60);

// ---- triggers: events -------------------------------------------------------------------------------------

/// Interval of checking the outbox while the bus is down, so that wakes of other nodes are lost, and of
/// reading events that wait: for the transactions before them, or for a retry.
pub const OUTBOX_TICK: Duration = Duration::from_millis(100);
/// Wait of a consumer after a failure of Postgres.
pub const OUTBOX_RETRY_AFTER: Duration = Duration::from_millis(200);
/// Interval of making future partitions of the outbox and dropping past ones.
pub const OUTBOX_MAINTENANCE_EVERY: Duration = Duration::from_secs(3600);
/// Lease of a cursor. After this time another node takes over the shard of a dead one.
pub const CURSOR_LEASE: Duration = Duration::from_secs(3);
/// A poll renews a lease that has less time left than this. Polls that follow each other renew it once.
pub const CURSOR_RENEWED_BEFORE: Duration = Duration::from_millis(2200);
/// Maximum wait of a save for a cursor that another transaction has locked. After it, the save has failed.
/// No poll can renew the lease of that cursor meanwhile. So the node soon loses it, and saves the others.
pub const CURSOR_LOCK_WAIT: Duration = Duration::from_secs(2);
/// A consumer saves its cursors when it has had no event for this long.
pub const CURSOR_SAVE_IDLE: Duration = Duration::from_millis(250);
/// Time after which a save of a cursor that moves is due. After a crash, the events handled since the last
/// save come again. While a save hangs, a consumer delivers until the next one is due.
pub const CURSOR_SAVE_EVERY: Duration = Duration::from_secs(1);
/// Number of handled events after which a save is due.
pub const CURSOR_SAVE_EVENTS_MAX: usize = 2_000;
/// A consumer on this node whose cursor does not move for this long plus the deadline of its handler,
/// although there are events, makes this node not ready.
pub const CONSUMER_STANDS_AFTER: Duration = Duration::from_secs(10);
/// Wait of a consumer whose handler has no free call slot.
pub const CONSUMER_BUSY_WAIT: Duration = Duration::from_millis(50);
/// Wait before an event's second delivery; doubled before each further one, up to the maximum.
pub const EVENT_RETRY_AFTER: Duration = Duration::from_millis(250);
/// Maximum wait between two deliveries of an event.
pub const EVENT_RETRY_AFTER_MAX: Duration = Duration::from_secs(300);
/// Maximum time of a handler's verdict `retry`. A longer time counts as this one.
pub const EVENT_ASKED_RETRY_MAX: Duration = Duration::from_secs(3600);
/// Maximum time of a handler's verdict `hold`. A longer time counts as this one.
pub const EVENT_ASKED_HOLD_MAX: Duration = Duration::from_secs(60);
/// Maximum wait of a consumer that has nothing to do. A wake, a new head or an update ends it.
pub const CONSUMER_IDLE_WAIT: Duration = Duration::from_secs(10);
/// Maximum number of events of a shard that wait for a retry. Then the shard stops: the consumer is broken,
/// not the events.
pub const RETRIES_MAX: i64 = 10_000;

// ---- triggers: timers -------------------------------------------------------------------------------------

/// Maximum number of timers of one handler, those that are parked included. One more is refused as `full`.
pub const TIMERS_PER_HANDLER_MAX: i64 = 100_000;
/// Maximum number of timers that one host call sets. More are refused.
pub const TIMERS_PER_SET_MAX: usize = 256;
/// Maximum length of the key of a timer. A longer one is refused.
pub const TIMER_KEY_BYTES_MAX: usize = 256;
/// Maximum length of the payload of a timer. A longer one is refused.
pub const TIMER_PAYLOAD_BYTES_MAX: usize = 16 * 1024;
/// Maximum time from now until a timer is due. A later time is refused.
pub const TIMER_AHEAD_MAX: Duration = Duration::from_secs(400 * 24 * 3600);
/// Maximum wait of a host call for the commit of its timers. Then it answers `unavailable`.
pub const TIMER_SET_WAIT: Duration = Duration::from_secs(5);
/// Maximum number of timers of one handler that a node has claimed and not settled. Further ones stay due,
/// for this node or another one.
pub const TIMERS_CLAIMED_PER_HANDLER_MAX: usize = 64;
/// Maximum number of concurrent calls with timers of one handler on one node; further ones wait.
pub const TIMER_CALLS_PER_HANDLER_MAX: usize = 16;
/// Maximum number of concurrent calls with timers of all handlers on one node; further ones wait. Each
/// handler has a share, and borrows while the rest is free.
pub const TIMER_CALLS_MAX: usize = 64;
/// The lease of a claimed timer is the longest that the claimed ones before it may take, plus this. Then
/// another node may fire it.
pub const TIMER_LEASE_MARGIN: Duration = Duration::from_secs(2);
/// Minimum time between two claims, unless more timers were due at the last one.
pub const TIMER_CLAIM_EVERY_MIN: Duration = Duration::from_millis(20);
/// Wait before a node claims timers again, or settles them again, after a failure of Postgres.
pub const TIMER_CLAIMED_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Wait of a timer whose handler had no free call slot. It costs no attempt.
pub const TIMER_BUSY_WAIT: Duration = Duration::from_millis(250);
/// Maximum number of timers that an operator's list shows, the ones due first.
pub const TIMERS_LISTED_MAX: i64 = 200;

// ---- admin: requests of operators -------------------------------------------------------------------------

/// Maximum number of concurrent requests of operators, without health checks. One more is answered with 503.
pub const ADMIN_REQUESTS_MAX: usize = 64;
/// Maximum number of connections to the admin listener: those for [`ADMIN_REQUESTS_MAX`], and 16 that only
/// health checks can use. At the bound, the node closes the oldest connection that waits for its client.
pub const ADMIN_CONNECTIONS_MAX: usize = ADMIN_REQUESTS_MAX + 16;
/// Delay of the answer to the first wrong admin token of an address; for each further one twice as long, up
/// to the maximum.
pub const ADMIN_ATTEMPT_DELAY_MIN: Duration = Duration::from_millis(50);
/// Maximum delay of such an answer.
pub const ADMIN_ATTEMPT_DELAY_MAX: Duration = Duration::from_secs(5);
/// Maximum number of delayed answers. Beyond it, requests of addresses with wrong tokens are refused with
/// 429, without a check of the token.
pub const ADMIN_ATTEMPTS_DELAYED_MAX: usize = 16;
/// Maximum number of remembered addresses with wrong tokens; at the bound the oldest is forgotten.
pub const ADMIN_ATTEMPTS_ADDRESSES_MAX: usize = 1024;
/// An address without a wrong token for this long is forgotten.
pub const ADMIN_ATTEMPTS_FORGOTTEN_AFTER: Duration = Duration::from_secs(600);
/// Minimum time between two log lines about wrong tokens; a line has their number.
pub const ADMIN_ATTEMPTS_LOGGED_EVERY: Duration = Duration::from_secs(1);
/// Maximum time of an upload, because it holds one of few slots. A longer one is refused.
pub const UPLOAD_WAIT: Duration = Duration::from_secs(60);
/// Maximum time of an operator's request, including a deploy of a large file. Then it is answered with 503.
pub const ADMIN_ANSWER_WAIT: Duration = Duration::from_secs(180);
/// Maximum number of concurrent deploy requests, because each holds a whole file. One more is asked to retry.
pub const DEPLOY_REQUESTS_MAX: usize = 4;
/// Maximum number of key patterns in one request to forget keys. More are refused.
pub const FORGET_PATTERNS_MAX: usize = 32;
/// Maximum length of a note. A longer one is 422.
pub const NOTE_CHARS_MAX: usize = 1000;
/// Maximum length of the name of a token's owner. A longer one is 422.
pub const OPERATOR_NAME_CHARS_MAX: usize = 64;
/// Interval of updating the gauges that need a query.
pub const GAUGES_EVERY: Duration = Duration::from_secs(15);

// ---- admin: the audit -------------------------------------------------------------------------------------

/// Maximum length of the action in the audit; a path may be as long as a head. The rest is cut off.
pub const AUDIT_ACTION_CHARS_MAX: usize = 256;
/// Maximum number of entries in one list of the audit, the newest first.
pub const AUDIT_LISTED_MAX: i64 = 200;
/// Retention of the audit. Older entries are deleted.
pub const AUDIT_KEPT: Duration = Duration::from_secs(731 * 24 * 3600);
/// Number of new entries between two deletions.
pub const AUDIT_FORGETS_EVERY: i64 = 100;

// ---- admin: readiness -------------------------------------------------------------------------------------

/// Maximum time of a check of `/readyz`. A longer one has failed.
pub const READY_WAIT: Duration = Duration::from_secs(1);
/// Minimum interval of the checks of `/readyz`. Meanwhile the node gives the last answers.
pub const READY_KEPT: Duration = Duration::from_millis(20);
/// A check that was ok and then failed counts as failed until it has not failed for this long, so that it
/// does not flap.
pub const READY_HOLDS: Duration = Duration::from_secs(2);

// ---- shutdown ---------------------------------------------------------------------------------------------

/// Maximum time of a shutdown after the drain. What has not ended by then is cut off.
pub const SHUTDOWN_WAIT: Duration = Duration::from_secs(10);
/// Clients that are still connected this long after the drain are cut off.
pub const SHUTDOWN_CLIENTS_WAIT: Duration = Duration::from_secs(7);
/// Minimum time for background tasks to end, when the clients have used up the time before.
pub const SHUTDOWN_WORK_WAIT_MIN: Duration = Duration::from_secs(2);
/// Minimum time to answer operators, when the rest of the shutdown has used up its time.
pub const SHUTDOWN_OPERATORS_WAIT_MIN: Duration = Duration::from_secs(1);

// ==== switchboard: the commands ============================================================================

/// Maximum size of a registry's manifest and of its tokens. Larger ones are rejected.
pub const REGISTRY_MANIFEST_BYTES_MAX: usize = 256 * 1024;
/// Maximum number of redirects of a registry, which may keep its blobs elsewhere. More fail.
pub const REGISTRY_REDIRECTS_MAX: u32 = 4;
/// Maximum time to fetch a release from a registry. Then the command fails.
pub const REGISTRY_WAIT: Duration = Duration::from_secs(60);
/// Maximum length of a registry's error text in an error of a command; the rest is cut off.
pub const REGISTRY_ERROR_CHARS_MAX: usize = 300;
/// Maximum time in which a command connects to a node, which is usually local. Then the command fails.
pub const NODE_CONNECT_WAIT: Duration = Duration::from_secs(5);
/// Maximum wait of `switchboard invoke` for Redis. Then it fails.
pub const INVOKE_REDIS_WAIT: Duration = Duration::from_secs(5);
/// Maximum lifetime of a token of `switchboard token`, in whole days; one that lives longer would be a
/// password. A longer one is refused.
pub const DEV_TOKEN_LIFETIME_MAX: Duration = Duration::from_secs(366 * 24 * 3600);
/// Time without a change that `switchboard dev` waits for: a save of the editor and a second one of the
/// formatter are one change.
pub const DEV_QUIET_WAIT: Duration = Duration::from_millis(50);
/// Maximum number of changed files whose names `switchboard dev` keeps; beyond it only the fact of a change
/// counts.
pub const DEV_CHANGED_FILES_MAX: usize = 256;
/// Maximum number of routes and frame types for which `switchboard dev` prints an example; it states the
/// number of the others.
pub const DEV_EXAMPLES_MAX: usize = 8;
/// Lifetime of the token that `switchboard dev` prints. Afterwards `switchboard token` makes another one.
pub const DEV_EXAMPLE_TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// Maximum number of words of `build.command` in a manifest: a program and its arguments. A manifest with a
/// longer command is invalid; such a command belongs into a script.
pub const BUILD_COMMAND_WORDS_MAX: usize = 64;
