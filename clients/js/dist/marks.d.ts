/** Read marks of this person. A mark only rises, so only the highest must arrive, on any connection. */
import type { Connection } from './connection.js';
export declare class Marks {
    #private;
    read(conversation: string, seq: number): void;
    /** Messages above this point are lost; new ones there are unread. */
    reset(conversation: string, seq: number): void;
    opened(connection: Connection): void;
    lost(): void;
}
