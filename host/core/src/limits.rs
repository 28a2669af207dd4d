//! Bounds of the host, each with what happens at it. The limits of a handler are in its manifest; their
//! maxima are here. Bounds that belong to one module only are in that module.

use std::time::Duration;

// ---- types ------------------------------------------------------------------------------------------------

/// Maximum length of a token's `sub`. A longer one is refused.
pub const USER_ID_CHARS_MAX: usize = 64;
/// Maximum length of an address. A longer one is `refused` to the handler. The longest user id has 64
/// characters of four bytes.
pub const ADDRESS_BYTES_MAX: usize = 264;

// ---- the wire ---------------------------------------------------------------------------------------------

/// Maximum size of a REST body. A larger one is 413, before it is read whole.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// Maximum size of the body of a handler's HTTP answer. Pages of the largest messages stay below it. A larger
/// one is not sent: the caller gets 500, and the failure counts against the release.
pub const ANSWER_BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Maximum number of headers of a handler's HTTP answer, and of the bytes of their names and values together.
/// More is 500, as above.
pub const ANSWER_HEADERS_MAX: usize = 64;
pub const ANSWER_HEADERS_BYTES_MAX: usize = 16 * 1024;
/// Maximum size of the payload of a handler's reply to a frame. For a larger one the client gets the error
/// `internal`, and the failure counts against the release.
pub const REPLY_BYTES_MAX: usize = 256 * 1024;
/// Maximum size of all frames that one handler sends to a new connection: 200 of the largest messages fit.
/// More counts as a failure of the release, and the connection opens without them.
pub const OPENED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Maximum length of a handler's sentence: the detail of a problem, the error of a schedule, the reason of a
/// rejected event. A longer one is cut.
pub const REASON_BYTES_MAX: usize = 4 * 1024;
/// Maximum length of the code of a handler's problem. A longer one counts as a failure of the release.
pub const PROBLEM_CODE_BYTES_MAX: usize = 64;
/// Maximum size of a frame. A larger one closes its connection with 1009.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;
/// Maximum length of a frame's `type`. A longer one gets an error: no binding has such a name.
pub const FRAME_TYPE_BYTES_MAX: usize = 64;
/// Maximum length of a frame's `id`, text or digits. A longer one gets an error.
pub const FRAME_ID_CHARS_MAX: usize = 64;
/// Maximum nesting of a frame. A deeper one is malformed. JSON parsers of guests can handle this depth.
pub const JSON_DEPTH_MAX: usize = 64;
/// Maximum size of a release, which is uploaded whole. A larger one is 413.
pub const RELEASE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Maximum size of a registry's manifest and of its tokens. Larger ones are rejected.
pub const REGISTRY_MANIFEST_BYTES_MAX: usize = 256 * 1024;
/// Maximum number of redirects of a registry, which may keep its blobs elsewhere. More fail.
pub const REGISTRY_REDIRECTS_MAX: u32 = 4;
/// Maximum time to fetch a release from a registry. Then the command fails.
pub const REGISTRY_WAIT: Duration = Duration::from_secs(60);

// ---- the gateway ------------------------------------------------------------------------------------------

