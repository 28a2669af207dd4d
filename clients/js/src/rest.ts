/**
 * REST with a token: `/api/v1`, JSON in both directions, a refusal as {@link SwitchboardError}. No retries.
 */

import { SwitchboardError } from './error.js';

export interface RestOptions {
  /** `https://host`; nothing means where the page came from. */
  origin?: string;
  token: () => string | Promise<string>;
}

export class Rest {
  readonly #origin: string;
  readonly #token: RestOptions['token'];

  constructor({ origin = '', token }: RestOptions) {
    this.#origin = origin;
    this.#token = token;
  }

  get(path: string): Promise<any> {
    return this.#ask('GET', path);
  }

  post(path: string, body: object = {}): Promise<any> {
    return this.#ask('POST', path, body);
  }

  put(path: string, body: object = {}): Promise<any> {
    return this.#ask('PUT', path, body);
  }

  patch(path: string, body: object): Promise<any> {
    return this.#ask('PATCH', path, body);
  }

  delete(path: string): Promise<any> {
    return this.#ask('DELETE', path);
  }

  async #ask(method: string, path: string, body?: object): Promise<any> {
    const headers: Record<string, string> = { authorization: `Bearer ${await this.#token()}` };
    if (body) headers['content-type'] = 'application/json';
    const answer = await fetch(`${this.#origin}/api/v1${path}`, {
      method,
      headers,
      ...(body && { body: JSON.stringify(body) }),
    });
    if (answer.status === 204) return undefined;
    const said = await answer.json().catch(() => undefined);
    if (!answer.ok) throw SwitchboardError.of(said, answer.status);
    return said;
  }
}
