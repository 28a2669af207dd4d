/**
 * The running host, from the environment (`scripts/with-host`): tokens, operators, and clients that remember
 * what they received.
 */

import { createHmac, randomUUID } from 'node:crypto';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { afterEach } from 'node:test';
import { promisify } from 'node:util';

import { Client, Rest } from '../../dist/index.js';

/** @param {string} name */
function variable(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set: these tests run under scripts/test-js`);
  return value;
}

export const listen = variable('SWITCHBOARD_LISTEN');
export const origin = `http://${listen}`;
/** Longer than any wait here: a test that waits this long has found a fault. */
const PATIENCE_MS = 30_000;

/** A development token. @param {string} user */
export function token(user, { ttl = 3600, roles = /** @type {string[]} */ ([]), secret = variable('SWITCHBOARD_JWT_SECRET') } = {}) {
  const now = Math.floor(Date.now() / 1000);
  const part = (/** @type {object} */ value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const text = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ sub: user, roles, iat: now, exp: now + ttl, jti: randomUUID() })}`;
  return `${text}.${createHmac('sha256', secret).update(text).digest('base64url')}`;
}

/** A new person: tests share a host, but no people. @param {string} name */
export function person(name) {
  return `${name}-${randomUUID().slice(0, 8)}`;
}

/** @param {string} user */
export function rest(user) {
  return new Rest({ origin, token: () => token(user) });
}

/** A direct conversation. @param {string} one @param {string} other @returns {Promise<string>} */
export async function between(one, other) {
  const { conversation } = await rest(one).post('/conversations', { type: 'direct', members: [other] });
  return conversation.id;
}

/** Sends an operator's request. @param {string} path @param {object} body */
export async function operate(path, body) {
  const answer = await fetch(`http://${variable('SWITCHBOARD_ADMIN_LISTEN')}/admin/v1${path}`, {
    method: 'POST',
    headers: { authorization: `Bearer ${variable('SWITCHBOARD_ADMIN_TOKEN')}`, 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
  if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
}

/** Publishes to a topic, as an internal system. @param {string} topic @param {string} type @param {object} payload */
export async function publish(topic, type, payload) {
  const answer = await fetch(`${origin}/internal/v1/publish`, {
    method: 'POST',
    headers: { authorization: `Bearer ${token('matches', { roles: ['service'] })}`, 'content-type': 'application/json' },
    body: JSON.stringify({ target: `topic:${topic}`, type, payload }),
  });
  if (!answer.ok) throw new Error(`${topic}: ${answer.status} ${await answer.text()}`);
}

/** Runs SQL as the owner of the database. @param {string} statements */
export async function sql(statements) {
  await promisify(execFile)('psql', [variable('SWITCHBOARD_DATABASE_URL'), '--quiet', '--set=ON_ERROR_STOP=1', '--command', statements]);
}

/** Another node of the same fleet. @param {string} address */
export function secondNode(address) {
  const node = spawn(variable('SWITCHBOARD_PROGRAM'), ['serve'], {
    env: { ...process.env, SWITCHBOARD_LISTEN: `${address}:8080`, SWITCHBOARD_ADMIN_LISTEN: `${address}:9090` },
    cwd: new URL('../../../..', import.meta.url),
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  const gone = once(node, 'exit');
  return { listen: `${address}:8080`, drain: () => node.kill('SIGTERM'), gone };
}

/** @type {Set<Witness>} */
const witnesses = new Set();
// Also after a failed test, because its clients would keep the process alive.
afterEach(() => {
  for (const each of witnesses) each.client.stop();
  witnesses.clear();
});

/** A client, and everything that it received. */
export class Witness {
  /** @type {import('../../dist/index.js').Message[]} */
  messages = [];
  /** @type {import('../../dist/index.js').State[]} */
  states = [];
  /** @type {{ [Name in keyof import('../../dist/index.js').Events]?: import('../../dist/index.js').Events[Name][] }} */
  heard = {};
  /** @type {Set<() => void>} */
  #waiting = new Set();

  /** @param {string} user @param {Partial<import('../../dist/index.js').Options>} [options] */
  constructor(user, options = {}) {
    this.user = user;
    this.client = new Client({ url: `ws://${listen}/ws`, token: () => token(user), ...options });
    for (const name of /** @type {const} */ (['state', 'message', 'changed', 'reset', 'elsewhere', 'refused', 'presence', 'typing', 'unsent', 'push'])) {
      /** @type {any[]} */
      const heard = (this.heard[name] = []);
      this.client.on(name, (event) => {
        heard.push(event);
        for (const look of this.#waiting) look();
      });
    }
    this.messages = this.heard.message ?? [];
    this.states = this.heard.state ?? [];
    witnesses.add(this);
    this.client.start();
  }

  get seqs() {
    return this.messages.map((message) => message.seq);
  }

  get texts() {
    return this.messages.map((message) => message.content);
  }

  /** Waits until `holds`; checks after each event. @param {string} what @param {() => unknown} holds */
  until(what, holds) {
    return new Promise((/** @type {(value: void) => void} */ resolve, reject) => {
      const done = () => {
        clearTimeout(timer);
        this.#waiting.delete(look);
      };
      const look = () => {
        if (!holds()) return;
        done();
        resolve();
      };
      const timer = setTimeout(() => {
        done();
        reject(new Error(`${this.user} waited in vain for ${what}; heard ${JSON.stringify(this.heard, null, 1).slice(-2000)}`));
      }, PATIENCE_MS);
      this.#waiting.add(look);
      look();
    });
  }

  /** @param {import('../../dist/index.js').State['name']} name */
  becomes(name) {
    return this.until(`the state ${name}`, () => this.client.state.name === name);
  }
}
