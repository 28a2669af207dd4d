//! Every bound of the host, with what happens at it. A handler's own limits are in its manifest; their ceilings are here.

use std::time::Duration;

// ---- words -----------------------------------------------------------------------------------------------------------

/// A token whose `sub` is longer is refused.
pub const USER_ID_CHARS_MAX: usize = 64;
/// A longer address is `refused` to the handler that names it. The longest user id has 64 characters of four bytes.
pub const ADDRESS_BYTES_MAX: usize = 264;

// ---- the wire --------------------------------------------------------------------------------------------------------

/// A larger REST body is 413, before it is read whole.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// The body of a handler's HTTP answer. Pages of the largest messages stay below it. A larger one is not sent: the caller
/// gets 500, and the release has failed.
pub const ANSWER_BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Headers of a handler's HTTP answer, and the bytes of their names and values together. More is 500 likewise.
pub const ANSWER_HEADERS_MAX: usize = 64;
pub const ANSWER_HEADERS_BYTES_MAX: usize = 16 * 1024;
/// The payload of a handler's reply to a frame. A larger one is answered by `error` with `internal` likewise.
pub const REPLY_BYTES_MAX: usize = 256 * 1024;
/// What one handler sends to a connection that has just opened, all frames together: 200 of the largest fit. More is a
/// failure of the release, and the connection opens without them.
pub const OPENED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// A sentence of a handler: the detail of a problem, the error of a schedule, the reason of a rejected event. A longer one
/// is cut.
pub const REASON_BYTES_MAX: usize = 4 * 1024;
/// The code of a handler's problem. A longer one is a failure of the release.
pub const PROBLEM_CODE_BYTES_MAX: usize = 64;
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
/// A larger manifest in a registry is none; nor is a longer token taken.
pub const REGISTRY_MANIFEST_BYTES_MAX: usize = 256 * 1024;
/// Registries keep their blobs elsewhere; one that leads on more often leads nowhere.
pub const REGISTRY_REDIRECTS_MAX: u32 = 4;
/// A release that a registry has not given by then is not waited for.
pub const REGISTRY_WAIT: Duration = Duration::from_secs(60);

// ---- the gateway -----------------------------------------------------------------------------------------------------

/// Handshakes that the kernel keeps while all places below are taken.
pub const BACKLOG: u32 = 4096;
/// What the kernel takes of a connection's bytes before they are on their way. With a peer that does not read it would be
/// megabytes, and only what it does not take counts for [`QUEUE_BYTES_MAX`].
pub const UNSENT_BYTES_MAX: u32 = 64 * 1024;
/// TCP connections of clients that are not WebSockets (yet). At the bound, the node closes the oldest connection that waits
/// for its client. When there is none, further connections wait in the backlog.
pub const HTTP_CONNECTIONS_MAX: usize = 4096;
/// A connection that has waited for its client for less time is not closed for another: its bytes may be on the way.
pub const DROPPED_AFTER_MIN: Duration = Duration::from_secs(2);
/// While no connection can be closed for a new one, the node looks again after this time.
pub const SLOTS_LOOKED_AT_EVERY: Duration = Duration::from_millis(100);
/// The request line and headers together. A longer head is answered with 431. It holds a token of [`TOKEN_BYTES_MAX`] and
/// as many bytes of other headers.
pub const REQUEST_HEAD_BYTES_MAX: usize = 64 * 1024;
/// Other servers take 100 headers that a proxy adds to its own. One more is answered with 431.
pub const REQUEST_HEADERS_MAX: usize = 128;
/// A connection whose request head is not complete by then is closed.
pub const REQUEST_HEAD_WAIT: Duration = Duration::from_secs(30);
/// A peer that takes fewer bytes in `stall_ms`, while more wait for it, has stalled, and its connection ends.
pub const STALL_BYTES_MIN: u32 = 16 * 1024;
/// Answers of this size count for [`LARGE_ANSWERS_BYTES_MAX`] until their clients have read them.
pub const LARGE_ANSWER_BYTES_MIN: usize = 64 * 1024;
/// Large answers that clients of one listener have not read, together. At the bound, the node closes the connections whose
/// answers have waited longest. When these are too young, the new answer is a 503.
pub const LARGE_ANSWERS_BYTES_MAX: usize = 256 * 1024 * 1024;
/// A client that has not finished its TLS handshake by then is gone.
pub const TLS_HANDSHAKE_WAIT: Duration = Duration::from_secs(10);
/// A new certificate is in use this long after its files were replaced.
pub const TLS_FILES_LOOKED_AT_EVERY: Duration = Duration::from_secs(1);
/// A body that takes longer is refused.
pub const BODY_WAIT: Duration = Duration::from_secs(30);
/// What a client is told to wait when the node is full; up to twice as long, so that they do not come back together.
pub const CONNECTION_RETRY_MS: u32 = 2_000;
/// Handlers see this much of a client's name for itself.
pub const USER_AGENT_CHARS_MAX: usize = 256;
/// A ticket not used by then is none.
/// Tickets that a user may ask for in a minute, on all nodes together; beyond it 429. Each is a key in Redis for its time.
pub const TICKETS_PER_MINUTE: i64 = 120;
pub const TICKET_SECONDS: u64 = 30;
/// Bytes of one read, and of one thread's buffer for it.
pub const READ_BYTES_MAX: usize = 32 * 1024;
/// Taken from a connection's queue at a time; what the socket does not take stays with the connection.
pub const WRITE_BYTES_MAX: usize = 64 * 1024;
/// Frames of the host that a socket has not taken; beyond them its client is not listened to.
pub const UNWRITTEN_FRAMES_MAX: usize = 64;
/// After its close frame a connection has so long to be read and closed by the peer.
pub const GOODBYE_WAIT: Duration = Duration::from_secs(2);

