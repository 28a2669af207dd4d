/** How connections end, and what a client does about it: the table of `docs/client.md`. */

export interface End {
  /** The close code. */
  code: number;
  reason: string;
  /** What the host said to wait before coming back. */
  waitMs?: number | undefined;
}

/** The network went away without a word. */
export const LOST = 1006;
export const DRAINING = 1012;
export const BAD_TOKEN = 4001;
const DISCONNECTED = 4003;
const TOO_MANY_CONNECTIONS = 4009;
export const FLOOD = 4029;

export type Advice =
  /** After a wait of one's own. */
  | 'reconnect'
  /** After the wait that the host named. */
  | 'reconnect-when-told'
  | 'new-token'
  /** A person decides. */
  | 'stop';

export function advice(code: number): Advice {
  switch (code) {
    case DISCONNECTED:
    case TOO_MANY_CONNECTIONS:
      return 'stop';
    case BAD_TOKEN:
      return 'new-token';
    case DRAINING:
    case FLOOD:
      return 'reconnect-when-told';
    default:
      return 'reconnect';
  }
}
