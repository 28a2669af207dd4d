/**
 * REST with a token: `/api/v1`, JSON in both directions, a refusal as {@link SwitchboardError}. No retries.
 */
import { SwitchboardError } from './error.js';
export class Rest {
    #origin;
    #token;
    constructor({ origin = '', token }) {
        this.#origin = origin;
        this.#token = token;
    }
    get(path) {
        return this.#ask('GET', path);
    }
    post(path, body = {}) {
        return this.#ask('POST', path, body);
    }
    put(path, body = {}) {
        return this.#ask('PUT', path, body);
    }
    patch(path, body) {
        return this.#ask('PATCH', path, body);
    }
    delete(path) {
        return this.#ask('DELETE', path);
    }
    async #ask(method, path, body) {
        const headers = { authorization: `Bearer ${await this.#token()}` };
        if (body)
            headers['content-type'] = 'application/json';
        const answer = await fetch(`${this.#origin}/api/v1${path}`, {
            method,
            headers,
            ...(body && { body: JSON.stringify(body) }),
        });
        if (answer.status === 204)
            return undefined;
        const said = await answer.json().catch(() => undefined);
        if (!answer.ok)
            throw SwitchboardError.of(said, answer.status);
        return said;
    }
}
