/**
 * The position of a client in one conversation, and the handling of each message. No socket and no clock: the
 * rules of `docs/client.md` as code, like `tests/harness/reference/stream.rs`.
 */
/** Maximum number of messages held above a gap. Messages beyond it are dropped and requested again. */
const HELD_MAX = 1_000;
export class Stream {
    /** The last seq that was shown. */
    #seq;
    #change;
    /** The position epoch of the position. */
    #epoch;
    /** Messages held above a gap, by seq. */
    #held = new Map();
    /** A page of history was requested and has not arrived. */
    #asking = false;
    #show;
    /** Begins at `position`; later messages are shown once each, in order. */
    constructor(position, show) {
        this.#seq = position.seq;
        this.#change = position.change;
        this.#epoch = position.epoch;
        this.#show = show;
    }
    get position() {
        const position = { seq: this.#seq, change: this.#change };
        return this.#epoch === undefined ? position : { ...position, epoch: this.#epoch };
    }
    get epoch() {
        return this.#epoch;
    }
    /** Sets the position epoch of all later positions. */
    epochIs(epoch) {
        this.#epoch = epoch ?? this.#epoch;
    }
    /**
     * Handles a reset: messages above this point are not stored, and the next one is another message with the
     * same seq.
     * @returns whether a message above it was shown.
     */
    reset({ seq, change }) {
        const shown = this.#seq > seq || this.#change > change;
        this.#seq = Math.min(this.#seq, seq);
        this.#change = Math.min(this.#change, change);
        // Held and requested messages belong to the old history. The caller drops the answer.
        this.cut();
        return shown;
    }
    /** Handles a pushed message. */
    message(message) {
        if (message.seq > this.#seq && this.#held.size < HELD_MAX) {
            this.#held.set(message.seq, message);
        }
        this.#advance();
        return this.#held.size > 0 ? this.#ask() : undefined;
    }
    /** Handles a page of history, the answer to a {@link Need}. */
    page(messages, hasMore) {
        this.#asking = false;
        for (const message of messages) {
            if (message.seq > this.#seq) {
                this.#held.set(message.seq, message);
            }
        }
        this.#advance();
        return hasMore || this.#held.size > 0 ? this.#ask() : undefined;
    }
    /** The page failed; it may be requested again. */
    failed() {
        this.#asking = false;
        return this.#ask();
    }
    /** Handles a `resync`: the host does not send the missing messages. */
    resync() {
        return this.#ask();
    }
    /** Handles an edit or a deletion of the message with this seq. */
    changed(change, seq) {
        this.#change = Math.max(this.#change, change);
        // The held version is old: the page that fills the gap brings the present one.
        this.#held.delete(seq);
    }
    /**
     * The connection ended, with its requests. Held messages come again, because the position is before them.
     */
    cut() {
        this.#asking = false;
        this.#held.clear();
    }
    #advance() {
        for (let next; (next = this.#held.get(this.#seq + 1));) {
            this.#held.delete(next.seq);
            this.#seq = next.seq;
            this.#show(next);
        }
        // Held messages that a page brought meanwhile.
        for (const seq of this.#held.keys()) {
            if (seq <= this.#seq)
                this.#held.delete(seq);
        }
    }
    #ask() {
        if (this.#asking)
            return undefined;
        this.#asking = true;
        return this.#seq;
    }
}
