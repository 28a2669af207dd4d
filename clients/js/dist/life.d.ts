/**
 * One connection after the other, for the life of the client: tokens, ends, waits. It knows no conversations.
 */
import { type End } from './close.js';
import { Connection } from './connection.js';
import type { Frame, Session } from './wire.js';
/** The state of the connection, for the user interface. */
export type State = {
    name: 'idle';
} | {
    name: 'connecting';
} | {
    name: 'online';
    session: Session;
}
/** The last connection ended with `end`, or there was no token; the next attempt is in `waitMs`. */
 | {
    name: 'waiting';
    end: End;
    waitMs: number;
}
/**
 * Until `start` is called again: the application stopped it, the host forbade a reconnect, or a token
 * failed twice.
 */
 | {
    name: 'stopped';
    end: End;
};
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
export declare class Life {
    #private;
    constructor(ways: Ways, watcher: Watcher);
    get state(): State;
    start(): void;
    stop(end?: End): void;
    /** Ends the wait, because the network or the person is back. */
    wake(): void;
    /** The connection works: the next wait is short again. */
    settled(): void;
}
