/** The order of messages, without a host: the same cases as `tests/harness/reference/stream.rs`. */

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Stream } from '../dist/stream.js';

/** @param {number} seq @returns {any} */
const message = (seq) => ({ seq, content: String(seq) });

/** @param {number} seq @param {number} [change] */
function stream(seq, change = 0) {
  /** @type {number[]} */
  const shown = [];
  return { shown, stream: new Stream({ seq, change }, (each) => shown.push(each.seq)) };
}

test('a duplicate is shown once', () => {
  const { stream: s, shown } = stream(3);
  for (const seq of [3, 4, 4, 5, 2]) assert.equal(s.message(message(seq)), undefined);
  assert.deepEqual(shown, [4, 5]);
});

test('a jump is filled before anything above it is shown', () => {
  const { stream: s, shown } = stream(0);
  s.message(message(1));
  assert.equal(s.message(message(4)), 1);
  assert.equal(s.message(message(5)), undefined, 'asked once, however much comes meanwhile');
  assert.deepEqual(shown, [1]);
  assert.equal(s.page([message(2)], true), 2);
  assert.equal(s.page([message(3), message(4)], false), undefined);
  assert.deepEqual(shown, [1, 2, 3, 4, 5]);
});

test('a resync pages from the position', () => {
  const { stream: s } = stream(7);
  assert.equal(s.resync(), 7);
  assert.equal(s.resync(), undefined);
  assert.equal(s.page([message(8)], false), undefined);
  assert.equal(s.position.seq, 8);
});

test('after a cut it resumes below the held messages', () => {
  const { stream: s, shown } = stream(1, 2);
  s.message(message(5));
  s.cut();
  assert.deepEqual(s.position, { seq: 1, change: 2 });
  for (const seq of [2, 3, 4, 5]) s.message(message(seq));
  assert.deepEqual(shown, [2, 3, 4, 5]);
});

test('a reset forgets messages that are not stored, and shows the ones stored instead', () => {
  /** @type {number[]} */
  const shown = [];
  const s = new Stream({ seq: 1, change: 4, epoch: 'old' }, (each) => shown.push(each.seq));
  for (const seq of [2, 3, 4, 6]) s.message(message(seq));
  assert.equal(s.reset({ seq: 2, change: 3 }), true);
  s.epochIs('new');
  assert.deepEqual(s.position, { seq: 2, change: 3, epoch: 'new' });
  assert.equal(s.message(message(3)), undefined, 'nothing is held any more, so there is no gap');
  assert.deepEqual(shown, [2, 3, 4, 3]);
  assert.equal(s.reset({ seq: 7, change: 9 }), false, 'one that has less keeps what it has');
  assert.deepEqual(s.position, { seq: 3, change: 3, epoch: 'new' });
});

test('a message that was edited while held is shown as the page has it', () => {
  const { stream: s, shown } = stream(0);
  s.message(message(2));
  s.changed(1, 2);
  assert.equal(s.page([message(1), message(2)], false), undefined);
  assert.deepEqual(shown, [1, 2]);
  assert.deepEqual(s.position, { seq: 2, change: 1 });
});

test('held messages are bounded', () => {
  const { stream: s, shown } = stream(0);
  for (let seq = 2; seq < 5_000; seq += 1) s.message(message(seq));
  assert.equal(s.page([message(1)], false), undefined);
  assert.equal(shown.length, 1_001, 'the rest is asked for when the next message shows the gap');
  assert.equal(s.message(message(5_000)), 1_001);
});
