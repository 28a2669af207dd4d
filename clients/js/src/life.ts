/**
 * One connection after the other, for the life of the client: tokens, ends, waits. It knows no conversations.
 */

import { Backoff } from './backoff.js';
import { advice, BAD_TOKEN, FLOOD, type End } from './close.js';
import { Connection } from './connection.js';
import type { Frame, Session } from './wire.js';

/** The state of the connection, for the user interface. */
export type State =
  | { name: 'idle' }
  | { name: 'connecting' }
  | { name: 'online'; session: Session }
  /** The last connection ended with `end`, or there was no token; the next attempt is in `waitMs`. */
  | { name: 'waiting'; end: End; waitMs: number }
  /**
   * Until `start` is called again: the application stopped it, the host forbade a reconnect, or a token
   * failed twice.
   */
  | { name: 'stopped'; end: End };

export interface Ways {
  /** Addresses of nodes, `ws(s)://host/ws`; tried in turn. */
  urls: string[];
  /** Called before each connection and before a token expires. */
  token: () => string | Promise<string>;
  WebSocket: typeof WebSocket;
}

export interface Watcher {
  state(state: State): void;
  opened(connection: Connection): void;
  pushed(frame: Frame): void;
  lost(): void;
}

/** The wait after a flood, if the host named none. */
const FLOOD_WAIT_MS = 1_000;

export class Life {
  readonly #ways: Ways;
  readonly #watcher: Watcher;
  readonly #backoff = new Backoff();
  #state: State = { name: 'idle' };
  #connection: Connection | undefined;
  /** Index of the present address. */
  #turn = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** Raised by every start and stop, so that older callbacks are ignored. */
  #era = 0;
  /**
   * The last handshake failed without a reason, which a browser does not get; for a token in a frame it
   * would.
   */
  #unheard = false;
  /** The token in use, and the refused one. */
  #token: string | undefined;
  #refused: string | undefined;
  /** The renewal of the token: `true` while it runs, or the timer of its next attempt. */
  #renewing: ReturnType<typeof setTimeout> | true | undefined;

  constructor(ways: Ways, watcher: Watcher) {
    this.#ways = ways;
    this.#watcher = watcher;
  }

  get state(): State {
    return this.#state;
  }

  start(): void {
    if (this.#state.name !== 'idle' && this.#state.name !== 'stopped') return;
    this.#era += 1;
    this.#refused = undefined;
    this.#unheard = false;
    this.#backoff.reset();
    void this.#connect(this.#era);
  }

  stop(end: End = { code: 1000, reason: 'stopped here' }): void {
    if (this.#state.name === 'stopped') return;
    this.#era += 1;
    clearTimeout(this.#timer);
    this.#drop();
    this.#become({ name: 'stopped', end });
  }

  /** Ends the wait, because the network or the person is back. */
  wake(): void {
    if (this.#state.name !== 'waiting') return;
    clearTimeout(this.#timer);
    void this.#connect(this.#era);
  }

  /** The connection works: the next wait is short again. */
  settled(): void {
    this.#backoff.reset();
    this.#refused = undefined;
  }

  async #connect(era: number): Promise<void> {
    this.#become({ name: 'connecting' });
    let token: string;
    try {
      token = await this.#ways.token();
    } catch (error) {
      if (era === this.#era) this.#wait({ code: BAD_TOKEN, reason: `no token: ${error}` }, this.#backoff.next());
      return;
    }
    if (era !== this.#era) return;
    if (token === this.#refused) return this.stop({ code: BAD_TOKEN, reason: 'the token was refused' });
    this.#token = token;
    const { urls, WebSocket } = this.#ways;
    const url = urls[this.#turn % urls.length]!;
    const connection = new Connection({ url, token, inFrame: this.#unheard, WebSocket }, {
      opened: (session) => {
        this.#connection = connection;
        this.#become({ name: 'online', session });
        this.#watcher.opened(connection);
      },
      pushed: (frame) => this.#pushed(frame),
      ended: (end, handshaken) => {
        this.#unheard = !handshaken;
        if (era === this.#era) this.#ended(end);
      },
    });
    this.#connection = connection;
  }

  #pushed(frame: Frame): void {
    if (frame.type === 'auth.expiring' && !this.#renewing) {
      this.#renewing = true;
      void this.#renew(new Backoff());
    }
    this.#watcher.pushed(frame);
  }

  #ended(end: End): void {
    this.#drop();
    // The node may be gone, so try another address.
    this.#turn += 1;
    switch (advice(end.code)) {
      case 'stop':
        return this.stop(end);
      case 'new-token':
        this.#refused = this.#token;
        return this.#wait(end, this.#backoff.next());
      case 'reconnect-when-told':
        return this.#wait(end, end.waitMs ?? (end.code === FLOOD ? FLOOD_WAIT_MS : this.#backoff.next()));
      case 'reconnect':
        return this.#wait(end, this.#backoff.next());
    }
  }

  #wait(end: End, waitMs: number): void {
    const era = this.#era;
    this.#become({ name: 'waiting', end, waitMs });
    // A listener may have called `stop` or `wake`.
    if (era !== this.#era || this.#state.name !== 'waiting') return;
    this.#timer = setTimeout(() => void this.#connect(era), waitMs);
  }

  /** Replaces a token that expires soon. Tries again while the connection lasts. */
  async #renew(backoff: Backoff): Promise<void> {
    const connection = this.#connection;
    const again = () => {
      if (connection && connection === this.#connection) {
        this.#renewing = setTimeout(() => void this.#renew(backoff), backoff.next());
      }
    };
    let token: string;
    try {
      token = await this.#ways.token();
    } catch {
      return again();
    }
    if (token === this.#token || !connection || connection !== this.#connection) return again();
    connection.ask('auth.refresh', { token }, (error, session) => {
      if (error) return again();
      this.#renewing = undefined;
      this.#token = token;
      this.#become({ name: 'online', session });
    });
  }

  #drop(): void {
    const connection = this.#connection;
    this.#connection = undefined;
    if (this.#renewing !== true) clearTimeout(this.#renewing);
    this.#renewing = undefined;
    connection?.close();
    if (connection) this.#watcher.lost();
  }

  #become(state: State): void {
    this.#state = state;
    this.#watcher.state(state);
  }
}

