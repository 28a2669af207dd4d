/** One WebSocket, from its handshake to its end: authenticates, keeps it alive, matches answers. It never reconnects. */
import { type Done } from './calls.js';
import { type End } from './close.js';
import { type Frame, type Session } from './wire.js';
export interface Handshake {
    url: string;
    token: string;
    /** The token goes in the first frame, not in the handshake. */
    inFrame: boolean;
    WebSocket: typeof WebSocket;
}
export interface Ears {
    opened(session: Session): void;
    /** A frame without `id`. */
    pushed(frame: Frame): void;
    /** Once, and nothing after it. `opened` says whether the handshake was answered. */
    ended(end: End, opened: boolean): void;
}
export declare class Connection {
    #private;
    constructor(handshake: Handshake, ears: Ears);
    /** Asks; `done` is called exactly once. */
    ask(type: string, payload: object, done: Done): void;
    /** Says what has no answer and may be lost. */
    hint(type: string, payload: object): void;
    /** Ends it from this side. */
    close(): void;
}
