/**
 * One WebSocket, from its handshake to its end: signs in, keeps it alive, matches answers. It never
 * reconnects.
 */
import { type Done } from './calls.js';
import { type End } from './close.js';
import { type Frame, type Session } from './wire.js';
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
export declare class Connection {
    #private;
    constructor(handshake: Handshake, ears: Ears);
    /** Sends a call; `done` is called exactly once. */
    ask(type: string, payload: object, done: Done): void;
    /** Sends a frame that has no answer and may be lost. */
    hint(type: string, payload: object): void;
    /** Ends the connection from this side. */
    close(): void;
}
