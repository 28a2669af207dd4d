/** What was asked on one connection and has no answer yet. Each is answered exactly once: a reply, an error, or its time is up. */
import { SwitchboardError } from './error.js';
import type { Frame } from './wire.js';
/** Called at once when the frame comes, before the next one is looked at: order matters to whoever asked. */
export type Done = (error: SwitchboardError | undefined, payload: any) => void;
export declare class Calls {
    #private;
    /** @returns the `id` for the frame, or `undefined` when too many wait; `done` has heard so then. */
    open(done: Done): number | undefined;
    /** A frame with an `id`. */
    answer(frame: Frame): void;
    /** One of them can not be answered. */
    fail(id: number, error: SwitchboardError): void;
    /** The connection ended. */
    lost(why: string): void;
}
