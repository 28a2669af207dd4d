/** The chat page. It shows what `/chat/client` receives, and sends what the user writes. */

import { Client, newKey, Rest } from '/chat/client/index.js';

import { ConversationView } from './conversation.js';
import { $, paint, show } from './dom.js';
import { List, nameOf } from './list.js';
import { signIn, signOut, token } from './sign-in.js';

const PAGE = 50;
const UNSENT = 'switchboard.unsent';

const me = await signIn();
const rest = new Rest({ token });
const client = new Client({ url: `${location.origin.replace(/^http/, 'ws')}/ws`, token });
const list = new List(me, open);
/** @type {ConversationView | undefined} */
let room;
/** @type {Map<string, string>} */
const names = new Map();

$('app').hidden = false;
paint($('me-avatar'), me);
$('me-name').textContent = me;

// ---- events of the client

client.on('state', (state) => {
  const text = { idle: '', connecting: 'connecting', online: 'online', waiting: 'offline', stopped: 'offline' }[state.name];
  $('me-state').textContent = text;
  document.body.dataset.state = state.name;
  if (state.name === 'online') {
    banner('');
    void refresh();
    void showOwnName();
  }
  if (state.name === 'waiting') banner('Connection lost. Your messages will be sent when it is restored.');
  if (state.name === 'stopped' && state.end.code === 4001) void signIn('The token was refused or has expired.').then(() => location.reload());
  else if (state.name === 'stopped') banner(`You were disconnected: ${state.end.reason}.`);
});
client.on('message', (message) => {
  names.set(message.sender_id, message.sender?.name ?? message.sender_id);
  const isOpen = room?.id === message.conversation_id;
  if (isOpen) room?.put(message);
  list.received(message, isOpen && !document.hidden);
  if (isOpen) look();
});
client.on('changed', (change) => room?.id === change.conversation_id && room.changed(change));
// The servers lost messages that this page has shown, so it reloads. Drafts are kept.
client.on('reset', () => location.reload());
client.on('presence', (presence) => {
  list.present(presence);
  head();
});
client.on('typing', ({ conversation_id, user_id, typing }) => {
  if (user_id === me) return;
  if (typing) list.typing.add(conversation_id);
  else list.typing.delete(conversation_id);
  list.draw();
  if (room?.id === conversation_id) room.typing(user_id, names.get(user_id) ?? user_id, typing);
});
client.on('elsewhere', () => void refresh());
client.on('refused', ({ conversation_id }) => {
  list.conversations.delete(conversation_id);
  list.draw();
});
client.on('push', ({ type, payload }) => {
  if (type === 'receipt.read' && payload.user_id === me) list.seen(payload.conversation_id);
  if (type === 'receipt.read' && payload.user_id !== me && room?.id === payload.conversation_id) room?.readByOther(payload.up_to_seq);
  if (type === 'resync' || type === 'conversation.updated' || (type.startsWith('member.') && type !== 'member.changes')) void refresh();
});
// Drafts are stored in this tab, so a reload loses no message that was not acknowledged.
client.on('unsent', (drafts) => sessionStorage.setItem(UNSENT, JSON.stringify(drafts)));

// ---- actions

/** Loads the list from the host, and follows its conversations. */
async function refresh() {
  const { conversations } = await rest.get('/conversations?limit=100').catch(() => ({ conversations: undefined }));
  // The page is offline. The next connection loads the list again.
  if (!conversations) return;
  const known = new Set(list.conversations.keys());
  list.replace(conversations);
  for (const each of list.conversations.values()) {
    known.delete(each.id);
    if (each.peer) names.set(each.peer.user_id, nameOf(each));
    client.follow(each.id).catch(() => {});
  }
  for (const id of known) client.unfollow(id);
  client.watch([...list.conversations.values()].flatMap((each) => each.peer?.user_id ?? []));
  head();
}

/** Shows the user's display name; the user id if there is none. */
async function showOwnName() {
  const { user } = await rest.get('/users/me').catch(() => ({ user: undefined }));
  const name = user?.display_name ?? me;
  $('me-name').textContent = name;
  paint($('me-avatar'), name);
}

