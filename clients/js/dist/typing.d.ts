/** Typing of this person and of others. These are hints: a lost one ends by itself. */
export interface Typing {
    conversation_id: string;
    user_id: string;
    typing: boolean;
}
export declare class Typists {
    #private;
    constructor(changed: (typing: Typing) => void);
    /** Returns whether the frame must be sent. */
    isNews(conversation: string, state: 'start' | 'stop'): boolean;
    started(conversation: string, user: string): void;
    /** The other person stopped, sent a message, or sent nothing more. */
    stopped(conversation: string, user: string): void;
    /** The connection ended, so a `typing.stop` would not arrive. */
    lost(): void;
}
