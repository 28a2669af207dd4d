/** Types of the wire, as in `docs/protocol.md`. Hosts may add fields; clients ignore unknown ones. */
export interface Profile {
    user_id: string;
    name: string | null;
    username: string | null;
    avatar_url: string | null;
}
export interface Message {
    id: string;
    conversation_id: string;
    /** The order within the conversation, without gaps. */
    seq: number;
    sender_id: string;
    sender: Profile | null;
    type: 'text' | 'system' | 'join' | 'leave' | (string & {});
    content: string;
    reply_to_id: string | null;
    attachments: object[];
    metadata: Record<string, unknown> | null;
    mentions: string[];
    client_msg_id: string | null;
    created_at: string;
    edited_at: string | null;
    deleted: boolean;
    /** The number of its latest edit or deletion. */
    change: number | null;
}
/** A position in a conversation: the client has messages up to `seq`, edits and deletions up to `change`. */
export interface Position {
    seq: number;
    change: number;
    /** The position epoch, from hosts that know epochs. Keep it with the position. */
    epoch?: string;
}
/** The stored part after a failover: everything up to here is stored, nothing above it. */
export interface Reset {
    seq: number;
    change: number;
}
export interface Presence {
    user_id: string;
    status: 'online' | 'away' | 'busy' | 'offline';
    last_seen: string | null;
}
/** Payload of `auth.success`. */
export interface Session {
    user_id: string;
    session_id: string;
    expires_at: string;
    heartbeat_ms: number;
    server_time: string;
}
export interface Page {
    messages: Message[];
    has_more: boolean;
}
export interface Subscribed {
    conversation_ids: string[];
    heads: Record<string, number>;
    changes: Record<string, number>;
    /** The position epoch of all later positions. */
    epoch?: string;
    /** Conversations in which the client had more than is stored. */
    reset?: Record<string, Reset>;
    refused: {
        id: string;
        code: string;
    }[];
}
/** A new message: the payload of `message.send`. */
export interface Draft {
    conversation_id: string;
    content: string;
    /**
     * Chosen before the first attempt and kept until the acknowledgement: the same key never makes a second
     * message.
     */
    client_msg_id: string;
    reply_to_id?: string;
    attachments?: object[];
    metadata?: Record<string, unknown>;
    mentions?: string[];
}
export interface Edited {
    type: 'message.edited';
    conversation_id: string;
    message: Message;
    change: number;
}
export interface Deleted {
    type: 'message.deleted';
    conversation_id: string;
    message_id: string;
    seq: number;
    change: number;
}
export interface Frame {
    type: string;
    id?: string | number;
    payload: any;
}
/** A larger frame would end the connection with 1009, so the client never writes one. */
export declare const FRAME_BYTES_MAX: number;
/** Maximum number of conversations in one `subscribe`. */
export declare const SUBSCRIBE_MAX = 200;
/** Maximum number with `join`. */
export declare const JOINS_MAX = 20;
/** Maximum number of messages in a page of `history`. */
export declare const PAGE_MAX = 100;
