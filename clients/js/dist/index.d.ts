export { Client, type Events, type Options } from './client.js';
export type { End } from './close.js';
export { SwitchboardError, type Details } from './error.js';
export type { State } from './life.js';
export { newKey } from './outbox.js';
export { Rest, type RestOptions } from './rest.js';
export type { Typing } from './typing.js';
export type { Deleted, Draft, Edited, Frame, Message, Page, Position, Presence, Profile, Reset, Session } from './wire.js';
