/** The client: what an application sees of Switchboard. It puts the parts together; each rule is in a part. */

import type { Connection } from './connection.js';
import { Emitter } from './emitter.js';
import { SwitchboardError } from './error.js';
import { Following } from './following.js';
import { Life, type State } from './life.js';
import { Marks } from './marks.js';
import { newKey, Outbox } from './outbox.js';
import { Typists, type Typing } from './typing.js';
import type { Deleted, Draft, Edited, Frame, Message, Page, Position, Presence, Reset } from './wire.js';

export interface Options {
  /** Where nodes are, `ws(s)://host/ws`. Of several, the next is tried whenever one is lost. */
  url: string | string[];
  /** A valid token; asked before each connection and a minute before the last one expires. */
  token: () => string | Promise<string>;
  /** Where the platform has none of its own (Node 20). */
  WebSocket?: typeof WebSocket;
  /** So many messages may wait to be acknowledged; beyond it `send` fails with `full`. 1,000 unless given. */
  unsentMax?: number;
}

export interface Events {
  state: State;
  /** Of a followed conversation: once each, in order, without holes. */
  message: Message;
  changed: Edited | Deleted;
  /**
   * The servers lost messages that they had acknowledged (a failover, a restore). Of this conversation, forget the messages with a
   * higher `seq`, and load those with a higher `change` again: they are not stored like that. What is stored instead follows
   * as `message` and `changed`.
   */
  reset: { conversation_id: string } & Reset;
  /** Of a conversation that is not followed: its entry in a list is out of date. */
  elsewhere: { conversation_id: string; message: Message };
  /** It is not followed any more: `not_found`, `forbidden`, `conversation_full`. */
  refused: { conversation_id: string; code: string };
  presence: Presence;
  typing: Typing;
  /** Everything that waits for its acknowledgement; worth keeping across restarts. */
  unsent: Draft[];
  /** Every other push, as it came: receipts, members, notifications, topics, `resync` … */
  push: Frame;
}

const UNSENT_MAX = 1_000;

export class Client extends Emitter<Events> {
  readonly #life: Life;
  readonly #following: Following;
  readonly #outbox: Outbox;
  readonly #marks = new Marks();
  readonly #typists = new Typists((typing) => this.emit('typing', typing));
  #connection: Connection | undefined;
  #watched: string[] = [];
  /** `undefined` until the application has said which. */
  #focused: string | null | undefined;

