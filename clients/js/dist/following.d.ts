/**
 * The conversations a client follows: subscribes them on every connection from where each stands, and asks `history` for
 * what a push passed over.
 */
import type { Connection } from './connection.js';
import { SwitchboardError } from './error.js';
import { type Deleted, type Edited, type Frame, type Message, type Position, type Reset } from './wire.js';
export interface Heard {
    /** Once each, in order. */
    message(message: Message): void;
    changed(change: Edited | Deleted): void;
    /** Of what was shown, nothing above this point is stored; what is stored instead follows. */
    reset(conversation: string, reset: Reset): void;
    /** A message of a conversation that is not followed. */
    elsewhere(conversation: string, message: Message): void;
    refused(conversation: string, code: string): void;
    /** A subscription stands, or none was wanted. */
    settled(): void;
}
export declare class Following {
    #private;
    constructor(heard: Heard);
    follow(id: string, from: Position | undefined, join: boolean): Promise<Position>;
    unfollow(id: string): void;
    topics(names: string[]): void;
    position(id: string): Position | undefined;
    opened(connection: Connection): void;
    lost(): void;
    stopped(error: SwitchboardError): void;
    /** @returns whether the frame was about the order of messages. */
    pushed({ type, payload }: Frame): boolean;
}
