/** Why something was not done: the host's word for it, or one of the client's own. */
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
    /** Of an `error` frame's payload or a problem document; they share their words. */
    static of(problem, status) {
        return new SwitchboardError(problem?.code ?? 'internal', problem?.message ?? problem?.detail ?? 'no reason given', {
            field: problem?.field,
            retryable: problem?.retryable ?? (status === 429 || status === 503),
            retryAfterMs: problem?.retry_after_ms,
            status,
        });
    }
}
