/** The client, as an application uses it. It connects the parts; each rule is in a part. */
import { Emitter } from './emitter.js';
import { type State } from './life.js';
import { type Typing } from './typing.js';
import type { Deleted, Draft, Edited, Frame, Message, Page, Position, Presence, Reset } from './wire.js';
export interface Options {
    /** Addresses of nodes, `ws(s)://host/ws`. When a connection is lost, the client tries the next address. */
    url: string | string[];
    /**
     * Returns a valid token. The client calls it before each connection and a minute before the last token
     * expires.
     */
    token: () => string | Promise<string>;
    /** A constructor, for platforms without a global `WebSocket` (Node 20). */
    WebSocket?: typeof WebSocket;
    /**
     * Maximum number of messages without an acknowledgement, 1,000 by default. Beyond it `send` fails with
     * `full`.
     */
    unsentMax?: number;
}
export interface Events {
    state: State;
    /** A message of a followed conversation: once each, in order, without gaps. */
    message: Message;
    changed: Edited | Deleted;
    /**
     * The servers lost messages that they had acknowledged (a failover, a restore). In this conversation,
     * forget the messages with a higher `seq`, and load those with a higher `change` again. The messages that
     * are stored instead follow as `message` and `changed`.
     */
    reset: {
        conversation_id: string;
    } & Reset;
    /** A message of a conversation that is not followed: refresh its entry in a list. */
    elsewhere: {
        conversation_id: string;
        message: Message;
    };
    /** The conversation is not followed any more: `not_found`, `forbidden`, `conversation_full`. */
    refused: {
        conversation_id: string;
        code: string;
    };
    presence: Presence;
    typing: Typing;
    /** The messages without an acknowledgement. Keep them across restarts. */
    unsent: Draft[];
    /** Every other push, unchanged: receipts, members, notifications, topics, `resync` … */
    push: Frame;
}
export declare class Client extends Emitter<Events> {
    #private;
    constructor(options: Options);
    get state(): State;
    start(): void;
    /**
     * Ends the connection. Messages without an acknowledgement fail with `stopped`; `unsent` has listed them
     * before.
     */
    stop(): void;
    /** Connects now instead of later, because the network or the person is back. */
    wake(): void;
    /**
     * Follows a conversation from now on, or from the position `from`, on every connection until `unfollow`.
     * `join` makes the user a participant of a public channel first.
     *
     * @param id the conversation's id, not its slug
     * @returns the present position
     */
    follow(id: string, { from, join }?: {
        from?: Position;
        join?: boolean;
    }): Promise<Position>;
    unfollow(id: string): void;
    /** The position of a followed conversation. Keep it for `from`. */
    position(id: string): Position | undefined;
    /** Subscribes to these topics instead of the last ones; their frames come as `push`. At most 50. */
    topics(names: string[]): void;
    /**
     * Resolves when the message is stored, over as many connections as needed. Fails if the host refuses the
     * message.
     */
    send(draft: Omit<Draft, 'client_msg_id'> & {
        client_msg_id?: string;
    }): Promise<Message>;
    /** The messages without an acknowledgement. After a restart, `send` each with the same `client_msg_id`. */
    get unsent(): Draft[];
    /** Gets a page of messages, ascending; without a cursor the newest. It causes no events. */
    history(id: string, page?: {
        before_seq?: number;
        after_seq?: number;
        limit?: number;
    }): Promise<Page>;
    /** Raises the read mark. The client repeats it until the host has it. A mark never falls. */
    read(id: string, seq: number): void;
    /** Raises the delivered marks: this device has stored the messages up to there. */
    delivered(positions: Record<string, number>): void;
    /**
     * Reports that the person types, or emptied the text. Call it at every key; the client limits the frames.
     */
    typing(id: string, state?: 'start' | 'stop'): void;
    /** Sets the visible conversation; `null` when the window is hidden. */
    focus(id: string | null): void;
    /** Watches the presence of these people instead of the last ones, as `presence` events. At most 500. */
    watch(users: string[]): void;
    /**
     * Sends any frame that has a reply, on the present connection. Fails with `lost` if that connection ends
     * first.
     */
    call(type: string, payload?: object): Promise<any>;
}