/// Connections that the kernel keeps waiting while all slots below are taken.
pub const BACKLOG: u32 = 4096;
/// Bytes of a connection that the kernel buffers before it sends them. By default it would buffer megabytes
/// for a peer that does not read, and only the other bytes count for [`QUEUE_BYTES_MAX`].
pub const UNSENT_BYTES_MAX: u32 = 64 * 1024;
/// TCP connections of clients that are not WebSockets (yet). At the bound, the node closes the oldest
/// connection that waits for its client. When there is none, further connections wait in the backlog.
pub const HTTP_CONNECTIONS_MAX: usize = 4096;
/// A connection that has waited for its client for less time is not closed for another, because its bytes may
/// be under way.
pub const DROPPED_AFTER_MIN: Duration = Duration::from_secs(2);
/// While no connection can be closed for a new one, the node looks again after this time.
pub const SLOTS_LOOKED_AT_EVERY: Duration = Duration::from_millis(100);
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
/// Maximum time for a TLS handshake. Then the connection is closed.
pub const TLS_HANDSHAKE_WAIT: Duration = Duration::from_secs(10);
/// Interval of the check for new certificate files, and so the delay until a new certificate is used.
pub const TLS_FILES_LOOKED_AT_EVERY: Duration = Duration::from_secs(1);
/// Maximum time for a request body. A later one is refused.
pub const BODY_WAIT: Duration = Duration::from_secs(30);
/// The wait that a client gets when the node is full; up to twice as long, so that clients do not return
/// together.
pub const CONNECTION_RETRY_MS: u32 = 2_000;
/// Maximum length of the user agent that handlers see. A longer one is cut.
pub const USER_AGENT_CHARS_MAX: usize = 256;
/// Maximum number of tickets of a user in a minute, on all nodes together; beyond it 429. Each is a key in
/// Redis for its lifetime.
pub const TICKETS_PER_MINUTE: i64 = 120;
/// Lifetime of a ticket in seconds.
pub const TICKET_SECONDS: u64 = 30;
/// Size of one read, and of a thread's buffer for it.
pub const READ_BYTES_MAX: usize = 32 * 1024;
/// Maximum number of bytes taken from a connection's queue at a time. Bytes that the socket does not accept
/// stay with the connection.
pub const WRITE_BYTES_MAX: usize = 64 * 1024;
/// Maximum number of the host's frames that a socket has not accepted. Beyond it the host reads nothing from
/// the client.
pub const UNWRITTEN_FRAMES_MAX: usize = 64;
/// Time after the close frame in which the peer can read it and close the connection.
pub const GOODBYE_WAIT: Duration = Duration::from_secs(2);

// ---- tokens -----------------------------------------------------------------------------------------------

/// Maximum length of a token. A longer one is refused without a check. 200 groups with names of 100
/// characters fit.
pub const TOKEN_BYTES_MAX: usize = 32 * 1024;
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
/// Bounds of RSA keys. Others are left out: smaller ones can be forged, larger ones are slow.
pub const RSA_MODULUS_BYTES_MIN: usize = 256;
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
/// Maximum number of single revoked tokens, which every node keeps in memory. One more is refused; all tokens
/// of its user can still be revoked.
pub const REVOKED_TOKENS_MAX: usize = 1_000_000;
/// Maximum number of users with revoked tokens, in addition. One more is refused.
pub const REVOKED_USERS_MAX: usize = 1_000_000;
/// Maximum time in the future for `before` of a revocation, which cannot be undone. It allows for different
/// clocks.
pub const REVOKED_AHEAD_MAX: Duration = Duration::from_secs(3600);
/// A revocation without the end of its token is forgotten after this time, so no token may be valid for
/// longer.
pub const REVOCATION_KEPT: Duration = Duration::from_secs(400 * 24 * 3600);
/// A revocation is kept this long after the end of its token, because clocks differ.
pub const REVOCATION_MARGIN: Duration = Duration::from_secs(3600);
/// Maximum number of revocations read in one query.
pub const REVOCATIONS_PAGE: i64 = 10_000;
/// Interval of deleting expired revocations.
pub const REVOCATIONS_CLEANED_EVERY: Duration = Duration::from_secs(600);

// ---- one connection ---------------------------------------------------------------------------------------

/// Interval of checking the queue of a socket that accepts no bytes: once the queue is full, `stall_ms`
/// counts.
pub const BLOCKED_LOOK: Duration = Duration::from_secs(5);
/// Maximum number of malformed frames in a minute. One more closes the connection with 4002.
pub const MALFORMED_FRAMES_MAX: usize = 10;
/// This many overflows of the frame rate within a minute close the connection with 4029.
pub const FLOODS_MAX: usize = 3;
/// The wait that a flooding client gets; frames that are refused meanwhile belong to the same overflow.
pub const FLOOD_PAUSE_MS: u64 = 1000;

// ---- handlers: maxima of manifests ------------------------------------------------------------------------

