/** What was asked on one connection and has no answer yet. Each is answered exactly once: a reply, an error, or its time is up. */
import { SwitchboardError } from './error.js';
/** More unanswered frames on one connection are no conversation any more. */
const CALLS_MAX = 256;
/** An answer that takes longer will not come on this connection. */
const ANSWER_WITHIN_MS = 10_000;
export class Calls {
    #last = 0;
    #waiting = new Map();
    /** @returns the `id` for the frame, or `undefined` when too many wait; `done` has heard so then. */
    open(done) {
        if (this.#waiting.size >= CALLS_MAX) {
            done(new SwitchboardError('full', `${CALLS_MAX} frames wait for their answers`, { retryable: true }), undefined);
            return undefined;
        }
        const id = ++this.#last;
        const late = () => this.#settle(id, new SwitchboardError('timeout', 'no answer in time', { retryable: true }));
        this.#waiting.set(id, { done, timer: setTimeout(late, ANSWER_WITHIN_MS) });
        return id;
    }
    /** A frame with an `id`. */
    answer(frame) {
        const error = frame.type === 'error' ? SwitchboardError.of(frame.payload) : undefined;
        this.#settle(frame.id, error, frame.payload);
    }
    /** One of them can not be answered. */
    fail(id, error) {
        this.#settle(id, error);
    }
    /** The connection ended. */
    lost(why) {
        const error = new SwitchboardError('lost', why, { retryable: true });
        for (const id of [...this.#waiting.keys()])
            this.#settle(id, error);
    }
    #settle(id, error, payload) {
        const call = this.#waiting.get(id);
        if (!call)
            return;
        this.#waiting.delete(id);
        clearTimeout(call.timer);
        call.done(error, payload);
    }
}
