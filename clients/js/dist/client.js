/** The client, as an application uses it. It connects the parts; each rule is in a part. */
import { Emitter } from './emitter.js';
import { SwitchboardError } from './error.js';
import { Following } from './following.js';
import { Life } from './life.js';
import { Marks } from './marks.js';
import { newKey, Outbox } from './outbox.js';
import { Typists } from './typing.js';
const UNSENT_MAX = 1_000;
export class Client extends Emitter {
    #life;
    #following;
    #outbox;
    #marks = new Marks();
    #typists = new Typists((typing) => this.emit('typing', typing));
    #connection;
    #watched = [];
    /** The last known status of each watched person. */
    #statuses = new Map();
    /** Who has written where on this connection, while the presence of somebody was not visible. */
    #wrote = new Set();
    /** `undefined` until the application sets it. */
    #focused;
    constructor(options) {
        super();
        const urls = [options.url].flat();
        const WebSocket = options.WebSocket ?? globalThis.WebSocket;
        if (urls.length === 0)
            throw new TypeError('a client needs a `url`');
        if (!WebSocket)
            throw new TypeError('this platform has no WebSocket: pass one in the options');
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
    get state() {
        return this.#life.state;
    }
    start() {
        this.#life.start();
    }
    /**
     * Ends the connection. Messages without an acknowledgement fail with `stopped`; `unsent` has listed them
     * before.
     */
    stop() {
        this.#life.stop();
    }
    /** Connects now instead of later, because the network or the person is back. */
    wake() {
        this.#life.wake();
    }
    /**
     * Follows a conversation from now on, or from the position `from`, on every connection until `unfollow`.
     * `join` makes the user a participant of a public channel first.
     *
     * @param id the conversation's id, not its slug
     * @returns the present position
     */
    follow(id, { from, join = false } = {}) {
        return this.#following.follow(id, from, join);
    }
    unfollow(id) {
        this.#following.unfollow(id);
    }
    /** The position of a followed conversation. Keep it for `from`. */
    position(id) {
        return this.#following.position(id);
    }
    /** Subscribes to these topics instead of the last ones; their frames come as `push`. At most 50. */
    topics(names) {
        this.#following.topics(names);
    }
    /**
     * Resolves when the message is stored, over as many connections as needed. Fails if the host refuses the
     * message.
     */
    send(draft) {
        return this.#outbox.add({ client_msg_id: newKey(), ...draft });
    }
    /** The messages without an acknowledgement. After a restart, `send` each with the same `client_msg_id`. */
    get unsent() {
        return this.#outbox.drafts;
    }
    /** Gets a page of messages, ascending; without a cursor the newest. It causes no events. */
    history(id, page = {}) {
        return this.call('history', { conversation_id: id, ...page });
    }
    /** Raises the read mark. The client repeats it until the host has it. A mark never falls. */
    read(id, seq) {
        this.#marks.read(id, seq);
    }
    /** Raises the delivered marks: this device has stored the messages up to there. */
    delivered(positions) {
        this.#connection?.hint('delivered', { positions });
    }
    /**
     * Reports that the person types, or emptied the text. Call it at every key; the client limits the frames.
     */
    typing(id, state = 'start') {
        if (this.#connection && this.#typists.isNews(id, state)) {
            this.#connection.hint('typing', { conversation_id: id, state });
        }
    }
    /** Sets the visible conversation; `null` when the window is hidden. */
    focus(id) {
        this.#focused = id;
        this.#connection?.hint('focus', { conversation_id: id });
    }
    /** Watches the presence of these people instead of the last ones, as `presence` events. At most 500. */
    watch(users) {
        this.#watched = [...users];
        this.#statuses.clear();
        this.#wrote.clear();
        this.#watch();
    }
    /**
     * Sends any frame that has a reply, on the present connection. Fails with `lost` if that connection ends
     * first.
     */
    call(type, payload = {}) {
        return new Promise((resolve, reject) => {
            if (!this.#connection)
                return reject(new SwitchboardError('lost', 'there is no connection', { retryable: true }));
            this.#connection.ask(type, payload, (error, answer) => (error ? reject(error) : resolve(answer)));
        });
    }
    #opened(connection) {
        this.#connection = connection;
        this.#wrote.clear();
        this.#following.opened(connection);
        this.#outbox.opened(connection);
        this.#marks.opened(connection);
        this.#watch();
        if (this.#focused !== undefined)
            this.focus(this.#focused);
    }
    #lost() {
        this.#connection = undefined;
        this.#following.lost();
        this.#outbox.lost();
        this.#marks.lost();
        this.#typists.lost();
    }
    #state(state) {
        this.emit('state', state);
        if (state.name !== 'stopped')
            return;
        const error = new SwitchboardError('stopped', `the client was stopped: ${state.end.reason}`);
        this.#following.stopped(error);
        this.#outbox.stopped(error);
    }
    #pushed(frame) {
        const { type, payload } = frame;
        if (type === 'message.new') {
            this.#typists.stopped(payload.conversation_id, payload.message.sender_id);
            this.#tookPart(payload.conversation_id, payload.message.sender_id);
        }
        if (this.#following.pushed(frame))
            return;
        switch (type) {
            case 'typing.start':
                return this.#typists.started(payload.conversation_id, payload.user_id);
            case 'typing.stop':
                return this.#typists.stopped(payload.conversation_id, payload.user_id);
            case 'presence.update':
                return this.#present(payload);
            case 'resync':
                // The lost pushes may include a presence.
                this.#watch();
        }
        this.emit('push', frame);
    }
    #watch() {
        if (this.#watched.length === 0)
            return;
        const watched = this.#watched;
        this.#connection?.ask('presence.watch', { user_ids: watched }, (error, snapshot) => {
            if (error || watched !== this.#watched)
                return;
            for (const presence of snapshot.presence)
                this.#present(presence);
        });
    }
    #present(presence) {
        this.#statuses.set(presence.user_id, presence.status);
        this.emit('presence', presence);
    }
    /**
     * Somebody has written in a conversation. A presence is visible between people who both took part there,
     * and nothing is pushed when it becomes visible. A person who was not visible looks offline.
     */
    #tookPart(conversation, sender) {
        const isHidden = (user) => this.#statuses.get(user) === 'offline';
        const isOwn = this.state.name === 'online' && this.state.session.user_id === sender;
        const mayShow = isOwn ? this.#watched.some(isHidden) : this.#watched.includes(sender) && isHidden(sender);
        const key = `${conversation} ${sender}`;
        if (!mayShow || this.#wrote.has(key))
            return;
        this.#wrote.add(key);
        this.#watch();
    }
}