/// Maximum `deadline_ms` of a manifest, because a call delays the later frames of its connection that long.
pub const HANDLER_DEADLINE_MS_MAX: u64 = 60_000;
pub const HANDLER_CPU_MS_MAX: u64 = 10_000;
/// Maximum `memory_mib` of a manifest. The pool reserves this much address space in every slot.
pub const HANDLER_MEMORY_MIB_MAX: u32 = 64;
pub const HANDLER_HOST_CALLS_MAX: u32 = 10_000;
pub const HANDLER_HOST_BYTES_MAX: u64 = 64 * 1024 * 1024;
pub const HANDLER_CONCURRENCY_MAX: u32 = 1024;
/// Minimum interval of a schedule.
pub const SCHEDULE_EVERY_MS_MIN: u64 = 100;
/// Maximum number of one handler's runs that begin within [`SCHEDULE_EVERY_MS_MIN`] on one node; more begin
/// at the next ticks. Each costs a call, and a statement of the host that selects the node.
pub const SCHEDULE_STARTS_PER_TICK: usize = 4;
/// Maximum number of concurrent runs of one handler on one node; more wait until one has ended.
pub const SCHEDULE_RUNS_PER_HANDLER_MAX: usize = 8;
/// Maximum number of concurrent runs of all handlers on one node. Each handler has a share, and borrows while
/// the rest is free.
pub const SCHEDULE_RUNS_MAX: usize = 64;
/// Maximum number of schedules of one handler; a manifest with more is refused.
pub const SCHEDULES_PER_HANDLER_MAX: usize = 256;
/// Maximum number of events in one call, so that a batch fits into the memory of a guest.
pub const EVENT_BATCH_MAX: u32 = 256;
/// Maximum `pace_ms` of a consumer.
pub const EVENT_PACE_MS_MAX: u32 = 1_000;

// ---- releases ---------------------------------------------------------------------------------------------

/// Maximum number of handlers. A deploy that would add one more is refused.
pub const HANDLERS_MAX: usize = 256;
/// Maximum length of the lists of releases and of their history, the newest first.
pub const RELEASES_LISTED_MAX: i64 = 500;
/// A deploy does not wait for a node that has reported nothing for this long; the node follows when it is
/// back.
pub const NODE_SILENT_AFTER: Duration = Duration::from_secs(5);
/// Maximum number of loaded releases of one handler: the running one, its canary, its shadow, the one before,
/// and a new one. At the bound the least recently used is unloaded; a rollback to it must load it again.
pub const RELEASES_LOADED_PER_HANDLER: usize = 5;
/// A node with a heartbeat of this age and without its connection for notifications has died.
pub const NODE_GONE_AFTER: Duration = Duration::from_millis(1500);
/// Minimum number of digits of a digest in a command. Fewer could name two releases.
pub const DIGEST_PREFIX_MIN: usize = 6;
/// Maximum number of releases that deploys load at a time; further ones wait. Each may need a compile
/// ([`COMPILES_PER_NODE_MAX`]).
pub const DEPLOYS_PREPARED_AT_ONCE_MAX: usize = 2;
/// Maximum wait of a deploy for the live nodes; the outcome names those that have not reported.
pub const DEPLOY_WAITS: Duration = Duration::from_secs(10);
pub const DEPLOY_LOOKS_EVERY: Duration = Duration::from_millis(10);
/// Interval of checking for a switch, for nodes that miss the notification.
pub const FOLLOW_EVERY: Duration = Duration::from_millis(250);
/// Maximum time of a query about the fleet; a longer one counts as failed.
pub const FOLLOW_WAITS: Duration = Duration::from_secs(5);
pub const HINTS_AGAIN_AFTER: Duration = Duration::from_secs(1);
pub const HEARTBEAT_EVERY: Duration = Duration::from_secs(1);
/// Wait before a failed load is tried again; doubled each time, up to the maximum.
pub const LOAD_AGAIN_AFTER_MIN: Duration = Duration::from_secs(1);
pub const LOAD_AGAIN_AFTER_MAX: Duration = Duration::from_secs(60);
/// Maximum wait before a file of `handlers_dir` is tried again that was refused for its content.
pub const FILE_REFUSED_AGAIN_AFTER_MAX: Duration = Duration::from_secs(600);