// ---- tokens ----------------------------------------------------------------------------------------------------------

/// A longer token is refused unread. 200 groups with names of 100 characters fit.
pub const TOKEN_BYTES_MAX: usize = 32 * 1024;
/// A token with a longer `jti` is refused.
pub const SESSION_ID_CHARS_MAX: usize = 128;
/// Verified tokens, by digest; at the bound those that nobody asked for lately are forgotten, and verified again.
pub const TOKENS_REMEMBERED_MAX: usize = 32_768;
/// What those tokens say, in memory; likewise.
pub const TOKENS_REMEMBERED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Tokens waiting for a worker; one more is answered 503.
pub const VERIFICATIONS_WAITING_MAX: usize = 4_096;
/// A larger key set is not read.
pub const JWKS_BYTES_MAX: usize = 256 * 1024;
/// Nor is one with more keys: a token is tried with each of them that it may be of.
pub const JWKS_KEYS_MAX: usize = 64;
/// Keys of RSA outside of this are left out: smaller ones are forged, larger ones are slow.
pub const RSA_MODULUS_BYTES_MIN: usize = 256;
pub const RSA_MODULUS_BYTES_MAX: usize = 512;
/// A key set that is not read by then could not be read.
pub const JWKS_WAIT: Duration = Duration::from_secs(5);
/// Key sets are read so often, whatever tokens name: a key that was taken out of one is good no longer than this.
pub const JWKS_EVERY: Duration = Duration::from_secs(600);
/// When that failed, again after this, then after twice as long.
pub const JWKS_AGAIN_AFTER_MIN: Duration = Duration::from_secs(1);
/// Readings that tokens with unknown keys may cause one after the other; anyone can write such a token.
pub const JWKS_READS_AT_ONCE: u32 = 5;
/// After so long they may cause one more.
pub const JWKS_READ_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// Tokens with unknown keys that wait for a reading; one more is answered 503.
pub const JWKS_WAITING_MAX: usize = 256;
/// Single tokens that are revoked: every node keeps all of them in memory. One more is refused; its user's can be revoked.
pub const REVOKED_TOKENS_MAX: usize = 1_000_000;
/// Users whose tokens are, likewise and besides. One more is refused.
pub const REVOKED_USERS_MAX: usize = 1_000_000;
/// A user's tokens are not revoked from further ahead: nothing takes such a thing back. So far clocks may differ.
pub const REVOKED_AHEAD_MAX: Duration = Duration::from_secs(3600);
/// A revocation is forgotten after this, unless it says when its token ends: no token may be good for longer.
pub const REVOCATION_KEPT: Duration = Duration::from_secs(400 * 24 * 3600);
/// And so long after the end of its token: clocks differ.
pub const REVOCATION_MARGIN: Duration = Duration::from_secs(3600);
/// Taken from Postgres in one question.
pub const REVOCATIONS_PAGE: i64 = 10_000;
/// How often those that are over are deleted.
pub const REVOCATIONS_CLEANED_EVERY: Duration = Duration::from_secs(600);

