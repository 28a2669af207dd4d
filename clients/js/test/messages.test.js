import assert from 'node:assert/strict';
import { test } from 'node:test';

import { between, person, Witness } from './harness/host.js';

test('both people get each message once and in order', async () => {
  const [ana, bo] = [person('ana'), person('bo')];
  const room = await between(ana, bo);
  const [one, other] = [new Witness(ana), new Witness(bo)];
  await Promise.all([one.client.follow(room), other.client.follow(room)]);

  const texts = Array.from({ length: 20 }, (_, n) => `message ${n}`);
  const sent = await Promise.all(texts.map((content) => one.client.send({ conversation_id: room, content })));
  await Promise.all([one, other].map((each) => each.until('all of them', () => each.messages.length === 20)));

  assert.deepEqual(other.texts, texts);
  assert.deepEqual(other.seqs, sent.map((message) => message.seq));
  assert.deepEqual(one.messages, other.messages);
  assert.equal(one.client.unsent.length, 0);
});

test('a key makes one message, however often it is sent', async () => {
  const [ana, bo] = [person('ana'), person('bo')];
  const room = await between(ana, bo);
  const one = new Witness(ana);
  await one.client.follow(room);
  const draft = { conversation_id: room, content: 'once', client_msg_id: 'k-1' };
  const [first, second] = await Promise.all([one.client.send(draft), one.client.send(draft)]);
  assert.equal(first.id, second.id);
  await one.client.send({ conversation_id: room, content: 'after' });
  await one.until('the one after', () => one.texts.includes('after'));
  assert.deepEqual(one.texts, ['once', 'after']);
});

test('edits and deletions are reported, and move the position', async () => {
  const [ana, bo] = [person('ana'), person('bo')];
  const room = await between(ana, bo);
  const [one, other] = [new Witness(ana), new Witness(bo)];
  await Promise.all([one.client.follow(room), other.client.follow(room)]);
  const message = await one.client.send({ conversation_id: room, content: 'helo' });
  await one.client.call('message.edit', { conversation_id: room, message_id: message.id, content: 'hello' });
  await one.client.call('message.delete', { conversation_id: room, message_id: message.id });
  await other.until('both changes', () => other.heard.changed?.length === 2);
  assert.deepEqual(other.heard.changed?.map((change) => change.type), ['message.edited', 'message.deleted']);
  const { epoch, ...position } = other.client.position(room) ?? { seq: 0, change: 0 };
  assert.deepEqual(position, { seq: message.seq, change: 2 });
  assert.ok(epoch, 'the host tells which history positions are of');
});

test('messages of an absence arrive, also for a conversation that is not followed', async () => {
  const [ana, bo] = [person('ana'), person('bo')];
  const room = await between(ana, bo);
  const one = new Witness(ana);
  await one.client.send({ conversation_id: room, content: 'while you were away' });
  const other = new Witness(bo);
  await other.until('what was said', () => other.heard.elsewhere?.length === 1);
  assert.equal(other.heard.elsewhere?.[0].message.content, 'while you were away');
  assert.deepEqual(other.messages, []);
});

test('a refused message fails with the code of the host, and later messages go on', async () => {
  const [ana, bo, eve] = [person('ana'), person('bo'), person('eve')];
  const room = await between(ana, bo);
  const one = new Witness(ana);
  const stranger = new Witness(eve);
  await one.client.follow(room);

  await assert.rejects(stranger.client.follow(room), { code: 'not_found' });
  await assert.rejects(stranger.client.send({ conversation_id: room, content: 'hi' }), { code: 'not_found' });
  await assert.rejects(one.client.send({ conversation_id: room, content: '' }), { code: 'invalid' });
  await assert.rejects(one.client.send({ conversation_id: room, content: 'x'.repeat(70_000) }), { code: 'too_large' });
  await one.client.send({ conversation_id: room, content: 'still here' });
  await one.until('the message', () => one.texts.includes('still here'));
  assert.equal(one.states.filter((state) => state.name === 'online').length, 1, 'one connection is enough for all of it');
});

test('a message beyond the bound is refused at once, and waiting ones fail when the client stops', async () => {
  const [ana, bo] = [person('ana'), person('bo')];
  const room = await between(ana, bo);
  const one = new Witness(ana, { unsentMax: 2, url: 'ws://127.0.0.1:9/ws' });
  const waiting = ['a', 'b'].map((content) => one.client.send({ conversation_id: room, content }));
  await assert.rejects(one.client.send({ conversation_id: room, content: 'c' }), { code: 'full' });
  assert.deepEqual(one.client.unsent.map((draft) => draft.content), ['a', 'b']);
  one.client.stop();
  for (const each of waiting) await assert.rejects(each, { code: 'stopped' });
});