/// Maximum `canary.failures` of a manifest: a canary that only fails is withdrawn by then.
pub const CANARY_FAILURES_MAX: u32 = 50;
/// Interval of comparing every canary with the running release; a failed call is checked at once.
pub const CANARY_LOOKS_EVERY: Duration = Duration::from_millis(250);
/// There are two windows: recent failures must not be lost among many good calls, and rare calls need time.
pub const CANARY_WINDOW_SHORT: Duration = Duration::from_secs(2);
pub const CANARY_WINDOW_LONG: Duration = Duration::from_secs(60);
/// If there are no more calls, this many are enough, if all of them fail.
pub const CANARY_FAILURES_MIN: u64 = 3;
/// A canary is withdrawn only if at least this many callers had failures, because one person can send input
/// that no release can answer.
pub const CANARY_CALLERS_MIN: usize = 3;
/// And only if it is also worse without the two callers with the most failures, and without one more for each
/// this many callers.
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
/// Maximum number of kept calls of a canary, and of the release beside it. At more than about 270 calls a
/// second the long window is shorter than a minute, for both.
pub const CANARY_CALLS_MAX: usize = 16_384;
/// Minimum time between two comparisons at failed calls: a comparison of full logs takes about a millisecond.
pub const CANARY_LOOKS_APART: Duration = Duration::from_millis(10);
/// A difference of latency below this does not count, whatever the percentage.
pub const CANARY_SLOWER_MIN: Duration = Duration::from_millis(5);
/// Maximum number of live calls that wait for a node's shadow worker; one more is left out and counted.
pub const SHADOWS_WAITING_MAX: usize = 1;
/// Maximum number of differences in a shadow's report, each cut at this many characters.
pub const SHADOW_EXAMPLES_MAX: usize = 8;
pub const SHADOW_EXAMPLE_CHARS_MAX: usize = 500;
/// Interval at which a node stores the results of its shadows.
pub const SHADOW_REPORT_EVERY: Duration = Duration::from_secs(1);

/// Maximum number of spans that wait to be sent; one more is dropped and counted.
pub const SPANS_WAITING_MAX: usize = 4096;
pub const SPANS_BATCH_MAX: usize = 1024;
/// Maximum number of wakes and publications of traced calls without a seen effect; beyond it the oldest are
/// forgotten.
pub const TRACES_PENDING_MAX: usize = 64;

// ---- operators --------------------------------------------------------------------------------------------

/// Maximum number of concurrent requests of operators, without health checks. One more is answered with 503.
pub const ADMIN_REQUESTS_MAX: usize = 64;
/// Maximum number of connections to the admin listener: those for [`ADMIN_REQUESTS_MAX`], and 16 that only
/// health checks can use. At the bound, the node closes the oldest connection that waits for its client.
pub const ADMIN_CONNECTIONS_MAX: usize = ADMIN_REQUESTS_MAX + 16;
/// Delay of the answer to the first wrong admin token of an address; for each further one twice as long, up
/// to the maximum.
pub const ADMIN_ATTEMPT_DELAY_MIN: Duration = Duration::from_millis(50);
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
pub const UPLOAD_WAITS: Duration = Duration::from_secs(60);
/// Maximum time of an operator's request, including a deploy of a large file.
pub const ADMIN_ANSWER_WAITS: Duration = Duration::from_secs(180);
/// Maximum number of concurrent deploys, because each holds a whole file. One more is asked to retry.
pub const DEPLOYS_AT_ONCE: usize = 4;
/// Maximum length of a note. A longer one is 422.
pub const NOTE_CHARS_MAX: usize = 1000;
/// Maximum length of the name of a token's owner. A longer one is 422.
pub const OPERATOR_NAME_CHARS_MAX: usize = 64;
/// Maximum length of the action in the audit; a path may be as long as a head.
pub const AUDIT_ACTION_CHARS_MAX: usize = 256;
/// Maximum number of entries in one list of the audit.
pub const AUDIT_LISTED_MAX: i64 = 200;
/// Retention of the audit in days. Older entries are deleted.
pub const AUDIT_DAYS: i32 = 731;
/// Number of new entries between two deletions.
pub const AUDIT_FORGETS_EVERY: i64 = 100;
/// Maximum number of signatures of one release in one file or header.
pub const SIGNATURES_MAX: usize = 16;
/// Maximum time of a check of `/readyz`. A longer one has failed.
pub const READY_WAITS: Duration = Duration::from_secs(1);
/// Minimum interval of the checks of `/readyz`. Meanwhile the node gives the last answers.
pub const READY_KEPT: Duration = Duration::from_millis(20);
/// A check that was ok and then failed counts as failed until it has not failed for this long, so that it
/// does not flap.
pub const READY_HOLDS: Duration = Duration::from_secs(2);
/// Wait after a failed accept: the process has no file descriptors left, so other connections must end first.
pub const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(50);

