export { Client } from './client.js';
export { SwitchboardError } from './error.js';
export { newKey } from './outbox.js';
export { Rest } from './rest.js';
