/**
 * Messages to be sent. Each keeps its key until the host has acknowledged it, and is sent again under that
 * key on the next connection. In each conversation one message at a time is sent, so that the order holds.
 */
import type { Connection } from './connection.js';
import { SwitchboardError } from './error.js';
import type { Draft, Message } from './wire.js';
export declare class Outbox {
    #private;
    constructor(max: number, changed: () => void);
    add(draft: Draft): Promise<Message>;
    get drafts(): Draft[];
    opened(connection: Connection): void;
    lost(): void;
    /** Fails all messages with `stopped`. */
    stopped(error: SwitchboardError): void;
}
/** Makes the key of a new message. `randomUUID` does not exist on a page that was loaded over plain HTTP. */
export declare function newKey(): string;
