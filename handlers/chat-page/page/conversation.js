/** The open conversation: its messages in order, the messages that are being sent, and who is typing. */

import { $, button, clock, element, paint } from './dom.js';

/** @typedef {import('/chat/client/index.js').Message} Message */
/** @typedef {import('/chat/client/index.js').Draft} Draft */

export class ConversationView {
  /** @type {Map<string, HTMLElement>} */
  #nodes = new Map();
  /** Messages that are not acknowledged yet, by key. @type {Map<string, HTMLElement>} */
  #pending = new Map();
  /** @type {Map<string, string>} */
  #typing = new Map();
  /** The highest seq that another participant has read. */
  #read = 0;
  /** The lowest shown seq. */
  first = Infinity;
  last = 0;

  /** @param {string} id @param {string} me */
  constructor(id, me) {
    this.id = id;
    this.me = me;
    $('messages').replaceChildren();
    $('pending').replaceChildren();
    $('earlier').hidden = true;
    $('typing').hidden = true;
  }

  /** Shows a message at its position. @param {Message} message */
  put(message) {
    const isDown = this.#isDown();
    const node = this.#message(message);
    const before = this.#nodes.get(message.id);
    if (before) before.replaceWith(node);
    else this.#insert(node, message.seq);
    this.#nodes.set(message.id, node);
    this.first = Math.min(this.first, message.seq);
    this.last = Math.max(this.last, message.seq);
    this.#group(node);
    if (message.sender_id === this.me && message.client_msg_id) this.dismiss(message.client_msg_id);
    if (isDown || message.sender_id === this.me) this.down();
  }

  /**
   * Shows a page of earlier messages. The visible messages keep their position on the screen.
   * @param {Message[]} messages
   * @param {boolean} hasMore
   */
  earlier(messages, hasMore) {
    const { scrollHeight, scrollTop } = $('scroll');
    for (const message of messages) this.put(message);
    $('earlier').hidden = !hasMore;
    $('scroll').scrollTop = scrollTop + $('scroll').scrollHeight - scrollHeight;
  }

  /**
   * Updates a message, if it is shown.
   * @param {import('/chat/client/index.js').Edited | import('/chat/client/index.js').Deleted} change
   */
  changed(change) {
    if (change.type === 'message.edited' && this.#nodes.has(change.message.id)) this.put(change.message);
    if (change.type === 'message.deleted') {
      const node = this.#nodes.get(change.message_id);
      node?.classList.add('deleted');
      node?.querySelector('.text')?.replaceChildren('deleted');
    }
  }

  /** Shows a message that is being sent. @param {Draft} draft */
  sending(draft) {
    const node = element('li', 'message mine sending first', element('span', 'text', draft.content), element('span', 'about', 'sending'));
    node.dataset.key = draft.client_msg_id;
    this.#pending.get(draft.client_msg_id)?.remove();
    this.#pending.set(draft.client_msg_id, node);
    $('pending').append(node);
    this.down();
  }

  /**
   * Marks a message that the host refused.
   * @param {string} key
   * @param {string} reason
   * @param {() => void} retry
   * @param {() => void} discard
   */
  failed(key, reason, retry, discard) {
    const node = this.#pending.get(key);
    if (!node) return;
    node.classList.replace('sending', 'failed');
    node.querySelector('.about')?.replaceChildren(`not sent: ${reason} `, button('Retry', retry), button('Discard', discard));
    this.down();
  }

  /** @param {string} key */
  dismiss(key) {
    this.#pending.get(key)?.remove();
    this.#pending.delete(key);
  }

  /** @param {number} seq */
  readByOther(seq) {
    this.#read = Math.max(this.#read, seq);
    for (const node of $('messages').querySelectorAll('.mine')) this.#mark(/** @type {HTMLElement} */ (node));
  }

  /** @param {string} user @param {string} name @param {boolean} typing */
  typing(user, name, typing) {
    const isDown = this.#isDown();
    if (typing) this.#typing.set(user, name);
    else this.#typing.delete(user);
    const names = [...this.#typing.values()];
    $('typing').hidden = names.length === 0;
    $('typing-who').textContent = names.length > 2 ? 'several people are typing' : `${names.join(' and ')} ${names.length > 1 ? 'are' : 'is'} typing`;
    if (isDown) this.down();
  }

  down() {
    $('scroll').scrollTop = $('scroll').scrollHeight;
  }

  #isDown() {
    const { scrollHeight, scrollTop, clientHeight } = $('scroll');
    return scrollHeight - scrollTop - clientHeight < 80;
  }

  /** @param {Message} message */
  #message(message) {
    const isMine = message.sender_id === this.me;
    if (message.type !== 'text') {
      const content = message.content || `${message.sender?.name ?? message.sender_id}: ${message.type}`;
      const notice = element('li', 'notice', content);
      notice.dataset.seq = String(message.seq);
      return notice;
    }
    const name = message.sender?.name ?? message.sender_id;
    const about = element('span', 'about', `${message.edited_at ? 'edited · ' : ''}${clock(message.created_at)}`);
    const node = element('li', 'message', element('span', 'text', message.deleted ? 'deleted' : message.content), about);
    node.classList.toggle('mine', isMine);
    node.classList.toggle('deleted', message.deleted);
    if (!isMine) node.prepend(paint(element('span', ''), name), element('span', 'name', name));
    else about.append(element('span', 'mark', ''));
    node.dataset.seq = String(message.seq);
    node.dataset.sender = message.sender_id;
    this.#mark(node);
    return node;
  }

  /** @param {HTMLElement} node */
  #mark(node) {
    const isRead = Number(node.dataset.seq) <= this.#read;
    const mark = node.querySelector('.mark');
    if (!mark) return;
    mark.textContent = isRead ? ' ✓✓' : ' ✓';
    mark.setAttribute('title', isRead ? 'read' : 'sent');
  }

  /** @param {HTMLElement} node @param {number} seq */
  #insert(node, seq) {
    let after = $('messages').lastElementChild;
    while (after && Number(/** @type {HTMLElement} */ (after).dataset.seq) > seq) after = after.previousElementSibling;
    if (after) after.after(node);
    else $('messages').prepend(node);
  }

  /** Only the first of consecutive messages of one sender shows the name. @param {HTMLElement} node */
  #group(node) {
    for (const each of [node, node.nextElementSibling]) {
      if (!(each instanceof HTMLElement)) continue;
      const before = /** @type {HTMLElement | null} */ (each.previousElementSibling);
      each.classList.toggle('first', before?.dataset.sender !== each.dataset.sender);
    }
  }
}