// ---- Postgres ---------------------------------------------------------------------------------------------

/// Maximum length of a statement. A longer one is `refused`.
pub const STATEMENT_BYTES_MAX: usize = 64 * 1024;
/// Maximum number of parameters, and of their bytes together. More are `refused`.
pub const PARAMETERS_MAX: usize = 256;
pub const PARAMETERS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Maximum size of an answer. A larger one is `too-large`, and its connection is closed. A cell counts its
/// bytes and [`CELL_BYTES`].
pub const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Memory of a cell in a guest, beside its text.
pub const CELL_BYTES: usize = 24;
/// Maximum size of one message of the server, so that a cell of a gigabyte is not held before it is counted.
/// It is above `ANSWER_BYTES_MAX`.
pub const POSTGRES_MESSAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Maximum number of prepared statements of a connection; at the bound the least recently used is closed.
pub const STATEMENTS_CACHED_MAX: usize = 128;
/// Maximum number of calls that wait for a connection, all roles together. One more is `busy`.
pub const POSTGRES_WAITING_MAX: usize = 4096;
/// Maximum number of calls of one role among them. One more is `busy`, so that no role takes the slots of the
/// others.
pub const POSTGRES_WAITING_PER_ROLE_MAX: usize = 1024;
/// Maximum time of a login. A longer one has failed.
pub const POSTGRES_CONNECT_WAIT: Duration = Duration::from_secs(5);
/// Time for a statement to end after a cancel request. Then its connection is closed.
pub const POSTGRES_CANCEL_GRACE: Duration = Duration::from_millis(100);
/// Maximum time of a readiness probe until its COMMIT. It is below `READY_WAITS`, so that the check can name
/// the reason.
pub const POSTGRES_PROBE_WAIT: Duration = Duration::from_millis(900);
/// Time for which the result of a probe is used again, so that several requests cost one COMMIT.
pub const POSTGRES_PROBE_FRESH: Duration = Duration::from_millis(400);
/// Pause after a probe without an answer, so that hanging backends do not add up.
pub const POSTGRES_PROBE_REST: Duration = Duration::from_secs(3);
/// Time for which one role is probed; then the next role logs in.
pub const POSTGRES_PROBE_TURN: Duration = Duration::from_secs(5);
/// Maximum size of the temporary files of a handler's session. A statement that needs more fails with 53400.
pub const POSTGRES_TEMP_FILES_MB_MAX: u32 = 64;
/// Maximum number of calls in one batch: a larger batch gains little, and finding a failing call costs more.
pub const COLLECT_BATCH_MAX: usize = 64;
/// Maximum number of calls that wait in one lane for the next batch. One more is `busy`.
pub const COLLECT_QUEUE_MAX: usize = 1024;
/// Maximum number of lanes with a batch or a queue, all handlers together. One more is `busy`.
pub const COLLECT_LANES_MAX: usize = 4096;
/// Maximum number of statements of one group commit.
pub const COLLECT_STATEMENTS_MAX: usize = 8;

// ---- fan-out ----------------------------------------------------------------------------------------------

