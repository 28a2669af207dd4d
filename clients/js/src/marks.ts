/** How far this person has read. A mark only rises, so the highest is all that has to arrive, on whichever connection. */

import type { Connection } from './connection.js';

export class Marks {
  /** Not acknowledged yet, by conversation. */
  readonly #due = new Map<string, number>();
  readonly #asked = new Set<string>();
  #connection: Connection | undefined;

  read(conversation: string, seq: number): void {
    if (seq <= (this.#due.get(conversation) ?? 0)) return;
    this.#due.set(conversation, seq);
    this.#send(conversation);
  }

  /** Nothing above this is there any more; what comes to be there is unread. */
  reset(conversation: string, seq: number): void {
    if ((this.#due.get(conversation) ?? 0) > seq) this.#due.set(conversation, seq);
  }

  opened(connection: Connection): void {
    this.#connection = connection;
    for (const conversation of this.#due.keys()) this.#send(conversation);
  }

  lost(): void {
    this.#connection = undefined;
    this.#asked.clear();
  }

  #send(conversation: string): void {
    const connection = this.#connection;
    const seq = this.#due.get(conversation);
    if (!connection || seq === undefined || this.#asked.has(conversation)) return;
    this.#asked.add(conversation);
    connection.ask('read', { conversation_id: conversation, up_to_seq: seq }, (error) => {
      if (connection !== this.#connection) return;
      this.#asked.delete(conversation);
      // What failed goes with the next mark or the next connection; a mark that was refused is none.
      if (error?.retryable) return;
      if (this.#due.get(conversation) === seq) this.#due.delete(conversation);
      else this.#send(conversation);
    });
  }
}
