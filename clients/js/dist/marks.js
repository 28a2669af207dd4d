/** Read marks of this person. A mark only rises, so only the highest must arrive, on any connection. */
export class Marks {
    /** Marks without an acknowledgement, by conversation. */
    #due = new Map();
    #asked = new Set();
    #connection;
    read(conversation, seq) {
        if (seq <= (this.#due.get(conversation) ?? 0))
            return;
        this.#due.set(conversation, seq);
        this.#send(conversation);
    }
    /** Messages above this point are lost; new ones there are unread. */
    reset(conversation, seq) {
        if ((this.#due.get(conversation) ?? 0) > seq)
            this.#due.set(conversation, seq);
    }
    opened(connection) {
        this.#connection = connection;
        for (const conversation of this.#due.keys())
            this.#send(conversation);
    }
    lost() {
        this.#connection = undefined;
        this.#asked.clear();
    }
    #send(conversation) {
        const connection = this.#connection;
        const seq = this.#due.get(conversation);
        if (!connection || seq === undefined || this.#asked.has(conversation))
            return;
        this.#asked.add(conversation);
        connection.ask('read', { conversation_id: conversation, up_to_seq: seq }, (error) => {
            if (connection !== this.#connection)
                return;
            this.#asked.delete(conversation);
            // A failed mark goes with the next mark or connection; a refused one is dropped.
            if (error?.retryable)
                return;
            if (this.#due.get(conversation) === seq)
                this.#due.delete(conversation);
            else
                this.#send(conversation);
        });
    }
}
