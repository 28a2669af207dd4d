/** Who is here: the token out of the fragment, which never reaches a server, or typed in. It stays in this tab. */

import { $, say } from './dom.js';

const KEY = 'switchboard.token';

/** Takes the token out of the address, so that it is neither bookmarked nor shown. */
function fromAddress() {
  const token = new URLSearchParams(location.hash.slice(1)).get('token');
  if (!token) return;
  sessionStorage.setItem(KEY, token);
  history.replaceState(null, '', location.pathname);
}

export function token() {
  return sessionStorage.getItem(KEY) ?? '';
}

/** The user of a token, which the host verifies and this page only shows. @param {string} token */
export function userOf(token) {
  try {
    const payload = token.split('.')[1].replaceAll('-', '+').replaceAll('_', '/');
    return String(JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(payload), (c) => c.charCodeAt(0)))).sub);
  } catch {
    return '';
  }
}

/** Resolves with somebody's id. @param {string} [reason] why they stand outside */
export function enter(reason = '') {
  fromAddress();
  const known = userOf(token());
  if (known && !reason) return Promise.resolve(known);
  $('app').hidden = true;
  $('door').hidden = false;
  /** @type {HTMLTextAreaElement} */ ($('door-token')).value = '';
  say($('door-reason'), reason);
  return new Promise((/** @type {(user: string) => void} */ resolve) => {
    $('door').onsubmit = (event) => {
      event.preventDefault();
      const typed = /** @type {HTMLTextAreaElement} */ ($('door-token')).value.trim();
      const user = userOf(typed);
      if (!user) return say($('door-reason'), 'This is no token.');
      sessionStorage.setItem(KEY, typed);
      $('door').hidden = true;
      resolve(user);
    };
  });
}

export function leave() {
  sessionStorage.clear();
  location.reload();
}
