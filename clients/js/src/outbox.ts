/**
 * Messages to be sent. Each keeps its key until the host has acknowledged it, and is sent again under that
 * key on the next connection. In each conversation one message at a time is sent, so that the order holds.
 */

import { Backoff } from './backoff.js';
import type { Connection } from './connection.js';
import { SwitchboardError } from './error.js';
import type { Draft, Message } from './wire.js';

interface Entry {
  draft: Draft;
  resolve: (message: Message) => void;
  reject: (error: SwitchboardError) => void;
}

export class Outbox {
  /** By conversation; the first of each is being sent. */
  readonly #lines = new Map<string, Entry[]>();
  readonly #max: number;
  readonly #changed: () => void;
  #count = 0;
  #connection: Connection | undefined;
  readonly #backoff = new Backoff();

  constructor(max: number, changed: () => void) {
    this.#max = max;
    this.#changed = changed;
  }

  add(draft: Draft): Promise<Message> {
    if (this.#count >= this.#max) {
      return Promise.reject(new SwitchboardError('full', `${this.#max} messages wait to be sent`, { retryable: true }));
    }
    return new Promise((resolve, reject) => {
      const line = this.#lines.get(draft.conversation_id) ?? [];
      this.#lines.set(draft.conversation_id, line);
      line.push({ draft, resolve, reject });
      this.#count += 1;
      this.#changed();
      if (line.length === 1) this.#send(line);
    });
  }

  get drafts(): Draft[] {
    return [...this.#lines.values()].flat().map((entry) => entry.draft);
  }

  opened(connection: Connection): void {
    this.#connection = connection;
    for (const line of this.#lines.values()) this.#send(line);
  }

  lost(): void {
    this.#connection = undefined;
  }

  /** Fails all messages with `stopped`. */
  stopped(error: SwitchboardError): void {
    const entries = [...this.#lines.values()].flat();
    this.#lines.clear();
    this.#count = 0;
    for (const entry of entries) entry.reject(error);
  }

  #send(line: Entry[]): void {
    const connection = this.#connection;
    const entry = line[0];
    if (!connection || !entry) return;
    connection.ask('message.send', entry.draft, (error, sent) => {
      // The next connection has already sent it again.
      if (connection !== this.#connection) return;
      if (error?.retryable) {
        const wait = error.details.retryAfterMs ?? this.#backoff.next();
        setTimeout(() => connection === this.#connection && this.#send(line), wait);
        return;
      }
      this.#backoff.reset();
      this.#shift(line);
      if (error) entry.reject(error);
      else entry.resolve(sent.message);
      this.#send(line);
    });
  }

  #shift(line: Entry[]): void {
    const entry = line.shift();
    this.#count -= 1;
    if (entry && line.length === 0) this.#lines.delete(entry.draft.conversation_id);
    this.#changed();
  }
}

/** Makes the key of a new message. `randomUUID` does not exist on a page that was loaded over plain HTTP. */
export function newKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}
