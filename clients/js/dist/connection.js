/**
 * One WebSocket, from its handshake to its end: signs in, keeps it alive, matches answers. It never
 * reconnects.
 */
import { Calls } from './calls.js';
import { DRAINING, FLOOD, LOST } from './close.js';
import { SwitchboardError } from './error.js';
import { FRAME_BYTES_MAX } from './wire.js';
/** Maximum wait for `auth.success`. */
const OPEN_WITHIN_MS = 10_000;
/**
 * While more bytes than this are unwritten, hints (typing, focus) are dropped: they would arrive too late.
 */
const UNWRITTEN_HINTS_MAX = 64 * 1024;
/** With more unwritten bytes, the network takes nothing any more, and the connection ends. */
const UNWRITTEN_MAX = 1024 * 1024;
export class Connection {
    #socket;
    #ears;
    #calls = new Calls();
    #session;
    /** The wait that the host asked for, by close code. */
    #waits = new Map();
    #handshaken = false;
    #ended = false;
    #opening;
    /** Fires when nothing was written for `heartbeat_ms`. */
    #quiet;
    /** Fires when a ping was not answered. */
    #pingTimeout;
    constructor(handshake, ears) {
        const { url, token, inFrame, WebSocket } = handshake;
        this.#ears = ears;
        this.#socket = new WebSocket(url, inFrame ? ['switchboard.v1'] : ['switchboard.v1', `bearer.${token}`]);
        this.#opening = setTimeout(() => this.#end({ code: LOST, reason: 'no welcome in time' }), OPEN_WITHIN_MS);
        this.#socket.onopen = () => {
            this.#handshaken = true;
            if (inFrame)
                this.#write(JSON.stringify({ type: 'auth', payload: { token } }));
        };
        this.#socket.onmessage = (event) => this.#received(event.data);
        this.#socket.onclose = (event) => this.#end({ code: event.code, reason: event.reason });
        // Browsers also fire `close`; Node fires nothing else after a handshake that failed.
        this.#socket.onerror = () => this.#end({ code: LOST, reason: 'the network failed' });
    }
    /** Sends a call; `done` is called exactly once. */
    ask(type, payload, done) {
        if (this.#ended)
            return done(new SwitchboardError('lost', 'the connection ended', { retryable: true }), undefined);
        const id = this.#calls.open(done);
        if (id === undefined)
            return;
        const text = JSON.stringify({ type, id, payload });
        if (isTooLarge(text)) {
            this.#calls.fail(id, new SwitchboardError('too_large', `a frame has at most ${FRAME_BYTES_MAX} bytes`));
        }
        else {
            this.#write(text);
        }
    }
    /** Sends a frame that has no answer and may be lost. */
    hint(type, payload) {
        if (!this.#session || this.#ended || this.#socket.bufferedAmount > UNWRITTEN_HINTS_MAX)
            return;
        this.#write(JSON.stringify({ type, payload }));
    }
    /** Ends the connection from this side. */
    close() {
        this.#end({ code: 1000, reason: 'closed here' });
    }
    #received(data) {
        clearTimeout(this.#pingTimeout);
        this.#pingTimeout = undefined;
        const frame = parse(data);
        if (!frame)
            return;
        if (frame.type === 'draining')
            this.#waits.set(DRAINING, frame.payload.reconnect_after_ms);
        if (frame.type === 'error' && frame.payload.code === 'rate_limited') {
            this.#waits.set(FLOOD, frame.payload.retry_after_ms);
        }
        if (frame.id !== undefined) {
            this.#calls.answer(frame);
        }
        else if (frame.type === 'auth.success') {
            this.#welcome(frame.payload);
        }
        else if (frame.type !== 'pong') {
            this.#ears.pushed(frame);
        }
    }
    #welcome(session) {
        clearTimeout(this.#opening);
        this.#session = session;
        this.#keepAlive();
        this.#ears.opened(session);
    }
    #write(text) {
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
    #keepAlive() {
        if (!this.#session)
            return;
        const every = this.#session.heartbeat_ms;
        clearTimeout(this.#quiet);
        this.#quiet = setTimeout(() => {
            this.#pingTimeout ??= setTimeout(() => this.#end({ code: LOST, reason: 'no answer to a ping' }), every);
            this.#write('{"type":"ping"}');
        }, every);
    }
    #end(end) {
        if (this.#ended)
            return;
        this.#ended = true;
        for (const timer of [this.#opening, this.#quiet, this.#pingTimeout])
            clearTimeout(timer);
        // A dead network does not answer a closing handshake, so the client does not wait for one.
        this.#socket.onmessage = this.#socket.onclose = this.#socket.onerror = null;
        this.#socket.close();
        // Mark the connection as ended first, so that no callback of a lost call tries again here.
        this.#ears.ended({ ...end, waitMs: this.#waits.get(end.code) }, this.#handshaken);
        this.#calls.lost(`the connection ended with ${end.code} ${end.reason}`.trimEnd());
    }
}
function parse(data) {
    try {
        const frame = JSON.parse(String(data));
        return typeof frame?.type === 'string' ? frame : undefined;
    }
    catch {
        return undefined;
    }
}
/** Encodes only long texts: a character has at most three bytes for each of its UTF-16 units. */
function isTooLarge(text) {
    return text.length * 3 > FRAME_BYTES_MAX && new TextEncoder().encode(text).length > FRAME_BYTES_MAX;
}
