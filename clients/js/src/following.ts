/**
 * The conversations that a client follows. It subscribes to them on every connection from their positions,
 * and asks `history` for missing messages.
 */

import { Backoff } from './backoff.js';
import type { Connection } from './connection.js';
import { SwitchboardError } from './error.js';
import { Stream, type Need } from './stream.js';
import { JOINS_MAX, PAGE_MAX, SUBSCRIBE_MAX, type Deleted, type Edited, type Frame, type Message, type Page, type Position, type Reset, type Subscribed } from './wire.js';

export interface Heard {
  /** Called once for each message, in order. */
  message(message: Message): void;
  changed(change: Edited | Deleted): void;
  /** Shown messages above this point are not stored; the messages that are stored instead follow. */
  reset(conversation: string, reset: Reset): void;
  /** Called for a message of a conversation that is not followed. */
  elsewhere(conversation: string, message: Message): void;
  refused(conversation: string, code: string): void;
  /** Called when the subscriptions are there, or none is wanted. */
  settled(): void;
}

interface Followed {
  /** Absent until the host has sent the present position. */
  stream: Stream | undefined;
  /** Raised by every reset: a page that was requested before belongs to the old history. */
  era: number;
  join: boolean;
  waiting: { resolve: (position: Position) => void; reject: (error: SwitchboardError) => void }[];
}

export class Following {
  readonly #heard: Heard;
  readonly #followed = new Map<string, Followed>();
  readonly #topics = new Set<string>();
  /** The conversations of the next `subscribe`, collected so that many calls make few frames. */
  readonly #due = new Set<string>();
  #gathering = false;
  #connection: Connection | undefined;
  readonly #backoff = new Backoff();

  constructor(heard: Heard) {
    this.#heard = heard;
  }

