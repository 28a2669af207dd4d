/** Types of the wire, as in `docs/protocol.md`. Hosts may add fields; clients ignore unknown ones. */
/** A larger frame would end the connection with 1009, so the client never writes one. */
export const FRAME_BYTES_MAX = 64 * 1024;
/** Maximum number of conversations in one `subscribe`. */
export const SUBSCRIBE_MAX = 200;
/** Maximum number with `join`. */
export const JOINS_MAX = 20;
/** Maximum number of messages in a page of `history`. */
export const PAGE_MAX = 100;
