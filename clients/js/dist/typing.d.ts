/** Who is typing, both ways. Hints: whatever is lost is over by itself. */
export interface Typing {
    conversation_id: string;
    user_id: string;
    typing: boolean;
}
export declare class Typists {
    #private;
    constructor(changed: (typing: Typing) => void);
    /** Whether this is news to the others. */
    isNews(conversation: string, state: 'start' | 'stop'): boolean;
    started(conversation: string, user: string): void;
    /** They said so, sent what they typed, or fell silent. */
    stopped(conversation: string, user: string): void;
    /** The connection is gone: nobody would tell us that they stopped. */
    lost(): void;
}
