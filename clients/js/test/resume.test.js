import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { between, person, rest, secondNode, sql, Witness } from './harness/host.js';
import { Proxy } from './harness/proxy.js';

/** @type {Proxy} */
let proxy;
before(async () => {
  proxy = await Proxy.start();
});
after(() => proxy.end());

/** Two clients; the second one's network breaks. */
async function two() {
  const [ana, bo] = [person('ana'), person('bo')];
  const room = await between(ana, bo);
  const [one, other] = [new Witness(ana), new Witness(bo, { url: `ws://${proxy.listen}/ws` })];
  const [{ seq }] = await Promise.all([one.client.follow(room), other.client.follow(room)]);
  return { room, one, other, seq };
}

/** @param {number} count */
function numbers(count, after = 0) {
  return Array.from({ length: count }, (_, n) => after + n + 1);
}

test('a network that is cut again and again loses, doubles and reorders nothing', async () => {
  const { room, one, other, seq } = await two();
  const said = numbers(60).map(async (n) => {
    await one.client.send({ conversation_id: room, content: `ana ${n}` });
    // Wait for progress, not for a time.
    if (n % 15 === 0) proxy.cut();
  });
  const answered = numbers(30).map((n) => other.client.send({ conversation_id: room, content: `bo ${n}` }));
  await Promise.all([...said, ...answered]);
  await Promise.all([one, other].map((each) => each.until('all of them', () => each.messages.length >= 90)));

  assert.deepEqual(other.seqs, numbers(90, seq));
  assert.deepEqual(one.seqs, numbers(90, seq));
  assert.deepEqual(other.texts.filter((text) => text.startsWith('bo')), numbers(30).map((n) => `bo ${n}`));
  assert.ok(other.states.some((state) => state.name === 'waiting' && state.end.code === 1006));
});

test('messages written without a network are sent when it is back, and so are marks', async () => {
  const { room, one, other } = await two();
  const first = await one.client.send({ conversation_id: room, content: 'are you there?' });
  await other.until('the question', () => other.messages.length === 1);
  proxy.close();
  await other.becomes('waiting');
  const sent = ['yes', 'I am'].map((content) => other.client.send({ conversation_id: room, content }));
  other.client.read(room, first.seq);
  assert.equal(other.client.unsent.length, 2);
  proxy.open();
  other.client.wake();
  await Promise.all(sent);
  await one.until('the answers', () => one.messages.length === 3);
  assert.deepEqual(one.texts, ['are you there?', 'yes', 'I am']);
  const receipt = () => one.heard.push?.some((frame) => frame.type === 'receipt.read' && frame.payload.up_to_seq >= first.seq);
  await one.until('the mark', receipt);
});

test('a lost frame is fetched from the history before a later one is shown', async () => {
  const { room, one, other } = await two();
  proxy.loses = (text) => text.includes('"message.new"') && text.includes('the second');
  for (const content of ['the first', 'the second', 'the third']) {
    await one.client.send({ conversation_id: room, content });
  }
  await other.until('all three', () => other.messages.length === 3);
  proxy.loses = () => false;
  assert.deepEqual(other.texts, ['the first', 'the second', 'the third']);
  assert.equal(other.states.filter((state) => state.name === 'online').length, 1, 'no reconnect was needed');
});

test('after more messages than the host sends by itself, the client pages to the end', async () => {
  const { room, one, other, seq } = await two();
  proxy.close();
  await other.becomes('waiting');
  const ana = rest(one.user);
  const count = 1_050;
  for (let from = 0; from < count; from += 50) {
    await Promise.all(numbers(50).map((n) => ana.post(`/conversations/${room}/messages`, { content: `${from + n}` })));
  }
  proxy.open();
  other.client.wake();
  await other.until('all of them', () => other.messages.length >= count);
  assert.deepEqual(other.seqs, numbers(count, seq));
  assert.ok(other.heard.push?.some((frame) => frame.type === 'resync'), 'the host said that it is too much');
});

test('messages that the servers lost are forgotten, and the ones stored instead are shown', async () => {
  const { room, one, other, seq } = await two();
  for (const content of ['kept', 'lost', 'lost too']) await one.client.send({ conversation_id: room, content });
  await other.until('all three', () => other.messages.length === 3);
  // Put the database back to an older state.
  await sql(`delete from app.messages where conversation_id = '${room}' and seq > ${seq + 1}; select switchboard.begin_epoch()`);
  await other.until('the reset', () => other.heard.reset?.length === 1);
  assert.deepEqual(other.heard.reset, [{ conversation_id: room, seq: seq + 1, change: 0 }]);
  const anew = await one.client.send({ conversation_id: room, content: 'anew' });
  assert.equal(anew.seq, seq + 2);
  await other.until('the new message', () => other.texts.at(-1) === 'anew');
  assert.deepEqual(other.seqs, [...numbers(3, seq), seq + 2]);
  // A client that was away meanwhile gets the reset when it resumes.
  const away = new Witness(one.user);
  await away.client.follow(room, { from: { seq: seq + 3, change: 0, epoch: '00000000-0000-7000-8000-000000000000' } });
  await away.until('the reset', () => away.heard.reset?.length === 1);
  await away.until('what is stored', () => away.texts.at(-1) === 'anew');
  assert.deepEqual(away.seqs, numbers(seq + 2));
});

test('the heartbeat detects a silent network', async () => {
  const { room, one, other } = await two();
  proxy.silence();
  await one.client.send({ conversation_id: room, content: 'can you hear me?' });
  await other.until('the silence', () => other.states.some((state) => state.name === 'waiting' && state.end.reason === 'no answer to a ping'));
  await other.until('the message', () => other.messages.length === 1);
});

test('a draining node sends its clients to another, and no message is missed', async () => {
  const node = await secondNode('127.0.0.22');
  const [ana, bo] = [person('ana'), person('bo')];
  const room = await between(ana, bo);
  const one = new Witness(ana);
  const scout = new Witness(person('scout'), { url: `ws://${node.listen}/ws` });
  await scout.becomes('online');
  scout.client.stop();
  const carried = proxy.carried;
  const other = new Witness(bo, { url: [`ws://${node.listen}/ws`, `ws://${proxy.listen}/ws`] });
  const [{ seq }] = await Promise.all([one.client.follow(room), other.client.follow(room)]);
  for (const n of numbers(10)) {
    await one.client.send({ conversation_id: room, content: `${n}` });
    if (n !== 5) continue;
    node.drain();
    await other.until('the end of the node', () => other.states.some((state) => state.name === 'waiting' && state.end.code === 1012));
  }
  await other.until('all of them', () => other.messages.length === 10);
  assert.deepEqual(other.seqs, numbers(10, seq));
  assert.ok(proxy.carried > carried, 'over the other address');
  await node.gone;
});
