/** One connection after the other, for as long as the client lives: tokens, ends, waits. It knows no conversations. */
import { type End } from './close.js';
import { Connection } from './connection.js';
import type { Frame, Session } from './wire.js';
/** What a person may be shown of the connection. */
export type State = {
    name: 'idle';
} | {
    name: 'connecting';
} | {
    name: 'online';
    session: Session;
}
/** The last connection ended with `end`, or there was no token for one; the next attempt comes in `waitMs`. */
 | {
    name: 'waiting';
    end: End;
    waitMs: number;
}
/** For good, until `start` is called again: stopped here, told not to come back, or the same token was refused twice. */
 | {
    name: 'stopped';
    end: End;
};
export interface Ways {
    /** Addresses of nodes, `ws(s)://host/ws`; tried in turn. */
    urls: string[];
    /** Asked before each connection and before a token expires. */
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
    /** The network is back, or the person is: no need to wait any longer. */
    wake(): void;
    /** The connection does its work: the next wait is a short one. */
    settled(): void;
}
