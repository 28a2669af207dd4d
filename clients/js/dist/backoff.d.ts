/**
 * Full jitter: each wait is a random time between zero and a bound that doubles, so that clients that were
 * cut off together do not reconnect together.
 */
export declare class Backoff {
    #private;
    /** The next wait, in milliseconds. */
    next(): number;
    /** The connection works again: the bound starts anew. */
    reset(): void;
}
