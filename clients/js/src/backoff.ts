/**
 * Full jitter: each wait is a random time between zero and a bound that doubles, so that clients that were
 * cut off together do not reconnect together.
 */

const WAIT_MIN_MS = 250;
const WAIT_MAX_MS = 30_000;

export class Backoff {
  #attempt = 0;

  /** The next wait, in milliseconds. */
  next(): number {
    const bound = Math.min(WAIT_MIN_MS * 2 ** this.#attempt, WAIT_MAX_MS);
    this.#attempt = Math.min(this.#attempt + 1, 16);
    return Math.random() * bound;
  }

  /** The connection works again: the bound starts anew. */
  reset(): void {
    this.#attempt = 0;
  }
}
