/**
 * The conversations that a client follows. It subscribes to them on every connection from their positions,
 * and asks `history` for missing messages.
 */
import type { Connection } from './connection.js';
import { SwitchboardError } from './error.js';
import { type Deleted, type Edited, type Frame, type Message, type Position, type Reset } from './wire.js';
export interface Heard {
    /** Called once for each message, in order. */
    message(message: Message): void;
    changed(change: Edited | Deleted): void;
    /** Shown messages above this point are not stored; the messages that are stored instead follow. */
    reset(conversation: string, reset: Reset): void;
    /** Called for a message of a conversation that is not followed. */
    elsewhere(conversation: string, message: Message): void;
    refused(conversation: string, code: string): void;
    /** Called when the subscriptions are there, or none is wanted. */
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
    /** @returns whether the frame concerned the order of messages. */
    pushed({ type, payload }: Frame): boolean;
}
