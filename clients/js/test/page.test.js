/** The chat page in Chromium: two people, each with a browser context, and a network that breaks. */

import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { after, before, test } from 'node:test';

import { chromium } from 'playwright-core';

import { between, listen, operate, person, rest, token } from './harness/host.js';
import { Proxy } from './harness/proxy.js';

const screenshots = process.env.SWITCHBOARD_SCREENSHOTS ?? 'screenshots';
const quiet = ['--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];

/** @type {import('playwright-core').Browser} */
let browser;
/** @type {Proxy} */
let proxy;
before(async () => {
  mkdirSync(screenshots, { recursive: true });
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: ['--no-sandbox', ...quiet] });
  proxy = await Proxy.start();
});
after(async () => {
  await browser?.close();
  proxy?.end();
});

/** Errors that a page logged. @type {string[]} */
const complaints = [];

/**
 * Somebody with the page open.
 * @param {string} user
 * @param {string} address
 * @param {import('playwright-core').BrowserContextOptions} [look]
 */
async function visitor(user, address, look = {}) {
  const context = await browser.newContext({ viewport: { width: 1100, height: 720 }, ...look });
  const page = await context.newPage();
  page.setDefaultTimeout(20_000);
  page.on('pageerror', (error) => complaints.push(`${user}: ${error}`));
  page.on('console', (said) => said.text().includes('Content Security Policy') && complaints.push(`${user}: ${said.text()}`));
  await page.goto(`http://${address}/chat#token=${token(user)}`);
  await page.locator('[data-state=online]').waitFor();
  return {
    page,
    /** @param {string} name */
    open: (name) => page.locator('.entry', { hasText: name }).click(),
    /** @param {string} text */
    write: (text) => page.locator('#text').fill(text),
    /** @param {string} text */
    say: async (text) => {
      await page.locator('#text').fill(text);
      await page.locator('#text').press('Enter');
    },
    /** @param {string} text */
    sees: (text) => page.locator('#messages .text', { hasText: text }).waitFor(),
    texts: () => page.locator('#messages .text').allTextContents(),
    /** @param {string} name */
    shot: (name) => page.screenshot({ path: `${screenshots}/${name}.png`, animations: 'disabled' }),
  };
}

