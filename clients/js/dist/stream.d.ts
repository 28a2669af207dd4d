/**
 * The position of a client in one conversation, and the handling of each message. No socket and no clock: the
 * rules of `docs/client.md` as code, like `tests/harness/reference/stream.rs`.
 */
import type { Message, Position, Reset } from './wire.js';
/** The `after_seq` of the next `history`; `undefined` if none is needed. */
export type Need = number | undefined;
export declare class Stream {
    #private;
    /** Begins at `position`; later messages are shown once each, in order. */
    constructor(position: Position, show: (message: Message) => void);
    get position(): Position;
    get epoch(): string | undefined;
    /** Sets the position epoch of all later positions. */
    epochIs(epoch: string | undefined): void;
    /**
     * Handles a reset: messages above this point are not stored, and the next one is another message with the
     * same seq.
     * @returns whether a message above it was shown.
     */
    reset({ seq, change }: Reset): boolean;
    /** Handles a pushed message. */
    message(message: Message): Need;
    /** Handles a page of history, the answer to a {@link Need}. */
    page(messages: Message[], hasMore: boolean): Need;
    /** The page failed; it may be requested again. */
    failed(): Need;
    /** Handles a `resync`: the host does not send the missing messages. */
    resync(): Need;
    /** Handles an edit or a deletion of the message with this seq. */
    changed(change: number, seq: number): void;
    /**
     * The connection ended, with its requests. Held messages come again, because the position is before them.
     */
    cut(): void;
}
