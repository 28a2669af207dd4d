/**
 * Full jitter: each wait lies anywhere between nothing and a bound that doubles, so that those who were cut off together
 * do not come together.
 */

const WAIT_MIN_MS = 250;
const WAIT_MAX_MS = 30_000;

export class Backoff {
  #attempt = 0;

  /** How long to wait now. */
  next(): number {
    const bound = Math.min(WAIT_MIN_MS * 2 ** this.#attempt, WAIT_MAX_MS);
    this.#attempt = Math.min(this.#attempt + 1, 16);
    return Math.random() * bound;
  }

  /** It works again: the bound is small once more. */
  reset(): void {
    this.#attempt = 0;
  }
}
