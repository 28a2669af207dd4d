/** The reason of a failure: a code of the host, or a code of the client. */
export class SwitchboardError extends Error {
    code;
    details;
    name = 'SwitchboardError';
    constructor(
    /** A code of the protocol (`not_found`, `rate_limited` …), or one of {@link Own}. */
    code, message, details = {}) {
        super(message);
        this.code = code;
        this.details = details;
    }
    get retryable() {
        return this.details.retryable === true;
    }
    /** Makes one from the payload of an `error` frame or from a problem document; they have the same codes. */
    static of(problem, status) {
        return new SwitchboardError(problem?.code ?? 'internal', problem?.message ?? problem?.detail ?? 'no reason given', {
            field: problem?.field,
            retryable: problem?.retryable ?? (status === 429 || status === 503),
            retryAfterMs: problem?.retry_after_ms,
            status,
        });
    }
}
