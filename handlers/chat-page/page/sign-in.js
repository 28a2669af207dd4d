/**
 * Signs in with a token. It comes from the fragment of the URL, which a browser never sends to a server,
 * or the user types it. The token stays in this tab.
 */

import { $, show } from './dom.js';

const KEY = 'switchboard.token';

/** Moves the token from the URL to the session storage, so that it is neither bookmarked nor shown. */
function takeFromUrl() {
  const token = new URLSearchParams(location.hash.slice(1)).get('token');
  if (!token) return;
  sessionStorage.setItem(KEY, token);
  history.replaceState(null, '', location.pathname);
}

export function token() {
  return sessionStorage.getItem(KEY) ?? '';
}

/**
 * The user id in a token. The host verifies the token; this page only shows the user id.
 * @param {string} token
 */
export function userOf(token) {
  try {
    const payload = token.split('.')[1].replaceAll('-', '+').replaceAll('_', '/');
    return String(JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(payload), (c) => c.charCodeAt(0)))).sub);
  } catch {
    return '';
  }
}

/** Signs in. Resolves with the user id. @param {string} [reason] why the former token does not count */
export function signIn(reason = '') {
  takeFromUrl();
  const known = userOf(token());
  if (known && !reason) return Promise.resolve(known);
  $('app').hidden = true;
  $('sign-in').hidden = false;
  /** @type {HTMLTextAreaElement} */ ($('sign-in-token')).value = '';
  show($('sign-in-reason'), reason);
  return new Promise((/** @type {(user: string) => void} */ resolve) => {
    $('sign-in').onsubmit = (event) => {
      event.preventDefault();
      const typed = /** @type {HTMLTextAreaElement} */ ($('sign-in-token')).value.trim();
      const user = userOf(typed);
      if (!user) return show($('sign-in-reason'), 'This token is not valid.');
      sessionStorage.setItem(KEY, typed);
      $('sign-in').hidden = true;
      resolve(user);
    };
  });
}

/** Deletes the token and all drafts of this tab. */
export function signOut() {
  sessionStorage.clear();
  location.reload();
}