// ---- one connection ----------------------------------------------------------------------------------------------------

/// While a socket takes no bytes, its queue is looked at so often: once it is full, `stall_ms` counts.
pub const BLOCKED_LOOK: Duration = Duration::from_secs(5);
/// One more within a minute closes the connection with 4002.
pub const MALFORMED_FRAMES_MAX: usize = 10;
/// As many overflows of frames within a minute close the connection with 4029.
pub const FLOODS_MAX: usize = 3;
/// What a flooding client is told to wait; frames refused meanwhile belong to the same overflow.
pub const FLOOD_PAUSE_MS: u64 = 1000;

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
/// Runs of one handler's schedules that begin within [`SCHEDULE_EVERY_MS_MIN`] on one node; more begin at the next ticks. Each
/// costs a call, and a statement of the host to find out which node's turn it is.
pub const SCHEDULE_STARTS_PER_TICK: usize = 4;
/// Runs of one handler at a time on one node; more wait until one has ended.
pub const SCHEDULE_RUNS_PER_HANDLER_MAX: usize = 8;
/// Runs of all handlers at a time on one node. Each handler has a share and borrows while the rest is free.
pub const SCHEDULE_RUNS_MAX: usize = 64;
/// Schedules of one handler; a manifest with more is refused.
pub const SCHEDULES_PER_HANDLER_MAX: usize = 256;
/// Events of one call, so that a batch fits the memory of a guest.
pub const EVENT_BATCH_MAX: u32 = 256;
/// Slower than this is a schedule.
pub const EVENT_PACE_MS_MAX: u32 = 1_000;

// ---- releases ----------------------------------------------------------------------------------------------------------

/// A deploy that would add one more is refused.
pub const HANDLERS_MAX: usize = 256;
/// Lists of releases and of their history end here, the newest first.
pub const RELEASES_LISTED_MAX: i64 = 500;
/// A node that says nothing for so long is dead to a deploy: it is not waited for, and converges when it is back.
pub const NODE_SILENT_AFTER: Duration = Duration::from_secs(5);
/// Ready to run, of one handler: what runs, its canary, its shadow, what ran before, and one that is being tried. The one used longest ago goes;
/// going back to it takes a load.
pub const RELEASES_LOADED_PER_HANDLER: usize = 5;
/// A node whose heartbeat is that old and whose connection for hints is gone has ended without saying so.
pub const NODE_GONE_AFTER: Duration = Duration::from_millis(1500);
/// Fewer digits could name two releases, and a person would not notice.
pub const DIGEST_PREFIX_MIN: usize = 6;
/// Each compile is a process that takes a core.
pub const COMPILES_AT_ONCE: usize = 2;
/// How long a deploy waits for the live nodes; those that have not answered are named.
pub const DEPLOY_WAITS: Duration = Duration::from_secs(10);
pub const DEPLOY_LOOKS_EVERY: Duration = Duration::from_millis(10);
/// A node that misses the hint of a switch sees it this late.
pub const FOLLOW_EVERY: Duration = Duration::from_millis(250);
/// A question to Postgres that hangs for longer counts as unanswered.
pub const FOLLOW_WAITS: Duration = Duration::from_secs(5);
pub const HINTS_AGAIN_AFTER: Duration = Duration::from_secs(1);
pub const HEARTBEAT_EVERY: Duration = Duration::from_secs(1);
/// A release that did not load is tried again after this long, then after twice as long, up to the most.
pub const LOAD_AGAIN_AFTER_MIN: Duration = Duration::from_secs(1);
pub const LOAD_AGAIN_AFTER_MAX: Duration = Duration::from_secs(60);
/// The longest wait before a file of `handlers_dir` that was refused for what is in it is tried again.
pub const FILE_REFUSED_AGAIN_AFTER_MAX: Duration = Duration::from_secs(600);

