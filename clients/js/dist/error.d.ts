/** The reason of a failure: a code of the host, or a code of the client. */
/** Codes of the client, which no host sends. */
export type Own = 
/** The connection ended before the answer. */
'lost'
/** No answer in time. */
 | 'timeout'
/** A bound of the client: too many calls or messages wait. */
 | 'full'
/** The client was stopped. */
 | 'stopped';
export interface Details {
    field?: string | undefined;
    /** The same request may succeed later. */
    retryable?: boolean | undefined;
    retryAfterMs?: number | undefined;
    /** The status of a REST answer. */
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
    /** Makes one from the payload of an `error` frame or from a problem document; they have the same codes. */
    static of(problem: any, status?: number): SwitchboardError;
}
