export { Client } from './client.js';
export { SwitchboardError } from './error.js';
export { Rest } from './rest.js';