  constructor(options: Options) {
    super();
    const urls = [options.url].flat();
    const WebSocket = options.WebSocket ?? globalThis.WebSocket;
    if (urls.length === 0) throw new TypeError('a client needs a `url`');
    if (!WebSocket) throw new TypeError('this platform has no WebSocket: pass one in the options');

    this.#outbox = new Outbox(options.unsentMax ?? UNSENT_MAX, () => this.emit('unsent', this.#outbox.drafts));
    this.#following = new Following({
      message: (message) => this.emit('message', message),
      changed: (change) => this.emit('changed', change),
      reset: (conversation_id, reset) => {
        this.#marks.reset(conversation_id, reset.seq);
        this.emit('reset', { conversation_id, ...reset });
      },
      elsewhere: (conversation_id, message) => this.emit('elsewhere', { conversation_id, message }),
      refused: (conversation_id, code) => this.emit('refused', { conversation_id, code }),
      settled: () => this.#life.settled(),
    });
    this.#life = new Life({ urls, token: options.token, WebSocket }, {
      state: (state) => this.#state(state),
      opened: (connection) => this.#opened(connection),
      pushed: (frame) => this.#pushed(frame),
      lost: () => this.#lost(),
    });
  }

  get state(): State {
    return this.#life.state;
  }

  start(): void {
    this.#life.start();
  }

  /** Ends the connection. What was not acknowledged fails with `stopped`; `unsent` was told of it before. */
  stop(): void {
    this.#life.stop();
  }

  /** Connects now instead of later: the network is back, or the person is. */
  wake(): void {
    this.#life.wake();
  }

  /**
   * Hears a conversation from now on, or from `from`: what one has of it already. On every connection again, until
   * `unfollow`. `join` makes the user a participant of a public channel first.
   *
   * @param id its id; a slug names nothing here
   * @returns where it stands
   */
  follow(id: string, { from, join = false }: { from?: Position; join?: boolean } = {}): Promise<Position> {
    return this.#following.follow(id, from, join);
  }

  unfollow(id: string): void {
    this.#following.unfollow(id);
  }

  /** Where a followed conversation stands; worth keeping, for `from`. */
  position(id: string): Position | undefined {
    return this.#following.position(id);
  }

  /** Hears these topics, and no others, as `push`. At most 50. */
  topics(names: string[]): void {
    this.#following.topics(names);
  }

  /** Resolves once the message is durable, however many connections that takes; fails when the host refuses it. */
  send(draft: Omit<Draft, 'client_msg_id'> & { client_msg_id?: string }): Promise<Message> {
    return this.#outbox.add({ client_msg_id: newKey(), ...draft });
  }

  /** What waits for its acknowledgement. To send it after a restart: `send` with the same `client_msg_id`. */
  get unsent(): Draft[] {
    return this.#outbox.drafts;
  }

  /** A page of messages, ascending; without a cursor the newest. Nothing of it is an event. */
  history(id: string, page: { before_seq?: number; after_seq?: number; limit?: number } = {}): Promise<Page> {
    return this.call('history', { conversation_id: id, ...page });
  }

  /** Was seen up to here. A mark only rises; it arrives sooner or later. */
  read(id: string, seq: number): void {
    this.#marks.read(id, seq);
  }

  /** Was stored on this device up to here. */
  delivered(positions: Record<string, number>): void {
    this.#connection?.hint('delivered', { positions });
  }

  /** The person types, or emptied the text. Call it at every key: it says no more than is news. */
  typing(id: string, state: 'start' | 'stop' = 'start'): void {
    if (this.#connection && this.#typists.isNews(id, state)) {
      this.#connection.hint('typing', { conversation_id: id, state });
    }
  }

  /** Which conversation the person looks at; `null` when the window is hidden. */
  focus(id: string | null): void {
    this.#focused = id;
    this.#connection?.hint('focus', { conversation_id: id });
  }

  /** Hears the presence of these people, and no others, as `presence`. At most 500. */
  watch(users: string[]): void {
    this.#watched = [...users];
    this.#watch();
  }

  /** Any frame that has a reply, on the present connection: it fails with `lost` when that ends first. */
  call(type: string, payload: object = {}): Promise<any> {
    return new Promise((resolve, reject) => {
      if (!this.#connection) return reject(new SwitchboardError('lost', 'there is no connection', { retryable: true }));
      this.#connection.ask(type, payload, (error, answer) => (error ? reject(error) : resolve(answer)));
    });
  }

  #opened(connection: Connection): void {
    this.#connection = connection;
    this.#following.opened(connection);
    this.#outbox.opened(connection);
    this.#marks.opened(connection);
    this.#watch();
    if (this.#focused !== undefined) this.focus(this.#focused);
  }

  #lost(): void {
    this.#connection = undefined;
    this.#following.lost();
    this.#outbox.lost();
    this.#marks.lost();
    this.#typists.lost();
  }

  #state(state: State): void {
    this.emit('state', state);
    if (state.name !== 'stopped') return;
    const error = new SwitchboardError('stopped', `the client was stopped: ${state.end.reason}`);
    this.#following.stopped(error);
    this.#outbox.stopped(error);
  }

  #pushed(frame: Frame): void {
    const { type, payload } = frame;
    if (type === 'message.new') this.#typists.stopped(payload.conversation_id, payload.message.sender_id);
    if (this.#following.pushed(frame)) return;
    switch (type) {
      case 'typing.start':
        return this.#typists.started(payload.conversation_id, payload.user_id);
      case 'typing.stop':
        return this.#typists.stopped(payload.conversation_id, payload.user_id);
      case 'presence.update':
        return this.emit('presence', payload);
      case 'resync':
        // What is lost may have been a presence.
        this.#watch();
    }
    this.emit('push', frame);
  }

  #watch(): void {
    if (this.#watched.length === 0) return;
    const watched = this.#watched;
    this.#connection?.ask('presence.watch', { user_ids: watched }, (error, snapshot) => {
      if (error || watched !== this.#watched) return;
      for (const presence of snapshot.presence as Presence[]) this.emit('presence', presence);
    });
  }
}