  follow(id: string, from: Position | undefined, join: boolean): Promise<Position> {
    const known = this.#followed.get(id);
    if (known?.stream) return Promise.resolve(known.stream.position);
    const followed: Followed = known ?? { stream: from && this.#stream(id, from), era: 0, join, waiting: [] };
    this.#followed.set(id, followed);
    this.#due.add(id);
    this.#gather();
    return new Promise((resolve, reject) => followed.waiting.push({ resolve, reject }));
  }

  unfollow(id: string): void {
    if (!this.#forget(id, new SwitchboardError('stopped', 'it is not followed any more'))) return;
    this.#connection?.ask('unsubscribe', { conversation_ids: [id] }, () => {});
  }

  topics(names: string[]): void {
    const gone = [...this.#topics].filter((name) => !names.includes(name));
    this.#topics.clear();
    for (const name of names) this.#topics.add(name);
    if (gone.length > 0) this.#connection?.ask('unsubscribe', { conversation_ids: [], topics: gone }, () => {});
    this.#gather();
  }

  position(id: string): Position | undefined {
    return this.#followed.get(id)?.stream?.position;
  }

  opened(connection: Connection): void {
    this.#connection = connection;
    for (const id of this.#followed.keys()) this.#due.add(id);
    this.#subscribe();
  }

  lost(): void {
    this.#connection = undefined;
    for (const { stream } of this.#followed.values()) stream?.cut();
  }

  stopped(error: SwitchboardError): void {
    for (const followed of this.#followed.values()) {
      for (const { reject } of followed.waiting.splice(0)) reject(error);
    }
  }

  /** @returns whether the frame concerned the order of messages. */
  pushed({ type, payload }: Frame): boolean {
    switch (type) {
      case 'message.new': {
        const stream = this.#followed.get(payload.conversation_id)?.stream;
        if (!stream) this.#heard.elsewhere(payload.conversation_id, payload.message);
        else this.#ask(payload.conversation_id, stream.message(payload.message));
        return true;
      }
      case 'message.edited':
      case 'message.deleted': {
        const seq = payload.seq ?? payload.message.seq;
        this.#followed.get(payload.conversation_id)?.stream?.changed(payload.change, seq);
        this.#heard.changed({ type, ...payload });
        return true;
      }
      case 'resync':
        for (const id of payload.conversation_ids as string[]) {
          const reset = payload.reset?.[id];
          if (reset) {
            // It may come twice. The messages that are stored instead follow by themselves.
            if (this.#followed.get(id)?.stream?.epoch !== payload.epoch) this.#reset(id, payload.epoch, reset);
          } else {
            this.#ask(id, this.#followed.get(id)?.stream?.resync());
          }
        }
        return false;
      default:
        return false;
    }
  }

  #stream(id: string, position: Position): Stream {
    // If a listener unfollows while messages are shown, the rest is not shown.
    return new Stream(position, (message) => this.#followed.has(id) && this.#heard.message(message));
  }

  #gather(): void {
    if (this.#gathering || !this.#connection) return;
    this.#gathering = true;
    queueMicrotask(() => {
      this.#gathering = false;
      this.#subscribe();
    });
  }

  #subscribe(): void {
    if (!this.#connection) return;
    const due = [...this.#due].filter((id) => this.#followed.has(id));
    this.#due.clear();
    const joins = due.filter((id) => this.#followed.get(id)!.join);
    const others = due.filter((id) => !this.#followed.get(id)!.join);
    const topics = [...this.#topics];
    if (topics.length > 0) this.#chunk([], topics);
    for (const ids of chunked(joins, JOINS_MAX)) this.#chunk(ids, []);
    for (const ids of chunked(others, SUBSCRIBE_MAX)) this.#chunk(ids, []);
    if (due.length === 0 && topics.length === 0) this.#heard.settled();
  }

  #chunk(ids: string[], topics: string[]): void {
    const connection = this.#connection;
    if (!connection) return;
    const positions: Record<string, Position> = {};
    for (const id of ids) {
      const position = this.position(id);
      if (position) positions[id] = position;
    }
    const join = ids.some((id) => this.#followed.get(id)?.join);
    const payload = { conversation_ids: ids, positions, topics, ...(join && { join }) };
    connection.ask('subscribe', payload, (error, subscribed: Subscribed) => {
      if (connection !== this.#connection) return;
      if (!error) {
        this.#backoff.reset();
        this.#subscribed(subscribed);
        this.#heard.settled();
      } else if (error.retryable) {
        this.#later(error, () => this.#chunk(ids.filter((id) => this.#followed.has(id)), topics));
      } else if (ids.length > 1) {
        // One conversation makes the whole frame fail: subscribe to each alone.
        for (const id of ids) this.#chunk([id], []);
      } else {
        for (const id of ids) this.#refuse(id, error);
      }
    });
  }

  #subscribed({ heads, changes, epoch, reset, refused }: Subscribed): void {
    for (const [id, point] of Object.entries(reset ?? {})) this.#reset(id, epoch, point);
    for (const [id, seq] of Object.entries(heads)) {
      const followed = this.#followed.get(id);
      if (!followed) continue;
      followed.join = false;
      const stream = (followed.stream ??= this.#stream(id, { seq, change: changes[id] ?? 0 }));
      stream.epochIs(epoch);
      for (const { resolve } of followed.waiting.splice(0)) resolve(stream.position);
    }
    for (const { id, code } of refused) this.#refuse(id, new SwitchboardError(code, 'the conversation is refused'));
  }

  #reset(id: string, epoch: string | undefined, reset: Reset): void {
    const followed = this.#followed.get(id);
    if (!followed?.stream) return;
    followed.era += 1;
    const shown = followed.stream.reset(reset);
    followed.stream.epochIs(epoch);
    if (shown) this.#heard.reset(id, reset);
  }

  #ask(id: string, need: Need): void {
    const connection = this.#connection;
    const followed = this.#followed.get(id);
    const stream = followed?.stream;
    if (need === undefined || !stream || !connection) return;
    const { era } = followed;
    const ask = { conversation_id: id, after_seq: need, limit: PAGE_MAX };
    connection.ask('history', ask, (error, page: Page) => {
      if (connection !== this.#connection || this.#followed.get(id)?.stream !== stream || followed.era !== era) return;
      if (error && !error.retryable) return this.#refuse(id, error);
      if (error) return this.#later(error, () => followed.era === era && this.#ask(id, stream.failed()));
      const next = stream.page(page.messages, page.has_more);
      // The page filled nothing, so the same request at once would get the same answer.
      if (next === need) this.#later(undefined, () => followed.era === era && this.#ask(id, next));
      else this.#ask(id, next);
    });
  }

  /** Tries again on the same connection only: the next connection begins from the positions. */
  #later(error: SwitchboardError | undefined, again: () => void): void {
    const connection = this.#connection;
    setTimeout(() => connection === this.#connection && again(), error?.details.retryAfterMs ?? this.#backoff.next());
  }

  #refuse(id: string, error: SwitchboardError): void {
    if (this.#forget(id, error)) this.#heard.refused(id, error.code);
  }

  #forget(id: string, error: SwitchboardError): boolean {
    const followed = this.#followed.get(id);
    this.#due.delete(id);
    for (const { reject } of followed?.waiting ?? []) reject(error);
    return this.#followed.delete(id);
  }
}

function* chunked<T>(items: T[], size: number): Generator<T[]> {
  for (let at = 0; at < items.length; at += size) yield items.slice(at, at + size);
}
