/**
 * Messages on their way out. Each keeps its key until the host has acknowledged it; whatever happens to the connection, it
 * is sent again under that key. In order within a conversation: one at a time of each, while the others go on.
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
    /** Nobody will send them any more. */
    stopped(error: SwitchboardError): void;
}
/** For a message that nobody has tried to send yet. Not `randomUUID`: a page that came over plain HTTP has none. */
export declare function newKey(): string;