/// Maximum number of unsent bytes of one connection. Beyond it, pushes that may be dropped are dropped, and
/// durable ones are not queued: the reader gets them later as pages of `connection.missed`. A full queue
/// means that the reader is slower than its rooms.
pub const QUEUE_BYTES_MAX: usize = 256 * 1024;
/// Maximum with replies and pushes that cannot be requested again. Beyond it the host closes with 4008, and
/// the client resumes.
pub const QUEUE_BYTES_HARD: usize = 2 * QUEUE_BYTES_MAX;
/// Above this size, a push with a merge key replaces the earlier one with the same key.
pub const QUEUE_MERGE_BYTES: usize = 16 * 1024;
/// Maximum size of one page of `connection.missed`. The host asks for a page only when the reader's queue has
/// room for it.
pub const PAGE_BYTES_MAX: usize = 64 * 1024;
/// Maximum number of pushes in a page. The host cuts off the others and asks for them again.
pub const PAGE_PUSHES_MAX: usize = 1_000;
/// Maximum number of subscriptions of one connection; more are refused with `full`.
pub const SUBSCRIPTIONS_MAX: usize = 2_000;
/// Maximum number of pushes that an address keeps while a subscriber is behind its gate, or while a gap is
/// being filled. Beyond it the oldest are forgotten, and the host asks for one more page.
pub const RING_PUSHES_MAX: usize = 256;
pub const RING_BYTES_MAX: usize = 128 * 1024;
/// Maximum number of pushes without a position that wait behind one gate; beyond it the oldest is dropped.
pub const GATE_UNPOSITIONED_MAX: usize = 64;
/// Number of repeated requests about a gap, before the stream continues with a jump that its readers can see.
pub const MISSED_ATTEMPTS_MAX: u32 = 6;
/// Wait before the first repeated request; doubled before each further one.
pub const MISSED_RETRY_AFTER: Duration = Duration::from_millis(100);
/// Maximum number of publications in one message between nodes, and of its bytes, unless it has a single
/// publication.
pub const ENVELOPE_PUSHES_MAX: usize = 256;
pub const ENVELOPE_BYTES_MAX: usize = 128 * 1024;
/// Maximum wait for the bus to confirm a subscription or publication. Then it is `unavailable`.
pub const BUS_CONFIRM_WAIT: Duration = Duration::from_secs(2);
/// Time for which an address stays subscribed after its last subscriber, so that a page reload costs Redis
/// nothing.
pub const BUS_IDLE_WAIT: Duration = Duration::from_secs(10);
/// How often a node publishes a loopback heartbeat to itself.
pub const LOOPBACK_HEARTBEAT_EVERY: Duration = Duration::from_millis(500);
/// When no loopback heartbeat has arrived for this time, the node marks its bus as down and reconnects.
pub const LOOPBACK_TIMEOUT: Duration = Duration::from_secs(2);

// ---- the sandbox ------------------------------------------------------------------------------------------

