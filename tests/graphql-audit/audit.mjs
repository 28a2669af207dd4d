// Runs the audits of graphql-http against a URL, as the bearer of a token, and prints what each found. What
// the specification leaves open (MAY) is printed and judged by nobody.

import { serverAudits } from 'graphql-http';

const [url] = process.argv.slice(2);
const token = process.env.SWITCHBOARD_TOKEN;
if (!url || !token) {
  console.error('usage: SWITCHBOARD_TOKEN=… node audit.mjs URL');
  process.exit(2);
}

const fetchFn = (input, init = {}) =>
  fetch(input, { ...init, headers: { ...init.headers, authorization: `Bearer ${token}` } });

const counts = {};
let failed = 0;
// One after the other, so that a figure never depends on how many a host takes at once.
for (const audit of serverAudits({ url, fetchFn })) {
  const result = await audit.fn();
  const word = audit.name.split(' ')[0];
  const passed = result.status === 'ok';
  counts[word] ??= { passed: 0, all: 0 };
  counts[word].all += 1;
  counts[word].passed += passed ? 1 : 0;
  if (!passed) {
    console.log(`${audit.id} ${audit.name}\n     ${result.reason}`);
    failed += word === 'MAY' ? 0 : 1;
  }
}
const line = Object.entries(counts).map(([word, { passed, all }]) => `${word} ${passed} of ${all}`);
console.log(line.join(', '));
process.exit(failed === 0 ? 0 : 1);
