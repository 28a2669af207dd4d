/** The network between a client and the host, for tests that break it: cut, silent, or losing a frame. */

import { connect, createServer } from 'node:net';
import { once } from 'node:events';

import { listen as host } from './host.js';

export class Proxy {
  /** @type {Set<import('node:net').Socket>} */
  #sockets = new Set();
  /** Number of connections so far. */
  carried = 0;
  /** True: new connections are refused. */
  #closed = false;
  /** Decides by a frame's text whether it is lost. @type {(text: string) => boolean} */
  loses = () => false;
  #server = createServer((socket) => this.#carry(socket));

  static async start() {
    const proxy = new Proxy();
    proxy.#server.listen(0, '127.0.0.1');
    await once(proxy.#server, 'listening');
    return proxy;
  }

  get listen() {
    return `127.0.0.1:${/** @type {import('node:net').AddressInfo} */ (this.#server.address()).port}`;
  }

  /** Cuts every connection, without a close frame. */
  cut() {
    for (const socket of this.#sockets) socket.destroy();
  }

  /** The same, and refuses new connections until `open`. */
  close() {
    this.#closed = true;
    this.cut();
  }

  open() {
    this.#closed = false;
  }

  /** Open connections stay open and carry nothing any more; new ones work. */
  silence() {
    for (const socket of this.#sockets) {
      socket.removeAllListeners('data');
      socket.pause();
    }
  }

  end() {
    this.cut();
    this.#server.close();
  }

  /** @param {import('node:net').Socket} near */
  #carry(near) {
    if (this.#closed) return near.destroy();
    this.carried += 1;
    const [address, port] = host.split(':');
    const far = connect(Number(port), address);
    const frames = new Frames((text) => this.loses(text));
    for (const [from, to] of [[near, far], [far, near]]) {
      this.#sockets.add(from);
      from.on('error', () => {});
      from.on('close', () => {
        this.#sockets.delete(from);
        to.destroy();
      });
    }
    near.on('data', (data) => far.write(data));
    far.on('data', (data) => {
      for (const part of frames.pass(data)) near.write(part);
    });
  }
}

/** Cuts the host's bytes into HTTP head and frames (RFC 6455), and forwards the frames that are not lost. */
class Frames {
  #rest = Buffer.alloc(0);
  /** @type {'head' | 'frames' | 'plain'} */
  #mode = 'head';

  /** @param {(text: string) => boolean} loses */
  constructor(loses) {
    this.loses = loses;
  }

  /** @param {Buffer} data @returns {Generator<Buffer>} */
  *pass(data) {
    if (this.#mode === 'plain') return yield data;
    this.#rest = Buffer.concat([this.#rest, data]);
    if (this.#mode === 'head') {
      const end = this.#rest.indexOf('\r\n\r\n');
      if (end < 0) return;
      this.#mode = this.#rest.toString('latin1', 0, 12) === 'HTTP/1.1 101' ? 'frames' : 'plain';
      const head = this.#mode === 'frames' ? end + 4 : this.#rest.length;
      yield this.#take(head);
    }
    for (let length; this.#mode === 'frames' && (length = this.#length()) !== undefined; ) {
      const frame = this.#take(length.head + length.body);
      const isText = (frame[0] & 0x0f) === 1;
      if (!isText || !this.loses(frame.toString('utf8', length.head))) yield frame;
    }
  }

  /** The bytes of the first frame, if it is complete. The host's frames are not masked. */
  #length() {
    const { length } = this.#rest;
    if (length < 2) return undefined;
    const short = this.#rest[1] & 0x7f;
    const head = short < 126 ? 2 : short === 126 ? 4 : 10;
    if (length < head) return undefined;
    const body = short < 126 ? short : short === 126 ? this.#rest.readUInt16BE(2) : Number(this.#rest.readBigUInt64BE(2));
    return length < head + body ? undefined : { head, body };
  }

  /** @param {number} bytes */
  #take(bytes) {
    const taken = this.#rest.subarray(0, bytes);
    this.#rest = this.#rest.subarray(bytes);
    return taken;
  }
}