/// A manifest may not ask for more: a canary that only fails is gone by then.
pub const CANARY_FAILURES_MAX: u32 = 50;
/// So often every canary is compared with what runs; a failing call of it is looked at when it fails.
pub const CANARY_LOOKS_EVERY: Duration = Duration::from_millis(250);
/// Two windows: what just went wrong must not drown in an hour that went well, and what is seldom needs time.
pub const CANARY_WINDOW_SHORT: Duration = Duration::from_secs(2);
pub const CANARY_WINDOW_LONG: Duration = Duration::from_secs(60);
/// Three calls of which every one fails are enough where there are no more.
pub const CANARY_FAILURES_MIN: u64 = 3;
/// A canary is taken back for what at least so many callers met. One person can send what no release can answer.
pub const CANARY_CALLERS_MIN: usize = 3;
/// And only if it is worse without the two callers who met the most, and without one more for each so many callers.
pub const CANARY_CALLERS_PER_SUSPECT: usize = 20;
/// Calls that one caller counts for; of more, as large a part went wrong. Five users are thus enough for
/// [`CANARY_FAILURES_MAX`].
pub const CANARY_CALLS_PER_CALLER: u64 = 10;
/// A difference that would come about by chance more often than this is none. Canaries are compared some 10,000 times an hour;
/// most of these comparisons are of nearly the same calls.
pub const CANARY_CHANCE_MAX: f64 = 1e-4;
/// Where the running release had fewer calls in a window, it is supposed to have answered the rest of so many: it has run
/// before.
pub const CANARY_CALLS_SUPPOSED: u64 = 100;
/// Calls that are kept of a canary, and of the release beside it, to compare them. At more than some 270 a second the long window
/// is shorter than a minute, for both.
pub const CANARY_CALLS_MAX: usize = 16_384;
/// Between two comparisons at failing calls: a comparison of full logs takes about a millisecond.
pub const CANARY_LOOKS_APART: Duration = Duration::from_millis(10);
/// A difference below this is noise, whatever the percentage.
pub const CANARY_SLOWER_MIN: Duration = Duration::from_millis(5);
/// Live calls waiting for a node's shadow worker; one more is left out and counted.
pub const SHADOWS_WAITING_MAX: usize = 1;
/// Differences that a shadow's report shows, each cut at so many characters.
pub const SHADOW_EXAMPLES_MAX: usize = 8;
pub const SHADOW_EXAMPLE_CHARS_MAX: usize = 500;
/// How often a node writes down what its shadows saw.
pub const SHADOW_REPORT_EVERY: Duration = Duration::from_secs(1);

/// Spans waiting to be sent; one more is dropped and counted.
pub const SPANS_WAITING_MAX: usize = 4096;
pub const SPANS_BATCH_MAX: usize = 1024;
/// Wakes and publications of traced calls whose effect is not seen yet; beyond them the oldest are forgotten.
pub const TRACES_PENDING_MAX: usize = 64;

// ---- operators ---------------------------------------------------------------------------------------------------------