/** @param {string} id */
async function open(id) {
  list.open = id;
  list.draw();
  const opened = (room = new ConversationView(id, me));
  $('nothing').hidden = true;
  $('room').hidden = false;
  document.body.classList.add('in-room');
  for (const draft of client.unsent) if (draft.conversation_id === id) opened.sending(draft);
  head();
  $('text').focus();
  // The page follows the conversation before it loads the history, so it misses no message in between. A
  // message that arrives twice is shown once.
  await client.follow(id).catch(() => {});
  const page = await client.history(id, { limit: PAGE }).catch(() => undefined);
  if (room !== opened || !page) return;
  opened.earlier(page.messages, page.has_more);
  opened.down();
  look();
}

/** Reports that the user sees the open conversation. */
function look() {
  const isSeen = room && !document.hidden;
  client.focus(isSeen ? (room?.id ?? null) : null);
  if (!room || !isSeen || room.last === 0) return;
  client.read(room.id, room.last);
  list.seen(room.id);
}

/** @param {import('/chat/client/index.js').Draft} draft */
function send(draft) {
  if (room?.id === draft.conversation_id) room.sending(draft);
  client.send(draft).catch((error) => {
    // An operator disconnected the user. The message waits for the next start.
    if (error.code === 'stopped') return send(draft);
    const here = room?.id === draft.conversation_id ? room : undefined;
    here?.failed(draft.client_msg_id, error.message, () => send(draft), () => here.dismiss(draft.client_msg_id));
  });
}

function head() {
  const conversation = room && list.conversations.get(room.id);
  if (!conversation) return;
  $('room-name').textContent = nameOf(conversation);
  paint($('room-avatar'), nameOf(conversation));
  $('room-state').textContent = conversation.presence?.status ?? conversation.type;
  $('room-state').className = conversation.presence?.status ?? '';
}

/** @param {string} text */
function banner(text) {
  $('banner').hidden = text === '';
  $('banner-text').textContent = text;
}

// ---- input of the user

const text = /** @type {HTMLTextAreaElement} */ ($('text'));

function grow() {
  text.rows = Math.min(6, text.value.split('\n').length);
}

$('composer').addEventListener('submit', (event) => {
  event.preventDefault();
  const content = text.value.trim();
  if (!content || !room) return;
  send({ conversation_id: room.id, content, client_msg_id: newKey() });
  text.value = '';
  grow();
});
text.addEventListener('keydown', (event) => {
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  /** @type {HTMLFormElement} */ ($('composer')).requestSubmit();
});
text.addEventListener('input', () => {
  grow();
  if (room) client.typing(room.id, text.value === '' ? 'stop' : 'start');
});
$('begin').addEventListener('submit', async (event) => {
  event.preventDefault();
  const field = /** @type {HTMLInputElement} */ ($('begin-with'));
  const members = field.value.split(',').map((name) => name.trim()).filter(Boolean);
  if (members.length === 0) return;
  const wanted = members.length === 1 ? { type: 'direct', members } : { type: 'group', name: members.join(', '), members };
  try {
    const { conversation } = await rest.post('/conversations', wanted);
    show($('begin-error'), '');
    field.value = '';
    list.add(conversation);
    await open(conversation.id);
    await refresh();
  } catch (error) {
    show($('begin-error'), /** @type {Error} */ (error).message);
  }
});
$('earlier').addEventListener('click', async () => {
  const asked = room;
  const page = asked && (await client.history(asked.id, { before_seq: asked.first, limit: PAGE }).catch(() => undefined));
  if (page && room === asked) asked.earlier(page.messages, page.has_more);
});
$('back').addEventListener('click', () => {
  room = list.open = undefined;
  $('room').hidden = true;
  $('nothing').hidden = false;
  document.body.classList.remove('in-room');
  list.draw();
  look();
});
$('banner-now').addEventListener('click', () => (client.state.name === 'stopped' ? client.start() : client.wake()));
$('sign-out').addEventListener('click', signOut);
document.addEventListener('visibilitychange', () => {
  if (!document.hidden) client.wake();
  look();
});
addEventListener('online', () => client.wake());

const kept = JSON.parse(sessionStorage.getItem(UNSENT) ?? '[]');
client.start();
for (const draft of kept) send(draft);
