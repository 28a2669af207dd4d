/** Why something was not done: the host's word for it, or one of the client's own. */
/** Words that no host says. */
export type Own = 
/** The connection ended before the answer. */
'lost'
/** No answer in time. */
 | 'timeout'
/** A bound of the client: more waits than it keeps. */
 | 'full'
/** The client was stopped. */
 | 'stopped';
export interface Details {
    field?: string | undefined;
    /** The same again may work. */
    retryable?: boolean | undefined;
    retryAfterMs?: number | undefined;
    /** Of a REST answer. */
    status?: number | undefined;
}
export declare class SwitchboardError extends Error {
    /** A code of the protocol (`not_found`, `rate_limited` …), or one of {@link Own}. */
    readonly code: Own | (string & {});
    readonly details: Details;
    readonly name = "SwitchboardError";
    constructor(
    /** A code of the protocol (`not_found`, `rate_limited` …), or one of {@link Own}. */
    code: Own | (string & {}), message: string, details?: Details);
    get retryable(): boolean;
    /** Of an `error` frame's payload or a problem document; they share their words. */
    static of(problem: any, status?: number): SwitchboardError;
}
