/**
 * REST with a token: `/api/v1`, JSON in both directions, a refusal as {@link SwitchboardError}. No retries.
 */
export interface RestOptions {
    /** `https://host`; nothing means where the page came from. */
    origin?: string;
    token: () => string | Promise<string>;
}
export declare class Rest {
    #private;
    constructor({ origin, token }: RestOptions);
    get(path: string): Promise<any>;
    post(path: string, body?: object): Promise<any>;
    put(path: string, body?: object): Promise<any>;
    patch(path: string, body: object): Promise<any>;
    delete(path: string): Promise<any>;
}
