// Reads /admin/v1 every few seconds and shows it as text, never as markup. It changes nothing.
"use strict";

const EVERY_MS = 2000;
const at = (id) => document.getElementById(id);
let token = "";
let timer = 0;

at("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token = at("token").value.trim();
  at("token").value = "";
  at("refusal").textContent = "";
  refresh();
});

at("sign-out").addEventListener("click", () => signOut(""));

function signOut(why) {
  token = "";
  clearTimeout(timer);
  at("refusal").textContent = why;
  at("summary").textContent = "";
  show(false);
}

function show(fleet) {
  at("sign-in").hidden = fleet;
  at("fleet").hidden = !fleet;
  at("sign-out").hidden = !fleet;
}

async function request(path) {
  const answer = await fetch(path, { headers: { authorization: `Bearer ${token}` }, cache: "no-store" });
  const body = await answer.json();
  if (!answer.ok && path.startsWith("/admin")) throw Object.assign(new Error(body.detail), { status: answer.status });
  return body;
}

async function refresh() {
  clearTimeout(timer);
  try {
    const [ready, nodes, releases, consumers, events, audit] = await Promise.all([
      "/readyz", "/admin/v1/nodes", "/admin/v1/releases?current=true", "/admin/v1/consumers",
      "/admin/v1/events?state=failed", "/admin/v1/audit?limit=20",
    ].map(request));
    if (!token) return;
    show(true);
    summarise(ready, nodes.nodes);
    showNodes(nodes);
    showReleases(releases.releases, nodes.nodes);
    showConsumers(consumers.consumers);
    showEvents(events.events);
    showAudit(audit.audit);
  } catch (error) {
    if (!token) return;
    if (error.status === 401 || error.status === 403) return signOut(error.message);
    if (at("fleet").hidden) return signOut(error.message);
    at("summary").textContent = `No answer: ${error.message}`;
    at("summary").className = "bad";
  }
  timer = setTimeout(refresh, EVERY_MS);
}

function summarise(ready, nodes) {
  const live = nodes.filter((node) => node.live);
  const connections = live.reduce((sum, node) => sum + node.connections, 0);
  const wrong = Object.entries(ready.checks).filter(([, reason]) => reason !== "ok");
  const state = wrong.length ? wrong.map(([name, reason]) => `${name}: ${reason}`).join("; ") : "ready";
  at("summary").textContent = `${live.length} of ${nodes.length} nodes live, ${connections} connections; this node is ${state}`;
  at("summary").className = wrong.length ? "bad" : "";
}

function showNodes({ nodes, self }) {
  table("nodes", ["node", "admin address", "version", "since", "connections", "state"], nodes.map((node) => [
    code(short(node.id) + (node.id === self ? " (this)" : "")), code(node.address), node.version, node.started_at,
    number(node.connections), node.live ? mark("live", "good") : mark(`silent for ${Math.round(node.heartbeat_age_ms / 1000)} s`, "bad"),
  ]), "no node");
}

function showReleases(releases, nodes) {
  const live = nodes.filter((node) => node.live);
  table("releases", ["handler", "release", "by", "at", "note", "nodes"], releases.map((release) => {
    const behind = live.filter((node) => !node.handlers.some((h) => h.handler === release.handler && h.release === release.release && !h.error));
    const reasons = behind.map((node) => {
      const report = node.handlers.find((h) => h.handler === release.handler);
      return `${node.address}: ${report?.error ?? "not yet"}`;
    });
    return [release.handler, code(short(release.release)), release.by, release.at, release.note ?? "",
      behind.length ? mark(reasons.join("; "), "bad") : mark(`all ${live.length}`, "good")];
  }), "no release runs");
}

function showConsumers(consumers) {
  table("consumers", ["consumer", "behind", "retries", "failed"], consumers.map((one) => [
    one.consumer, number(one.behind), number(one.retries), one.failed ? mark(String(one.failed), "bad") : number(0),
  ]), "no consumer");
}

function showEvents(events) {
  table("events", ["event", "type", "key", "consumer", "attempts", "error"], events.map((event) => [
    code(event.id), event.event_type ?? event.type ?? "", code(event.key ?? ""), event.consumer, number(event.attempts ?? 0), mark(event.error ?? "", "bad"),
  ]), "none");
}

function showAudit(entries) {
  table("audit", ["at", "who", "role", "action", "on", "outcome"], entries.map((entry) => [
    entry.at, entry.who, entry.role, code(entry.action), entry.detail ?? "",
    entry.outcome === "done" ? mark("done", "good") : mark(entry.outcome ?? "started", "bad"),
  ]), "none yet");
}

function table(id, heads, rows, none) {
  const head = element("tr", heads.map((text) => element("th", [text])));
  const body = rows.length
    ? rows.map((cells) => element("tr", cells.map((cell) => (cell instanceof Node ? cell : element("td", [String(cell)])))))
    : [element("tr", [mark(none, "none")])];
  at(id).replaceChildren(element("thead", [head]), element("tbody", body));
}

function element(name, children, style) {
  const made = document.createElement(name);
  if (style) made.className = style;
  made.append(...children);
  return made;
}

const code = (text) => element("td", [text], "code");
const number = (value) => element("td", [String(value)], "number");
const mark = (text, style) => element("td", [text], style);
const short = (id) => String(id).replace("sha256:", "").slice(0, 12);
