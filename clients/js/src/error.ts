/** Why something was not done: the host's word for it, or one of the client's own. */

/** Words that no host says. */
export type Own =
  /** The connection ended before the answer. */
  | 'lost'
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

export class SwitchboardError extends Error {
  override readonly name = 'SwitchboardError';

  constructor(
    /** A code of the protocol (`not_found`, `rate_limited` …), or one of {@link Own}. */
    readonly code: Own | (string & {}),
    message: string,
    readonly details: Details = {},
  ) {
    super(message);
  }

  get retryable(): boolean {
    return this.details.retryable === true;
  }

  /** Of an `error` frame's payload or a problem document; they share their words. */
  static of(problem: any, status?: number): SwitchboardError {
    return new SwitchboardError(problem?.code ?? 'internal', problem?.message ?? problem?.detail ?? 'no reason given', {
      field: problem?.field,
      retryable: problem?.retryable ?? (status === 429 || status === 503),
      retryAfterMs: problem?.retry_after_ms,
      status,
    });
  }
}
