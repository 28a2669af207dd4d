/** Events with types. A listener that throws stops neither the others nor the client: its error goes to the platform. */
export type Listener<T> = (event: T) => void;
export declare class Emitter<Events extends object> {
    #private;
    /** @returns what takes the listener away again. */
    on<Name extends keyof Events>(name: Name, listener: Listener<Events[Name]>): () => void;
    protected emit<Name extends keyof Events>(name: Name, event: Events[Name]): void;
}
