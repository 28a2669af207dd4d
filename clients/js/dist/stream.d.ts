/**
 * Where a client stands in one conversation, and what it does with each message that comes. No socket, no clock: the rules
 * of `docs/client.md` as code, like `tests/harness/reference/stream.rs`.
 */
import type { Message, Position, Reset } from './wire.js';
/** After which seq `history` is to be asked; `undefined` where there is nothing to ask. */
export type Need = number | undefined;
export declare class Stream {
    #private;
    /** Begins behind `position`; what comes after it is shown once each, in order. */
    constructor(position: Position, show: (message: Message) => void);
    get position(): Position;
    get epoch(): string | undefined;
    /** The host said which history positions are of from now on. */
    epochIs(epoch: string | undefined): void;
    /**
     * History went back: what lies above this point is not stored, and what comes next is another message with the same seq.
     * @returns whether anything that was shown lies above it.
     */
    reset({ seq, change }: Reset): boolean;
    /** A message that was pushed. */
    message(message: Message): Need;
    /** A page of history, in answer to a {@link Need}. */
    page(messages: Message[], hasMore: boolean): Need;
    /** The page will not come; it may be asked for again. */
    failed(): Need;
    /** The host does not know what we lack. */
    resync(): Need;
    /** An edit or a deletion of the message with this seq. */
    changed(change: number, seq: number): void;
    /** The connection is gone, and with it what was asked on it. What was held comes again: the position lies before it. */
    cut(): void;
}
