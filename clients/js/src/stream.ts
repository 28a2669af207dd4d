/**
 * The position of a client in one conversation, and the handling of each message. No socket and no clock: the
 * rules of `docs/client.md` as code, like `tests/harness/reference/stream.rs`.
 */

import type { Message, Position, Reset } from './wire.js';

/** Maximum number of messages held above a gap. Messages beyond it are dropped and requested again. */
const HELD_MAX = 1_000;

/** The `after_seq` of the next `history`; `undefined` if none is needed. */
export type Need = number | undefined;

export class Stream {
  /** The last seq that was shown. */
  #seq: number;
  #change: number;
  /** The position epoch of the position. */
  #epoch: string | undefined;
  /** Messages held above a gap, by seq. */
  readonly #held = new Map<number, Message>();
  /** A page of history was requested and has not arrived. */
  #asking = false;
  readonly #show: (message: Message) => void;

  /** Begins at `position`; later messages are shown once each, in order. */
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

  /** Sets the position epoch of all later positions. */
  epochIs(epoch: string | undefined): void {
    this.#epoch = epoch ?? this.#epoch;
  }

  /**
   * Handles a reset: messages above this point are not stored, and the next one is another message with the
   * same seq.
   * @returns whether a message above it was shown.
   */
  reset({ seq, change }: Reset): boolean {
    const shown = this.#seq > seq || this.#change > change;
    this.#seq = Math.min(this.#seq, seq);
    this.#change = Math.min(this.#change, change);
    // Held and requested messages belong to the old history. The caller drops the answer.
    this.cut();
    return shown;
  }

  /** Handles a pushed message. */
  message(message: Message): Need {
    if (message.seq > this.#seq && this.#held.size < HELD_MAX) {
      this.#held.set(message.seq, message);
    }
    this.#advance();
    return this.#held.size > 0 ? this.#ask() : undefined;
  }

  /** Handles a page of history, the answer to a {@link Need}. */
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

  /** The page failed; it may be requested again. */
  failed(): Need {
    this.#asking = false;
    return this.#ask();
  }

  /** Handles a `resync`: the host does not send the missing messages. */
  resync(): Need {
    return this.#ask();
  }

  /** Handles an edit or a deletion of the message with this seq. */
  changed(change: number, seq: number): void {
    this.#change = Math.max(this.#change, change);
    // The held version is old: the page that fills the gap brings the present one.
    this.#held.delete(seq);
  }

  /**
   * The connection ended, with its requests. Held messages come again, because the position is before them.
   */
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
    // Held messages that a page brought meanwhile.
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
