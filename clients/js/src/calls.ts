/**
 * The calls of one connection without an answer. Each ends exactly once: by a reply, an error, or a timeout.
 */

import { SwitchboardError } from './error.js';
import type { Frame } from './wire.js';

/** Maximum number of unanswered calls on one connection. One more fails with `full`. */
const CALLS_MAX = 256;
/** A call without an answer after this time fails with `timeout`. */
const ANSWER_WITHIN_MS = 10_000;

/** Called when the frame comes, before the next frame is handled, because the caller depends on the order. */
export type Done = (error: SwitchboardError | undefined, payload: any) => void;

export class Calls {
  #last = 0;
  readonly #waiting = new Map<number, { done: Done; timer: ReturnType<typeof setTimeout> }>();

  /** @returns the `id` for the frame, or `undefined` if too many calls wait; `done` then got the error. */
  open(done: Done): number | undefined {
    if (this.#waiting.size >= CALLS_MAX) {
      done(new SwitchboardError('full', `${CALLS_MAX} frames wait for their answers`, { retryable: true }), undefined);
      return undefined;
    }
    const id = ++this.#last;
    const late = () => this.#settle(id, new SwitchboardError('timeout', 'no answer in time', { retryable: true }));
    this.#waiting.set(id, { done, timer: setTimeout(late, ANSWER_WITHIN_MS) });
    return id;
  }

  /** Handles a frame with an `id`. */
  answer(frame: Frame): void {
    const error = frame.type === 'error' ? SwitchboardError.of(frame.payload) : undefined;
    this.#settle(frame.id as number, error, frame.payload);
  }

  /** Ends one call with an error. */
  fail(id: number, error: SwitchboardError): void {
    this.#settle(id, error);
  }

  /** Ends all calls, because the connection ended. */
  lost(why: string): void {
    const error = new SwitchboardError('lost', why, { retryable: true });
    for (const id of [...this.#waiting.keys()]) this.#settle(id, error);
  }

  #settle(id: number, error: SwitchboardError | undefined, payload?: any): void {
    const call = this.#waiting.get(id);
    if (!call) return;
    this.#waiting.delete(id);
    clearTimeout(call.timer);
    call.done(error, payload);
  }
}
