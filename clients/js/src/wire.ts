/** What goes over the wire, as `docs/protocol.md` has it. Fields may be added; whoever reads passes over what they do not know. */

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

/** What a client has of a conversation: messages up to `seq`, edits and deletions up to `change`. */
export interface Position {
  seq: number;
  change: number;
  /** Which history it is of; hosts that know of epochs tell it. Kept with the position. */
  epoch?: string;
}

/** What one still has, after history went back: everything up to here is stored, nothing above it is. */
export interface Reset {
  seq: number;
  change: number;
}

export interface Presence {
  user_id: string;
  status: 'online' | 'away' | 'busy' | 'offline';
  last_seen: string | null;
}

/** `auth.success`. */
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
  /** Of all positions from here on. */
  epoch?: string;
  /** Where this client had more than there is. */
  reset?: Record<string, Reset>;
  refused: { id: string; code: string }[];
}

/** A message on its way in: what `message.send` takes. */
export interface Draft {
  conversation_id: string;
  content: string;
  /** Chosen before the first attempt and kept until the acknowledgement: the same key never makes a second message. */
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

/** A frame beyond it ends the connection with 1009, so it is never written. */
export const FRAME_BYTES_MAX = 64 * 1024;
/** Conversations that one `subscribe` may name. */
export const SUBSCRIBE_MAX = 200;
/** Of those, with `join`. */
export const JOINS_MAX = 20;
/** A page of `history`. */
export const PAGE_MAX = 100;
