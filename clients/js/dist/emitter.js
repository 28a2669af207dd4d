/**
 * Typed events. If a listener throws, the other listeners and the client go on; the platform reports the
 * error.
 */
export class Emitter {
    #listeners = new Map();
    /** @returns a function that removes the listener. */
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
