/** How connections end, and what a client does about it: the table of `docs/client.md`. */
export interface End {
    /** The close code. */
    code: number;
    reason: string;
    /** What the host said to wait before coming back. */
    waitMs?: number | undefined;
}
/** The network went away without a word. */
export declare const LOST = 1006;
export declare const DRAINING = 1012;
export declare const BAD_TOKEN = 4001;
export declare const FLOOD = 4029;
export type Advice = 
/** After a wait of one's own. */
'reconnect'
/** After the wait that the host named. */
 | 'reconnect-when-told' | 'new-token'
/** A person decides. */
 | 'stop';
export declare function advice(code: number): Advice;
