/** How far this person has read. A mark only rises, so the highest is all that has to arrive, on whichever connection. */
import type { Connection } from './connection.js';
export declare class Marks {
    #private;
    read(conversation: string, seq: number): void;
    /** Nothing above this is there any more; what comes to be there is unread. */
    reset(conversation: string, seq: number): void;
    opened(connection: Connection): void;
    lost(): void;
}