/// Maximum number of concurrent calls inside guests on one node, and so the slots of the instance pool. A
/// quarter is divided among the loaded releases and always available to each of them. The rest is lent, and
/// every borrower leaves a part of it to others. A call that gets no slot is answered 503, as at a handler's
/// own `concurrency`, which is at most half of this.
pub const CALLS_MAX: u32 = 2048;
/// Memory of a call that does not count against the node's `guest_memory_mib`, because the pool keeps it for
/// its slot anyway.
pub const MEMORY_FREE_BYTES: usize = 512 * 1024;
/// Unit of further memory, the size of a WebAssembly page. A quarter of `guest_memory_mib` is divided among
/// the loaded releases, the rest is lent. A guest that gets no more is out of memory: 503.
pub const MEMORY_UNIT_BYTES: usize = 64 * 1024;
/// Minimum `guest_memory_mib`. With less, the largest call would fit only on an idle node.
pub const GUEST_MEMORY_MIB_MIN: u32 = 128;
/// A call that has been inside its guest for longer goes on only with one of the node's turns (one for each
/// processor but one, at least one). Waiting for a turn counts against the call's deadline, not against its
/// `cpu_ms`. Calls take some 100 µs; a shorter time would make batches of events wait, a longer one gives
/// every call of a flood more of it.
pub const LONG_CPU_AFTER: Duration = Duration::from_millis(2);
/// A turn passes to the next release after this time, if one waits.
pub const LONG_CPU_TURN: Duration = Duration::from_millis(4);
/// Maxima of one instance. A release that needs more is refused when it is loaded.
pub const MEMORIES_PER_INSTANCE_MAX: u32 = 2;
pub const TABLES_PER_INSTANCE_MAX: u32 = 8;
/// A component of componentize-py has 38.
pub const CORE_INSTANCES_PER_INSTANCE_MAX: u32 = 64;
/// Maximum number of a table's elements. A larger table fails to grow.
pub const TABLE_ELEMENTS_MAX: usize = 20_000;
/// A secret setting of at least this many bytes is concealed wherever its value appears in a recording or a
/// log line. A shorter one is concealed only in the answer of `config.get`, because `5` or `true` would match
/// everywhere.
pub const SECRET_BYTES_MIN: usize = 8;
/// Maximum number of `public_settings` in a manifest; a manifest with more is refused.
pub const PUBLIC_SETTINGS_MAX: usize = 64;
/// Maximum number of log lines of one call; the rest is dropped and counted.
pub const LOG_LINES_MAX: u32 = 64;
/// Maximum size of one log line with its fields; the rest of the line is cut off.
pub const LOG_LINE_BYTES_MAX: usize = 4 * 1024;
/// Maximum number of random bytes of one host call; more traps.
pub const RANDOM_BYTES_MAX: u32 = 1024;
/// Number of last host calls in the log line of a failed call.
pub const LAST_HOST_CALLS: usize = 32;
/// Maximum size of arguments and answers in one recording; later host calls are left out, and the recording
/// states their number.
pub const TRACE_BYTES_MAX: u64 = 64 * 1024;
/// Maximum number of recordings that one process writes into `trace_dir`; then it stops, so that a forgotten
/// setting does not fill a disk.
pub const TRACES_MAX: u32 = 10_000;
/// Maximum wall and CPU time of the child process that compiles a release; then it is killed and the release
/// refused.
pub const COMPILE_SECONDS_MAX: u64 = 60;
/// Maximum address space of that child process.
pub const COMPILE_MEMORY_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// Maximum number of concurrent compiles on one node; others wait.
pub const COMPILES_PER_NODE_MAX: usize = 1;
/// Maximum size of a compiled release. A larger one is refused.
pub const ARTIFACT_BYTES_MAX: u64 = 256 * 1024 * 1024;

