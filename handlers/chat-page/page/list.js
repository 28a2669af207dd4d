/** The list of conversations, sorted by their latest message. */

import { $, element, paint, when } from './dom.js';

/**
 * @typedef {import('/chat/client/index.js').Message} Message
 * @typedef {{
 *   id: string, type: string, name: string | null, unread: number, created_at: string,
 *   peer?: { user_id: string, user?: { name: string | null } },
 *   presence?: { status: string, last_seen?: string | null },
 *   last_message:
 *     { seq: number, sender_id: string, type: string, content: string, created_at: string } | null,
 *   participants?: { user_id: string, user?: { name: string | null } }[],
 * }} Conversation as REST returns it
 */

/** @param {Conversation} conversation */
export function nameOf(conversation) {
  const { name, peer } = conversation;
  return name ?? peer?.user?.name ?? peer?.user_id ?? 'Conversation';
}

export class List {
  /** @type {Map<string, Conversation>} */
  conversations = new Map();
  /** @type {string | undefined} */
  open;
  /** @type {Set<string>} */
  typing = new Set();

  /** @param {string} me @param {(id: string) => void} choose */
  constructor(me, choose) {
    this.me = me;
    this.choose = choose;
  }

  /** Replaces the list by that of the host. @param {Conversation[]} conversations */
  replace(conversations) {
    const open = this.open && this.conversations.get(this.open);
    this.conversations = new Map(conversations.map((each) => [each.id, each]));
    // The host's list may lag by a second, so it may lack a new conversation.
    if (open && !this.conversations.has(open.id)) this.conversations.set(open.id, open);
    if (this.open) this.seen(this.open);
    this.draw();
  }

  /**
   * Adds a conversation that was created on this page. It has participants, but lacks the fields of lists.
   * @param {Conversation} conversation
   */
  add(conversation) {
    if (this.conversations.has(conversation.id)) return;
    const peer = conversation.participants?.find((each) => each.user_id !== this.me);
    const created = { ...conversation, unread: 0, last_message: conversation.last_message ?? null };
    if (conversation.type === 'direct' && peer) created.peer = peer;
    this.conversations.set(created.id, created);
    this.draw();
  }

  /** @param {Message} message @param {boolean} isSeen */
  received(message, isSeen) {
    const conversation = this.conversations.get(message.conversation_id);
    if (!conversation || (conversation.last_message?.seq ?? 0) >= message.seq) return;
    conversation.last_message = message;
    if (isSeen || message.sender_id === this.me) conversation.unread = 0;
    else if (message.type === 'text') conversation.unread += 1;
    this.draw();
  }

  /** @param {string} id */
  seen(id) {
    const conversation = this.conversations.get(id);
    if (!conversation?.unread) return;
    conversation.unread = 0;
    this.draw();
  }

  /** @param {import('/chat/client/index.js').Presence} presence */
  present(presence) {
    for (const each of this.conversations.values()) {
      if (each.peer?.user_id === presence.user_id) each.presence = presence;
    }
    this.draw();
  }

  draw() {
    const latest = (/** @type {Conversation} */ each) => each.last_message?.created_at ?? each.created_at ?? '';
    const sorted = [...this.conversations.values()].sort((a, b) => (latest(a) < latest(b) ? 1 : -1));
    $('list').replaceChildren(...sorted.map((each) => this.#entry(each)));
    $('list-empty').hidden = sorted.length > 0;
    const unread = sorted.reduce((sum, each) => sum + each.unread, 0);
    document.title = unread > 0 ? `(${unread}) Switchboard` : 'Switchboard';
  }

  /** @param {Conversation} conversation */
  #entry(conversation) {
    const { id, last_message: last, unread, presence } = conversation;
    const avatar = element('span', 'face', paint(element('span', ''), nameOf(conversation)));
    if (presence) avatar.append(element('span', `dot ${presence.status}`));
    const isTyping = this.typing.has(id);
    const you = last?.sender_id === this.me && last.type === 'text' ? 'You: ' : '';
    const says = isTyping ? 'typing…' : last ? `${you}${last.content || '…'}` : 'No messages yet';
    const line = element('span', 'line', element('strong', '', nameOf(conversation)));
    if (last) line.append(element('time', '', when(last.created_at)));
    const below = element('span', 'line', element('small', isTyping ? 'is-typing' : '', says));
    if (unread > 0) below.append(element('span', 'badge', unread > 99 ? '99+' : String(unread)));
    const entry = element('button', unread > 0 ? 'entry is-unread' : 'entry', avatar, element('span', 'lines', line, below));
    entry.dataset.id = id;
    if (id === this.open) entry.setAttribute('aria-current', 'true');
    entry.addEventListener('click', () => this.choose(id));
    return element('li', '', entry);
  }
}
