/** Typing of this person and of others. These are hints: a lost one ends by itself. */

/** The client repeats `start` at most this often, because the host also pushes it seldom. */
const SAY_EVERY_MS = 3_000;
/** Without a further `typing.start` for this time, the other person has stopped. */
const OVER_AFTER_MS = 12_000;

export interface Typing {
  conversation_id: string;
  user_id: string;
  typing: boolean;
}

export class Typists {
  /** Time of the last `start`, by conversation. */
  readonly #said = new Map<string, number>();
  readonly #typing = new Map<string, { typing: Typing; timer: ReturnType<typeof setTimeout> }>();
  readonly #changed: (typing: Typing) => void;

  constructor(changed: (typing: Typing) => void) {
    this.#changed = changed;
  }

  /** Returns whether the frame must be sent. */
  isNews(conversation: string, state: 'start' | 'stop'): boolean {
    const said = this.#said.get(conversation);
    if (state === 'stop') return this.#said.delete(conversation);
    if (said !== undefined && Date.now() - said < SAY_EVERY_MS) return false;
    this.#said.set(conversation, Date.now());
    return true;
  }

  started(conversation: string, user: string): void {
    const before = this.#typing.get(key(conversation, user));
    clearTimeout(before?.timer);
    const typing = { conversation_id: conversation, user_id: user, typing: true };
    const timer = setTimeout(() => this.stopped(conversation, user), OVER_AFTER_MS);
    this.#typing.set(key(conversation, user), { typing, timer });
    if (!before) this.#changed(typing);
  }

  /** The other person stopped, sent a message, or sent nothing more. */
  stopped(conversation: string, user: string): void {
    const before = this.#typing.get(key(conversation, user));
    if (!before) return;
    clearTimeout(before.timer);
    this.#typing.delete(key(conversation, user));
    this.#changed({ ...before.typing, typing: false });
  }

  /** The connection ended, so a `typing.stop` would not arrive. */
  lost(): void {
    this.#said.clear();
    for (const { typing } of [...this.#typing.values()]) this.stopped(typing.conversation_id, typing.user_id);
  }
}

function key(conversation: string, user: string): string {
  return `${conversation} ${user}`;
}