// ---- Redis ------------------------------------------------------------------------------------------------

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
/// Maximum number of loop rounds, function calls and commands of one run of a script. One more ends the
/// script with an error; its writes stay. Without a bound, an endless loop would stop Redis for all clients.
pub const REDIS_SCRIPT_STEPS_MAX: u64 = 2_000_000;
/// Maximum processor time of one run of a script, checked every 256 steps. Beyond it the script ends with an
/// error.
pub const REDIS_SCRIPT_MS_MAX: u64 = 1_000;
/// Maximum number of commands of one run of a script. One more ends it with an error. A sweep of presence
/// needs about 5,000.
pub const REDIS_SCRIPT_COMMANDS_MAX: u64 = 100_000;
/// Maximum number of bytes in the commands of one run of a script, and of those that an offset adds. More
/// ends it with an error.
pub const REDIS_SCRIPT_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Maximum wait for the answer to `SCRIPT KILL`: Redis reads it only after its own `busy-reply-threshold` (5
/// s by default). Then the node sends it again, as long as the script runs.
pub const REDIS_SCRIPT_KILL_WAIT: Duration = Duration::from_secs(10);
/// Maximum number of key patterns in one request of an operator. More are refused.
pub const FORGET_PATTERNS_MAX: usize = 32;
/// Maximum number of commands in flight on one connection. One more waits, within its deadline.
pub const REDIS_QUEUE_MAX: usize = 1024;
/// Maximum wait for an answer. A later one is `deadline`, even if the call has more time left.
pub const REDIS_ANSWER_WAIT: Duration = Duration::from_secs(1);
/// Maximum wait between two attempts to connect.
pub const REDIS_BACKOFF_MAX: Duration = Duration::from_secs(1);
/// Maximum time of an attempt to connect, and maximum silence of a connection. Then it has failed.
pub const REDIS_SILENCE_MAX: Duration = Duration::from_secs(3);
/// Maximum number of received messages that are not handled yet. At the bound the node reads nothing more,
/// Redis's buffer fills, and Redis ends the connection, which is handled like any loss of the bus.
pub const REDIS_HEARD_MAX: usize = 1024;
/// Maximum size of a message. A longer one ends its connection.
pub const REDIS_MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
// ---- triggers ---------------------------------------------------------------------------------------------

/// Maximum number of concurrent `open` calls. Further connections wait for their turn in order, and the node
/// does not read them meanwhile. When many clients reconnect after a node ended, their connection handlers
/// must run, because nothing else does their work.
pub const OPENINGS_AT_ONCE_MAX: usize = 64;
/// Maximum wait for the turn. Then the connection opens without its connection handlers, so that a hanging
/// handler does not block all later connections.
pub const OPENING_WAIT: Duration = Duration::from_secs(15);
/// Maximum number of concurrent `closed` calls; further ones wait for their turn.
pub const CLOSINGS_AT_ONCE_MAX: usize = 32;
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
/// How often handlers get a report of touched connections.
pub const TOUCH_REPORT_EVERY: Duration = Duration::from_secs(1);
/// Maximum number of touched connections in one call; more make more calls.
pub const TOUCHES_MAX: usize = 1000;
/// Maximum number of concurrent requests about gaps; further ones wait in the hub's mailbox.
pub const GAPS_AT_ONCE_MAX: usize = 32;
/// Maximum number of holes of a cursor. It stops before more: that many transactions are open.
pub const OUTBOX_HOLES_MAX: usize = 1000;
/// Maximum number of events of a shard that wait for a retry. Then the shard stops: the consumer is broken,
/// not the events.
pub const RETRIES_MAX: i64 = 10_000;
/// Maximum number of parked events in one list, the newest first.
pub const PARKED_LISTED_MAX: i64 = 200;
/// Number of shards of the outbox. A database keeps the number with which it was made.
pub const OUTBOX_SHARDS: u32 = 8;
/// Number of shards that wake bits can name. It exceeds [`OUTBOX_SHARDS`]; larger numbers are ignored.
pub const WAKE_SHARDS_MAX: u32 = 64;
const _: () = assert!(OUTBOX_SHARDS <= WAKE_SHARDS_MAX);
/// Maximum number of shards in one `wake.outbox`. A call with more ends with a trap.
pub const WAKE_HINT_SHARDS_MAX: usize = 1024;
/// Interval of checking the outbox without a wake, and so the maximum delay if a wake is lost.
pub const OUTBOX_TICK: Duration = Duration::from_millis(100);
/// Interval of checking for a new position epoch (a failover, a restore), beside the node's writes.
pub const EPOCH_CHECK_EVERY: Duration = Duration::from_millis(500);
/// Maximum time of a consumer's read. Then it uses another connection.
pub const OUTBOX_READ_WAIT: Duration = Duration::from_secs(5);
/// Lease of a cursor. After this time another node takes over the shard of a dead one.
pub const CURSOR_LEASE: Duration = Duration::from_secs(3);
/// A consumer on this node whose cursor does not move for this long plus the deadline of its handler,
/// although there are events, makes this node not ready.
pub const CONSUMER_STANDS_AFTER: Duration = Duration::from_secs(10);
/// Interval of saving a cursor. After a crash, the events handled since the last save come again.
pub const CURSOR_SAVE_EVERY: Duration = Duration::from_millis(250);
/// Wait before an event's second delivery; doubled before each further one, up to the maximum.
pub const EVENT_RETRY_AFTER: Duration = Duration::from_millis(250);
pub const EVENT_RETRY_AFTER_MAX: Duration = Duration::from_secs(300);