/// Requests of operators at a time, without health checks. One more is answered with 503.
pub const ADMIN_REQUESTS_MAX: usize = 64;
/// Connections to the admin listener: those for [`ADMIN_REQUESTS_MAX`], and 16 that only health checks can use. At the bound,
/// the node closes the oldest connection that waits for its client.
pub const ADMIN_CONNECTIONS_MAX: usize = ADMIN_REQUESTS_MAX + 16;
/// The answer to the first wrong admin token of an address is held back for this time; for each further one twice as long, up
/// to the maximum.
pub const ADMIN_ATTEMPT_DELAY_MIN: Duration = Duration::from_millis(50);
pub const ADMIN_ATTEMPT_DELAY_MAX: Duration = Duration::from_secs(5);
/// Answers held back at a time. Beyond it, tokens from addresses that were wrong before are refused unread, with 429.
pub const ADMIN_ATTEMPTS_DELAYED_MAX: usize = 16;
/// Addresses with wrong tokens that a node remembers; at the bound the one that was wrong longest ago is forgotten.
pub const ADMIN_ATTEMPTS_ADDRESSES_MAX: usize = 1024;
/// An address that was not wrong for so long is forgotten.
pub const ADMIN_ATTEMPTS_FORGOTTEN_AFTER: Duration = Duration::from_secs(600);
/// Wrong tokens have one line in the log in this time, with their number.
pub const ADMIN_ATTEMPTS_LOGGED_EVERY: Duration = Duration::from_secs(1);
/// An uploader that takes longer is refused; it holds one of few places.
pub const UPLOAD_WAITS: Duration = Duration::from_secs(60);
/// Everything an operator asks ends by then, a deploy of a large file included.
pub const ADMIN_ANSWER_WAITS: Duration = Duration::from_secs(180);
/// Each holds a whole file; one more is told to come back.
pub const DEPLOYS_AT_ONCE: usize = 4;
/// A longer note is 422.
pub const NOTE_CHARS_MAX: usize = 1000;
/// A longer name of whom a token is, is 422.
pub const OPERATOR_NAME_CHARS_MAX: usize = 64;
/// Of what was asked for, kept in the audit; a path may be as long as a head.
pub const AUDIT_ACTION_CHARS_MAX: usize = 256;
/// Entries in one list.
pub const AUDIT_LISTED_MAX: i64 = 200;
/// Older entries of the audit are deleted.
pub const AUDIT_DAYS: i32 = 731;
/// With every so many entries.
pub const AUDIT_FORGETS_EVERY: i64 = 100;
/// Signatures of one release in one file or header.
pub const SIGNATURES_MAX: usize = 16;
/// A check of `/readyz` that takes longer has failed.
pub const READY_WAITS: Duration = Duration::from_secs(1);
/// The checks of `/readyz` run at most so often. In between, the last answers are given.
pub const READY_KEPT: Duration = Duration::from_millis(20);
/// A check that was ok and then failed counts as failed until it has not failed for so long, so that it does not flap.
pub const READY_HOLDS: Duration = Duration::from_secs(2);
/// When accepting fails, descriptors are short: others must end first.
pub const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(50);

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
/// Calls of one role among them. One more is `busy`, so that no role takes the places of the others.
pub const POSTGRES_WAITING_PER_ROLE_MAX: usize = 1024;
/// A login that takes longer has failed.
pub const POSTGRES_CONNECT_MS_MAX: u64 = 5_000;
/// After a cancel request the statement gets this long to end before its connection is closed under it.
pub const POSTGRES_CANCEL_GRACE_MS: u64 = 100;
/// A probe of readiness that is not committed by then has failed. Below `READY_WAITS`, so that the check says why.
pub const POSTGRES_PROBE_MS_MAX: u64 = 900;
/// An answer of the probe is given again for so long, so that several askers cost one COMMIT.
pub const POSTGRES_PROBE_FRESH_MS: u64 = 400;
/// After a probe without an answer no other begins for so long, so that backends that hang do not add up.
pub const POSTGRES_PROBE_REST_MS: u64 = 3_000;
/// A role is probed for so long; then the next role logs in.
pub const POSTGRES_PROBE_TURN_MS: u64 = 5_000;
/// Temporary files of one session of a handler. A statement that needs more fails with 53400.
pub const POSTGRES_TEMP_FILES_MB_MAX: u32 = 64;
/// Calls in one flight: beyond this the server gains little and a culprit costs more.
pub const COLLECT_BATCH_MAX: usize = 64;
/// Calls waiting in one lane for the next flight. One more is `busy`.
pub const COLLECT_QUEUE_MAX: usize = 1024;
/// Lanes with a flight or a queue, all handlers together. One more is `busy`.
pub const COLLECT_LANES_MAX: usize = 4096;
/// Statements of one collection.
pub const COLLECT_STATEMENTS_MAX: usize = 8;

