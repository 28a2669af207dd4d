/** What goes over the wire, as `docs/protocol.md` has it. Fields may be added; whoever reads passes over what they do not know. */
/** A frame beyond it ends the connection with 1009, so it is never written. */
export const FRAME_BYTES_MAX = 64 * 1024;
/** Conversations that one `subscribe` may name. */
export const SUBSCRIBE_MAX = 200;
/** Of those, with `join`. */
export const JOINS_MAX = 20;
/** A page of `history`. */
export const PAGE_MAX = 100;
