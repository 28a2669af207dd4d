/** Close codes and the client's reaction: the table of `docs/client.md`. */
export interface End {
    /** The close code. */
    code: number;
    reason: string;
    /** The wait before a reconnect that the host asked for. */
    waitMs?: number | undefined;
}
/** The connection was lost without a close frame. */
export declare const LOST = 1006;
export declare const DRAINING = 1012;
export declare const BAD_TOKEN = 4001;
export declare const FLOOD = 4029;
export type Advice = 
/** Reconnect after a wait of the client's choice. */
'reconnect'
/** Reconnect after the wait that the host named. */
 | 'reconnect-when-told' | 'new-token'
/** Stop; a person decides. */
 | 'stop';
export declare function advice(code: number): Advice;