// ---- fan-out ---------------------------------------------------------------------------------------------------------

/// Unsent bytes of one connection. Beyond it what may be dropped is dropped, and what is durable is not queued: the
/// reader gets it later as pages of `connection.missed`. Full means the reader is slower than its rooms.
pub const QUEUE_BYTES_MAX: usize = 256 * 1024;
/// Replies and pushes that cannot be asked for again may go this far; then close 4008, the client resumes.
pub const QUEUE_BYTES_HARD: usize = 2 * QUEUE_BYTES_MAX;
/// Above it a push with a merge key replaces the one before it with the same key.
pub const QUEUE_MERGE_BYTES: usize = 16 * 1024;
/// One page of `connection.missed`; a page is asked for only when the reader's queue has room for it.
pub const PAGE_BYTES_MAX: usize = 64 * 1024;
/// What a handler answers beyond this is cut off at a push and asked for again.
pub const PAGE_PUSHES_MAX: usize = 1_000;
/// Subscriptions of one connection; more are refused with `full`.
pub const SUBSCRIPTIONS_MAX: usize = 2_000;
/// Pushes that an address keeps while a subscriber is behind its gate, or while a gap is being filled. Beyond them the
/// oldest are forgotten, and one more page is asked for.
pub const RING_PUSHES_MAX: usize = 256;
pub const RING_BYTES_MAX: usize = 128 * 1024;
/// Pushes without a position that wait behind one gate; beyond it the oldest is dropped.
pub const GATE_UNPOSITIONED_MAX: usize = 64;
/// How often a gap is asked about before the stream goes on with a jump that its readers can see.
pub const MISSED_ATTEMPTS_MAX: u32 = 6;
/// Wait before the second attempt; doubled before each one after it.
pub const MISSED_RETRY_MS: u64 = 100;
/// One message between nodes holds at most so many publications and, unless it is a single one, so many bytes.
pub const ENVELOPE_PUSHES_MAX: usize = 256;
pub const ENVELOPE_BYTES_MAX: usize = 128 * 1024;
/// A subscription or publication that the bus has not confirmed by then is `unavailable`.
pub const BUS_CONFIRM_MS: u64 = 2_000;
/// An address stays subscribed so long after its last subscriber, so that a page reload costs Redis nothing.
pub const BUS_IDLE_MS: u64 = 10_000;
/// How often a node publishes a loopback heartbeat to itself.
pub const LOOPBACK_HEARTBEAT_EVERY: Duration = Duration::from_millis(500);
/// When no loopback heartbeat has arrived for this time, the node marks its bus as down and reconnects.
pub const LOOPBACK_TIMEOUT: Duration = Duration::from_secs(2);

// ---- the sandbox -----------------------------------------------------------------------------------------------------

