/** The client: what an application sees of Switchboard. It puts the parts together; each rule is in a part. */
import { Emitter } from './emitter.js';
import { type State } from './life.js';
import { type Typing } from './typing.js';
import type { Deleted, Draft, Edited, Frame, Message, Page, Position, Presence, Reset } from './wire.js';
export interface Options {
    /** Where nodes are, `ws(s)://host/ws`. Of several, the next is tried whenever one is lost. */
    url: string | string[];
    /** A valid token; asked before each connection and a minute before the last one expires. */
    token: () => string | Promise<string>;
    /** Where the platform has none of its own (Node 20). */
    WebSocket?: typeof WebSocket;
    /** So many messages may wait to be acknowledged; beyond it `send` fails with `full`. 1,000 unless given. */
    unsentMax?: number;
}
export interface Events {
    state: State;
    /** Of a followed conversation: once each, in order, without holes. */
    message: Message;
    changed: Edited | Deleted;
    /**
     * The servers lost messages that they had acknowledged (a failover, a restore). Of this conversation, forget the messages with a
     * higher `seq`, and load those with a higher `change` again: they are not stored like that. What is stored instead follows
     * as `message` and `changed`.
     */
    reset: {
        conversation_id: string;
    } & Reset;
    /** Of a conversation that is not followed: its entry in a list is out of date. */
    elsewhere: {
        conversation_id: string;
        message: Message;
    };
    /** It is not followed any more: `not_found`, `forbidden`, `conversation_full`. */
    refused: {
        conversation_id: string;
        code: string;
    };
    presence: Presence;
    typing: Typing;
    /** Everything that waits for its acknowledgement; worth keeping across restarts. */
    unsent: Draft[];
    /** Every other push, as it came: receipts, members, notifications, topics, `resync` … */
    push: Frame;
}
export declare class Client extends Emitter<Events> {
    #private;
    constructor(options: Options);
    get state(): State;
    start(): void;
    /** Ends the connection. What was not acknowledged fails with `stopped`; `unsent` was told of it before. */
    stop(): void;
    /** Connects now instead of later: the network is back, or the person is. */
    wake(): void;
    /**
     * Hears a conversation from now on, or from `from`: what one has of it already. On every connection again, until
     * `unfollow`. `join` makes the user a participant of a public channel first.
     *
     * @param id its id; a slug names nothing here
     * @returns where it stands
     */
    follow(id: string, { from, join }?: {
        from?: Position;
        join?: boolean;
    }): Promise<Position>;
    unfollow(id: string): void;
    /** Where a followed conversation stands; worth keeping, for `from`. */
    position(id: string): Position | undefined;
    /** Hears these topics, and no others, as `push`. At most 50. */
    topics(names: string[]): void;
    /** Resolves once the message is durable, however many connections that takes; fails when the host refuses it. */
    send(draft: Omit<Draft, 'client_msg_id'> & {
        client_msg_id?: string;
    }): Promise<Message>;
    /** What waits for its acknowledgement. To send it after a restart: `send` with the same `client_msg_id`. */
    get unsent(): Draft[];
    /** A page of messages, ascending; without a cursor the newest. Nothing of it is an event. */
    history(id: string, page?: {
        before_seq?: number;
        after_seq?: number;
        limit?: number;
    }): Promise<Page>;
    /** Was seen up to here. A mark only rises; it arrives sooner or later. */
    read(id: string, seq: number): void;
    /** Was stored on this device up to here. */
    delivered(positions: Record<string, number>): void;
    /** The person types, or emptied the text. Call it at every key: it says no more than is news. */
    typing(id: string, state?: 'start' | 'stop'): void;
    /** Which conversation the person looks at; `null` when the window is hidden. */
    focus(id: string | null): void;
    /** Hears the presence of these people, and no others, as `presence`. At most 500. */
    watch(users: string[]): void;
    /** Any frame that has a reply, on the present connection: it fails with `lost` when that ends first. */
    call(type: string, payload?: object): Promise<any>;
}
