/**
 * Where a client stands in one conversation, and what it does with each message that comes. No socket, no clock: the rules
 * of `docs/client.md` as code, like `tests/harness/reference/stream.rs`.
 */

import type { Message, Position, Reset } from './wire.js';

/** Held back while something before it is missing. What comes beyond it is asked for again instead. */
const HELD_MAX = 1_000;

/** After which seq `history` is to be asked; `undefined` where there is nothing to ask. */
export type Need = number | undefined;

export class Stream {
  /** Everything up to here was shown. */
  #seq: number;
  #change: number;
  /** Which history that is of. */
  #epoch: string | undefined;
  /** Above a gap, by seq. */
  readonly #held = new Map<number, Message>();
  /** A page of history was asked for and has not come. */
  #asking = false;
  readonly #show: (message: Message) => void;

  /** Begins behind `position`; what comes after it is shown once each, in order. */
  constructor(position: Position, show: (message: Message) => void) {
    this.#seq = position.seq;
    this.#change = position.change;
    this.#epoch = position.epoch;
    this.#show = show;
  }

  get position(): Position {
    const position = { seq: this.#seq, change: this.#change };
    return this.#epoch === undefined ? position : { ...position, epoch: this.#epoch };
  }

  get epoch(): string | undefined {
    return this.#epoch;
  }

  /** The host said which history positions are of from now on. */
  epochIs(epoch: string | undefined): void {
    this.#epoch = epoch ?? this.#epoch;
  }

  /**
   * History went back: what lies above this point is not stored, and what comes next is another message with the same seq.
   * @returns whether anything that was shown lies above it.
   */
  reset({ seq, change }: Reset): boolean {
    const shown = this.#seq > seq || this.#change > change;
    this.#seq = Math.min(this.#seq, seq);
    this.#change = Math.min(this.#change, change);
    // Held, and asked for, in the history that is no more. The caller drops the answer.
    this.cut();
    return shown;
  }

  /** A message that was pushed. */
  message(message: Message): Need {
    if (message.seq > this.#seq && this.#held.size < HELD_MAX) {
      this.#held.set(message.seq, message);
    }
    this.#advance();
    return this.#held.size > 0 ? this.#ask() : undefined;
  }

  /** A page of history, in answer to a {@link Need}. */
  page(messages: Message[], hasMore: boolean): Need {
    this.#asking = false;
    for (const message of messages) {
      if (message.seq > this.#seq) {
        this.#held.set(message.seq, message);
      }
    }
    this.#advance();
    return hasMore || this.#held.size > 0 ? this.#ask() : undefined;
  }

  /** The page will not come; it may be asked for again. */
  failed(): Need {
    this.#asking = false;
    return this.#ask();
  }

  /** The host does not know what we lack. */
  resync(): Need {
    return this.#ask();
  }

  /** An edit or a deletion of the message with this seq. */
  changed(change: number, seq: number): void {
    this.#change = Math.max(this.#change, change);
    // As it was held, it is no more: the page that fills the gap brings it as it is.
    this.#held.delete(seq);
  }

  /** The connection is gone, and with it what was asked on it. What was held comes again: the position lies before it. */
  cut(): void {
    this.#asking = false;
    this.#held.clear();
  }

  #advance(): void {
    for (let next; (next = this.#held.get(this.#seq + 1)); ) {
      this.#held.delete(next.seq);
      this.#seq = next.seq;
      this.#show(next);
    }
    // What a page brought in the meantime.
    for (const seq of this.#held.keys()) {
      if (seq <= this.#seq) this.#held.delete(seq);
    }
  }

  #ask(): Need {
    if (this.#asking) return undefined;
    this.#asking = true;
    return this.#seq;
  }
}
