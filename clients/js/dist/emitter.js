/** Events with types. A listener that throws stops neither the others nor the client: its error goes to the platform. */
export class Emitter {
    #listeners = new Map();
    /** @returns what takes the listener away again. */
    on(name, listener) {
        const listeners = this.#listeners.get(name) ?? new Set();
        this.#listeners.set(name, listeners.add(listener));
        return () => void listeners.delete(listener);
    }
    emit(name, event) {
        for (const listener of this.#listeners.get(name) ?? []) {
            try {
                listener(event);
            }
            catch (error) {
                queueMicrotask(() => {
                    throw error;
                });
            }
        }
    }
}
