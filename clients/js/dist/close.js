/** Close codes and the client's reaction: the table of `docs/client.md`. */
/** The connection was lost without a close frame. */
export const LOST = 1006;
export const DRAINING = 1012;
export const BAD_TOKEN = 4001;
const DISCONNECTED = 4003;
const TOO_MANY_CONNECTIONS = 4009;
export const FLOOD = 4029;
export function advice(code) {
    switch (code) {
        case DISCONNECTED:
        case TOO_MANY_CONNECTIONS:
            return 'stop';
        case BAD_TOKEN:
            return 'new-token';
        case DRAINING:
        case FLOOD:
            return 'reconnect-when-told';
        default:
            return 'reconnect';
    }
}
