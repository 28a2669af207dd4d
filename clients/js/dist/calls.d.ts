/**
 * The calls of one connection without an answer. Each ends exactly once: by a reply, an error, or a timeout.
 */
import { SwitchboardError } from './error.js';
import type { Frame } from './wire.js';
/** Called when the frame comes, before the next frame is handled, because the caller depends on the order. */
export type Done = (error: SwitchboardError | undefined, payload: any) => void;
export declare class Calls {
    #private;
    /** @returns the `id` for the frame, or `undefined` if too many calls wait; `done` then got the error. */
    open(done: Done): number | undefined;
    /** Handles a frame with an `id`. */
    answer(frame: Frame): void;
    /** Ends one call with an error. */
    fail(id: number, error: SwitchboardError): void;
    /** Ends all calls, because the connection ended. */
    lost(why: string): void;
}
