/** Who is typing, both ways. Hints: whatever is lost is over by itself. */
/** The host tells others again only after a while; more often says nothing new. */
const SAY_EVERY_MS = 3_000;
/** Without a further word somebody has stopped. */
const OVER_AFTER_MS = 12_000;
export class Typists {
    /** When others were last told, by conversation. */
    #said = new Map();
    #typing = new Map();
    #changed;
    constructor(changed) {
        this.#changed = changed;
    }
    /** Whether this is news to the others. */
    isNews(conversation, state) {
        const said = this.#said.get(conversation);
        if (state === 'stop')
            return this.#said.delete(conversation);
        if (said !== undefined && Date.now() - said < SAY_EVERY_MS)
            return false;
        this.#said.set(conversation, Date.now());
        return true;
    }
    started(conversation, user) {
        const before = this.#typing.get(key(conversation, user));
        clearTimeout(before?.timer);
        const typing = { conversation_id: conversation, user_id: user, typing: true };
        const timer = setTimeout(() => this.stopped(conversation, user), OVER_AFTER_MS);
        this.#typing.set(key(conversation, user), { typing, timer });
        if (!before)
            this.#changed(typing);
    }
    /** They said so, sent what they typed, or fell silent. */
    stopped(conversation, user) {
        const before = this.#typing.get(key(conversation, user));
        if (!before)
            return;
        clearTimeout(before.timer);
        this.#typing.delete(key(conversation, user));
        this.#changed({ ...before.typing, typing: false });
    }
    /** The connection is gone: nobody would tell us that they stopped. */
    lost() {
        this.#said.clear();
        for (const { typing } of [...this.#typing.values()])
            this.stopped(typing.conversation_id, typing.user_id);
    }
}
function key(conversation, user) {
    return `${conversation} ${user}`;
}
