/**
 * One WebSocket, from its handshake to its end: signs in, keeps it alive, matches answers. It never
 * reconnects.
 */

import { Calls, type Done } from './calls.js';
import { DRAINING, FLOOD, LOST, type End } from './close.js';
import { SwitchboardError } from './error.js';
import { FRAME_BYTES_MAX, type Frame, type Session } from './wire.js';

/** Maximum wait for `auth.success`. */
const OPEN_WITHIN_MS = 10_000;
/**
 * While more bytes than this are unwritten, hints (typing, focus) are dropped: they would arrive too late.
 */
const UNWRITTEN_HINTS_MAX = 64 * 1024;
/** With more unwritten bytes, the network takes nothing any more, and the connection ends. */
const UNWRITTEN_MAX = 1024 * 1024;

export interface Handshake {
  url: string;
  token: string;
  /** True: the token is sent in the first frame, not in the handshake. */
  inFrame: boolean;
  WebSocket: typeof WebSocket;
}

export interface Ears {
  opened(session: Session): void;
  /** Called for a frame without `id`. */
  pushed(frame: Frame): void;
  /** Called once, as the last call. `opened`: the handshake was answered. */
  ended(end: End, opened: boolean): void;
}

export class Connection {
  readonly #socket: WebSocket;
  readonly #ears: Ears;
  readonly #calls = new Calls();
  #session: Session | undefined;
  /** The wait that the host asked for, by close code. */
  readonly #waits = new Map<number, number>();
  #handshaken = false;
  #ended = false;
  #opening: ReturnType<typeof setTimeout> | undefined;
  /** Fires when nothing was written for `heartbeat_ms`. */
  #quiet: ReturnType<typeof setTimeout> | undefined;
  /** Fires when a ping was not answered. */
  #pingTimeout: ReturnType<typeof setTimeout> | undefined;

  constructor(handshake: Handshake, ears: Ears) {
    const { url, token, inFrame, WebSocket } = handshake;
    this.#ears = ears;
    this.#socket = new WebSocket(url, inFrame ? ['switchboard.v1'] : ['switchboard.v1', `bearer.${token}`]);
    this.#opening = setTimeout(() => this.#end({ code: LOST, reason: 'no welcome in time' }), OPEN_WITHIN_MS);
    this.#socket.onopen = () => {
      this.#handshaken = true;
      if (inFrame) this.#write(JSON.stringify({ type: 'auth', payload: { token } }));
    };
    this.#socket.onmessage = (event) => this.#received(event.data);
    this.#socket.onclose = (event) => this.#end({ code: event.code, reason: event.reason });
    // Browsers also fire `close`; Node fires nothing else after a handshake that failed.
    this.#socket.onerror = () => this.#end({ code: LOST, reason: 'the network failed' });
  }

  /** Sends a call; `done` is called exactly once. */
  ask(type: string, payload: object, done: Done): void {
    if (this.#ended) return done(new SwitchboardError('lost', 'the connection ended', { retryable: true }), undefined);
    const id = this.#calls.open(done);
    if (id === undefined) return;
    const text = JSON.stringify({ type, id, payload });
    if (isTooLarge(text)) {
      this.#calls.fail(id, new SwitchboardError('too_large', `a frame has at most ${FRAME_BYTES_MAX} bytes`));
    } else {
      this.#write(text);
    }
  }

  /** Sends a frame that has no answer and may be lost. */
  hint(type: string, payload: object): void {
    if (!this.#session || this.#ended || this.#socket.bufferedAmount > UNWRITTEN_HINTS_MAX) return;
    this.#write(JSON.stringify({ type, payload }));
  }

  /** Ends the connection from this side. */
  close(): void {
    this.#end({ code: 1000, reason: 'closed here' });
  }

  #received(data: unknown): void {
    clearTimeout(this.#pingTimeout);
    this.#pingTimeout = undefined;
    const frame = parse(data);
    if (!frame) return;
    if (frame.type === 'draining') this.#waits.set(DRAINING, frame.payload.reconnect_after_ms);
    if (frame.type === 'error' && frame.payload.code === 'rate_limited') {
      this.#waits.set(FLOOD, frame.payload.retry_after_ms);
    }
    if (frame.id !== undefined) {
      this.#calls.answer(frame);
    } else if (frame.type === 'auth.success') {
      this.#welcome(frame.payload);
    } else if (frame.type !== 'pong') {
      this.#ears.pushed(frame);
    }
  }

  #welcome(session: Session): void {
    clearTimeout(this.#opening);
    this.#session = session;
    this.#keepAlive();
    this.#ears.opened(session);
  }

  #write(text: string): void {
    if (this.#socket.bufferedAmount > UNWRITTEN_MAX) {
      return this.#end({ code: LOST, reason: 'the network takes nothing' });
    }
    this.#socket.send(text);
    this.#keepAlive();
  }

  /**
   * Pings when nothing was written for `heartbeat_ms`. If nothing arrives within the same time, the
   * connection is dead.
   */
  #keepAlive(): void {
    if (!this.#session) return;
    const every = this.#session.heartbeat_ms;
    clearTimeout(this.#quiet);
    this.#quiet = setTimeout(() => {
      this.#pingTimeout ??= setTimeout(() => this.#end({ code: LOST, reason: 'no answer to a ping' }), every);
      this.#write('{"type":"ping"}');
    }, every);
  }

  #end(end: End): void {
    if (this.#ended) return;
    this.#ended = true;
    for (const timer of [this.#opening, this.#quiet, this.#pingTimeout]) clearTimeout(timer);
    // A dead network does not answer a closing handshake, so the client does not wait for one.
    this.#socket.onmessage = this.#socket.onclose = this.#socket.onerror = null;
    this.#socket.close();
    // Mark the connection as ended first, so that no callback of a lost call tries again here.
    this.#ears.ended({ ...end, waitMs: this.#waits.get(end.code) }, this.#handshaken);
    this.#calls.lost(`the connection ended with ${end.code} ${end.reason}`.trimEnd());
  }
}

function parse(data: unknown): Frame | undefined {
  try {
    const frame = JSON.parse(String(data));
    return typeof frame?.type === 'string' ? frame : undefined;
  } catch {
    return undefined;
  }
}

/** Encodes only long texts: a character has at most three bytes for each of its UTF-16 units. */
function isTooLarge(text: string): boolean {
  return text.length * 3 > FRAME_BYTES_MAX && new TextEncoder().encode(text).length > FRAME_BYTES_MAX;
}
