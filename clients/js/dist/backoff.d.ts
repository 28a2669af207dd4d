/**
 * Full jitter: each wait lies anywhere between nothing and a bound that doubles, so that those who were cut off together
 * do not come together.
 */
export declare class Backoff {
    #private;
    /** How long to wait now. */
    next(): number;
    /** It works again: the bound is small once more. */
    reset(): void;
}
