/**
 * Typed events. If a listener throws, the other listeners and the client go on; the platform reports the
 * error.
 */
export type Listener<T> = (event: T) => void;
export declare class Emitter<Events extends object> {
    #private;
    /** @returns a function that removes the listener. */
    on<Name extends keyof Events>(name: Name, listener: Listener<Events[Name]>): () => void;
    protected emit<Name extends keyof Events>(name: Name, event: Events[Name]): void;
}
