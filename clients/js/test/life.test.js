import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { between, operate, person, publish, token, Witness } from './harness/host.js';
import { Proxy } from './harness/proxy.js';

/** @type {Proxy} */
let proxy;
before(async () => {
  proxy = await Proxy.start();
});
after(() => proxy.end());

test('a token is renewed in place before it ends', async () => {
  const ana = person('ana');
  const tokens = [token(ana, { ttl: 20 }), token(ana)];
  const one = new Witness(ana, { url: `ws://${proxy.listen}/ws`, token: () => tokens.shift() ?? '' });
  await one.until('the second token', () => one.states.filter((state) => state.name === 'online').length === 2);
  const [first, second] = one.states.flatMap((state) => (state.name === 'online' ? [state.session] : []));
  assert.ok(Date.parse(second.expires_at) > Date.parse(first.expires_at));
  assert.equal(proxy.carried, 1, 'on the same connection');
});

test('a token provider that fails is called again', async () => {
  const ana = person('ana');
  let asked = 0;
  const one = new Witness(ana, {
    token: async () => {
      asked += 1;
      if (asked < 3) throw new Error('the provider is away');
      return token(ana);
    },
  });
  await one.becomes('online');
  assert.equal(asked, 3);
});

test('a token that is refused twice stops the client, with the reason; a new start may use another token', async () => {
  const ana = person('ana');
  const bad = token(ana, { secret: 'not the secret of this host' });
  const tokens = [bad, bad, bad];
  const one = new Witness(ana, { token: () => tokens.shift() ?? token(ana) });
  await one.becomes('stopped');
  assert.deepEqual(one.client.state, { name: 'stopped', end: { code: 4001, reason: 'the token was refused' } });
  one.client.start();
  await one.becomes('online');
});

test('a client that an operator disconnects does not reconnect by itself', async () => {
  const ana = person('ana');
  const one = new Witness(ana);
  await one.becomes('online');
  await operate('/disconnect', { user_id: ana });
  await one.becomes('stopped');
  const { state } = one.client;
  assert.equal(state.name === 'stopped' && state.end.code, 4003);
});

test('presence and typing arrive, and end', async () => {
  const [ana, bo] = [person('ana'), person('bo')];
  const room = await between(ana, bo);
  const one = new Witness(ana);
  one.client.watch([bo]);
  await one.client.follow(room);
  await one.until('bo away', () => one.heard.presence?.at(-1)?.status === 'offline');

  const other = new Witness(bo);
  await other.client.follow(room);
  // Bo was added by another person, and becomes visible with the first message.
  await other.client.send({ conversation_id: room, content: 'here' });
  await one.until('bo here', () => one.heard.presence?.at(-1)?.status === 'online');
  other.client.typing(room);
  other.client.typing(room);
  await one.until('bo typing', () => one.heard.typing?.at(-1)?.typing === true);
  await other.client.send({ conversation_id: room, content: 'done' });
  await one.until('bo done', () => one.heard.typing?.at(-1)?.typing === false);
  assert.deepEqual(one.heard.typing?.map(({ user_id, typing }) => [user_id, typing]), [[bo, true], [bo, false]]);

  other.client.stop();
  await one.until('bo gone', () => one.heard.presence?.at(-1)?.status === 'offline');
});

test('a topic is subscribed on every connection', async () => {
  const ana = person('ana');
  const topic = `match:${ana}`;
  const one = new Witness(ana, { url: `ws://${proxy.listen}/ws` });
  one.client.topics([topic]);
  const scores = () => one.heard.push?.filter((frame) => frame.type === 'match.update').map((frame) => frame.payload.score);
  for (const score of [1, 2]) {
    await one.becomes('online');
    // Its reply comes after that of the topics: frames of one connection are handled in order.
    await one.client.call('ping');
    await publish(topic, 'match.update', { score });
    await one.until('the score', () => scores()?.includes(score));
    proxy.cut();
    await one.becomes('waiting');
  }
  assert.deepEqual(scores(), [1, 2]);
});