/// Calls inside guests at a time on one node, and so the slots of the instance pool. A quarter is shared out among the loaded
/// releases and always there for each of them; the rest is lent, and every borrower leaves a part of it to others. A call that
/// gets no slot is answered 503, as at a handler's own `concurrency`, which is at most half of this.
pub const CALLS_MAX: u32 = 2048;
/// Memory of a call that is not counted against the node's `guest_memory_mib`: what the pool keeps for its slot anyway.
pub const MEMORY_FREE_BYTES: usize = 512 * 1024;
/// Memory beyond that is granted in such units, the size of a page of WebAssembly. A quarter of `guest_memory_mib` is shared
/// out among the loaded releases, the rest is lent. A guest that gets no more has run out of memory: 503.
pub const MEMORY_UNIT_BYTES: usize = 64 * 1024;
/// A smaller `guest_memory_mib` is refused: the largest call would fit only on an idle node.
pub const GUEST_MEMORY_MIB_MIN: u32 = 128;
/// A call that has been inside its guest for longer goes on only with one of the node's turns (one for each processor but
/// one, at least one). Waiting for a turn counts against the call's deadline, not against its `cpu_ms`. Calls take some
/// 100 µs; a shorter time would make batches of events wait, a longer one gives every call of a flood more of it.
pub const LONG_CPU_AFTER: Duration = Duration::from_millis(2);
/// A turn passes to the next release after this where one waits.
pub const LONG_CPU_TURN: Duration = Duration::from_millis(4);
/// A release that wants more in one instance is refused when it is loaded.
pub const MEMORIES_PER_INSTANCE_MAX: u32 = 2;
pub const TABLES_PER_INSTANCE_MAX: u32 = 8;
/// A component of componentize-py has 38.
pub const CORE_INSTANCES_PER_INSTANCE_MAX: u32 = 64;
/// A table of functions that grows past this fails to grow.
pub const TABLE_ELEMENTS_MAX: usize = 20_000;
/// A secret setting of at least so many bytes is concealed wherever its value appears in a recording or a log line. A
/// shorter one is concealed only where `config.get` answers it: `5` or `true` would be found everywhere.
pub const SECRET_BYTES_MIN: usize = 8;
/// Keys of `public_settings` in a manifest; a manifest with more is refused.
pub const PUBLIC_SETTINGS_MAX: usize = 64;
/// Lines of one call's log; the rest is dropped and counted.
pub const LOG_LINES_MAX: u32 = 64;
/// Bytes of one line with its fields; the rest of the line is cut off.
pub const LOG_LINE_BYTES_MAX: usize = 4 * 1024;
/// Random bytes of one host call; more traps.
pub const RANDOM_BYTES_MAX: u32 = 1024;
/// The last host calls of a call that a failure's log line names.
pub const LAST_HOST_CALLS: usize = 32;
/// Bytes of arguments and answers in one trace; what comes after is left out and the trace says so.
pub const TRACE_BYTES_MAX: u64 = 64 * 1024;
/// Traces that one process writes into `trace_dir`; it stops there, so that a forgotten setting does not fill a disk.
pub const TRACES_MAX: u32 = 10_000;
/// Wall and CPU time of the child that compiles a release; it is killed and the release refused.
pub const COMPILE_SECONDS_MAX: u64 = 60;
/// Address space of that child.
pub const COMPILE_MEMORY_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// Children compiling at a time on one node; others wait.
pub const COMPILES_AT_A_TIME: usize = 1;
/// A compiled release that is larger is refused.
pub const ARTIFACT_BYTES_MAX: u64 = 256 * 1024 * 1024;

// ---- Redis -------------------------------------------------------------------------------------------------------------

/// The arguments of a command, or of all commands of a pipeline, together, and what an offset adds to a value. More is
/// `refused`.
pub const REDIS_COMMAND_BYTES_MAX: usize = 1024 * 1024;
/// A longer pipeline is `refused`.
pub const REDIS_PIPELINE_MAX: usize = 1024;
/// A longer key is `refused`.
pub const REDIS_KEY_BYTES_MAX: usize = 512;
/// A larger answer is `too-large`. A node counts its bytes and [`CELL_BYTES`].
pub const REDIS_ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Members that a command picks at random, in either sign. More is `refused`: a negative count repeats members without end.
pub const REDIS_RANDOM_MEMBERS_MAX: u64 = 10_000;
/// Keys of a command that walks over sets or sorted sets. More is `refused`: a set that is named again is walked over again.
pub const REDIS_SETS_MAX: usize = 32;
/// Loop rounds, function calls and commands of one run of a script. One more ends the script with an error; what it wrote
/// stays. Without a bound, an endless loop stops Redis for everybody.
pub const REDIS_SCRIPT_STEPS_MAX: u64 = 2_000_000;
/// Processor time of one run of a script, looked at every 256 steps. Beyond it the script is ended with an error.
pub const REDIS_SCRIPT_MS_MAX: u64 = 1_000;
/// Commands of one run of a script. One more ends it with an error. A sweep of presence needs some 5,000.
pub const REDIS_SCRIPT_COMMANDS_MAX: u64 = 100_000;
/// Bytes that the commands of one run of a script send, and those that an offset adds. More ends it with an error.
pub const REDIS_SCRIPT_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// The answer to `SCRIPT KILL` is waited for so long: Redis reads it only once its own `busy-reply-threshold` (5 s by default)
/// has passed. Then it is sent again, as long as the script runs.
pub const REDIS_SCRIPT_KILL_MS_MAX: u64 = 10_000;
/// Patterns of keys that one request of an operator deletes. More is refused.
pub const FORGET_PATTERNS_MAX: usize = 32;
/// Commands on their way to one connection. One more waits, within its deadline.
pub const REDIS_QUEUE_MAX: usize = 1024;
/// An answer that takes longer is `deadline`, however long the call may last: nothing in Redis is worth the rest of it.
pub const REDIS_ANSWER_MS_MAX: u64 = 1_000;
/// Between two attempts to connect, at most.
pub const REDIS_BACKOFF_MS_MAX: u64 = 1_000;
/// An attempt to connect that takes longer has failed; a connection that says nothing for so long is dead.
pub const REDIS_SILENCE_MS_MAX: u64 = 3_000;
/// Messages heard and not yet taken. Then nothing is read, Redis's own buffer fills, and Redis ends the connection: a loss
/// like any other.
pub const REDIS_HEARD_MAX: usize = 1024;
/// A longer message ends the connection that brings it.
pub const REDIS_MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
// ---- triggers ----------------------------------------------------------------------------------------------------------