test('two people write, see each other, and lose nothing when the network breaks', async () => {
  const [ana, bo, eve] = [person('ana'), person('bo'), person('eve')];
  for (const [user, name] of [[ana, 'Ana Lopes'], [bo, 'Bo Lindqvist'], [eve, 'Eve Adeyemi']]) {
    await rest(user).put('/users/me', { display_name: name });
  }
  const aside = await between(eve, ana);
  await rest(ana).post('/conversations', { type: 'group', name: 'Evening course', members: [bo, eve] });

  const one = await visitor(ana, listen);
  assert.equal(new URL(one.page.url()).hash, '', 'the token is out of the address');
  const other = await visitor(bo, proxy.listen);

  // A conversation begun on one page appears on the other without a reload.
  await one.page.locator('#begin-with').fill(bo);
  await one.page.locator('#begin-with').press('Enter');
  await one.page.locator('#room-name', { hasText: 'Bo Lindqvist' }).waitFor();
  await one.say('Are you there? <b>No markup</b>, please.');
  await other.open('Ana Lopes');
  await other.sees('Are you there? <b>No markup</b>, please.');

  // Typing is visible in the room and in the list, and ends with the message.
  await other.write('I am');
  await one.page.locator('#typing-who', { hasText: 'Bo Lindqvist is typing' }).waitFor();
  await one.shot('typing');
  await other.say('I am! The lesson begins at eight.');
  await one.sees('I am! The lesson begins at eight.');
  await one.page.locator('#typing').waitFor({ state: 'hidden' });
  // Both have taken part now, so each sees the presence of the other.
  await one.page.locator('#room-state.online').waitFor();
  await other.page.locator('#room-state.online').waitFor();
  await one.page.locator('.mine .mark[title=read]').waitFor();

  // A message in another conversation is unread until the person looks at it.
  await rest(eve).post(`/conversations/${aside}/messages`, { content: 'Do you have the slides?' });
  await one.page.locator('.entry', { hasText: 'Eve' }).locator('.badge', { hasText: '1' }).waitFor();
  await one.shot('unread');

  // Bo loses the network: his messages wait, and so do messages to him.
  proxy.close();
  await other.page.locator('#banner').waitFor();
  await other.say('I lost you for a moment.');
  await other.page.locator('.sending', { hasText: 'I lost you' }).waitFor();
  await other.shot('offline');
  await one.say('Still here.');
  await one.say('Say when you are back.');
  // The attempt fails without harm; the client reconnects by itself.
  await other.page.locator('#banner-now').click();
  proxy.open();
  await other.page.locator('#banner').waitFor({ state: 'hidden' });
  await other.sees('Say when you are back.');
  await one.sees('I lost you for a moment.');
  await other.page.locator('.sending').waitFor({ state: 'detached' });
  assert.deepEqual(await other.texts(), await one.texts(), 'the same, in the same order, once');
  await other.shot('resumed');

  // A refused message is shown, can be tried again, and disappears when the person discards it.
  await one.page.locator('#text').evaluate((field) => field.removeAttribute('maxlength'));
  await one.say('No breath. '.repeat(200));
  await one.page.locator('.failed .about', { hasText: 'not sent' }).waitFor();
  await one.shot('failed');
  await one.page.locator('.failed button', { hasText: 'Discard' }).click();
  await one.page.locator('.failed').waitFor({ state: 'detached' });

  await one.open('Evening course');
  await one.page.locator('#room-name', { hasText: 'Evening course' }).waitFor();
  await one.say('Good evening, all.');
  await one.sees('Good evening, all.');
  await one.shot('group');

  // A reload shows the same.
  await other.page.reload();
  await other.open('Ana Lopes');
  await other.sees('Say when you are back.');
  assert.deepEqual(complaints, []);

  // The other person's departure is visible.
  await other.page.close();
  await one.open('Bo Lindqvist');
  await one.page.locator('#room-state.offline').waitFor();
});

test('a small dark screen shows one view at a time', async () => {
  const [ana, bo] = [person('ana'), person('bo')];
  const room = await between(bo, ana);
  await rest(bo).post(`/conversations/${room}/messages`, { content: 'Which room is it?' });
  const one = await visitor(ana, listen, { viewport: { width: 390, height: 760 }, colorScheme: 'dark' });
  await one.page.locator('.badge').waitFor();
  await one.shot('small-list');
  await one.open(bo);
  await one.say('The second on the left.');
  await one.sees('The second on the left.');
  await one.shot('small-room');
  await one.page.locator('#back').click();
  await one.page.locator('#list').waitFor();
});

test('without a token the page asks for one, and refuses a bad one', async () => {
  const context = await browser.newContext({ viewport: { width: 1100, height: 720 } });
  const page = await context.newPage();
  await page.goto(`http://${listen}/chat`);
  await page.locator('#sign-in').waitFor();
  await page.locator('#sign-in-token').fill(token(person('ana'), { secret: 'not the secret of this host' }));
  await page.locator('#sign-in button').click();
  await page.locator('#sign-in-reason', { hasText: 'refused' }).waitFor();
  await page.screenshot({ path: `${screenshots}/sign-in.png` });
  await page.locator('#sign-in-token').fill(token(person('ana')));
  await page.locator('#sign-in button').click();
  await page.locator('[data-state=online]').waitFor();
});

test('a person whom an operator disconnects sees that, and may reconnect', async () => {
  const ana = person('ana');
  const one = await visitor(ana, listen);
  await operate('/disconnect', { user_id: ana });
  await one.page.locator('#banner-text', { hasText: 'You were disconnected' }).waitFor();
  await one.page.locator('#banner-now').click();
  await one.page.locator('#banner').waitFor({ state: 'hidden' });
  await one.page.locator('[data-state=online]').waitFor();
});