/// `open` calls at a time; further connections wait for their turn, first come first served, and are not read meanwhile. A
/// crowd that comes back after a node has ended must not be refused by its handlers: nobody would do for it what they do.
pub const OPENINGS_AT_ONCE_MAX: usize = 64;
/// A connection whose turn has not come by then goes on without a greeting: a handler that hangs must not make every later
/// one wait for all before it.
pub const OPENING_WAIT: Duration = Duration::from_secs(15);
/// `closed` calls at a time; the ends of further connections wait for their turn.
pub const CLOSINGS_AT_ONCE_MAX: usize = 32;
/// Between tries of a call about a connection that found no slot. After the last the call is lost, and counted as `busy`.
pub const SLOT_TRIES_APART_MS: [u64; 8] = [50, 100, 200, 400, 800, 1600, 3200, 6400];
/// How often handlers hear which connections were touched.
pub const TOUCH_REPORT_MS: u64 = 1000;
/// Touched connections in one call; more make more calls.
pub const TOUCHES_MAX: usize = 1000;
/// Gaps asked about at a time; further ones wait in the hub's mailbox.
pub const GAPS_AT_ONCE_MAX: usize = 32;
/// A cursor stops before it would pass over more than so many holes: somebody holds that many transactions open.
pub const OUTBOX_HOLES_MAX: usize = 1000;
/// A shard stops when so many of its events wait to be retried: the consumer is broken, not the events.
pub const RETRIES_MAX: i64 = 10_000;
/// Parked events in one list, the newest first.
pub const PARKED_LISTED_MAX: i64 = 200;
/// Behind every wake: how long an event waits that nobody told about.
pub const OUTBOX_TICK_MS: u64 = 100;
/// How long a new position epoch (a failover, a restore) goes unnoticed by a node at most, beside its writes.
pub const EPOCH_LOOK_MS: u64 = 500;
/// A consumer that Postgres does not answer within this reads on another connection.
pub const OUTBOX_READ_MS_MAX: u64 = 5_000;
/// A shard whose node died is somebody else's after this.
pub const CURSOR_LEASE_MS: u64 = 3_000;
/// A consumer on this node whose cursor does not move for longer, beyond the deadline of its handler, although there are
/// events, makes this node not ready.
pub const CONSUMER_STANDS_AFTER: Duration = Duration::from_secs(10);
/// What was handled since the last save of a cursor comes once more after a crash.
pub const CURSOR_SAVE_MS: u64 = 250;
/// The wait before an event's second delivery; doubled before each further one, up to the maximum.
pub const RETRY_MS: u64 = 250;
pub const RETRY_MS_MAX: u64 = 300_000;
