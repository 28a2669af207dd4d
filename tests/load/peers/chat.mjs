// The part that both peers share: tokens, frames and the stored send. It speaks docs/protocol.md as far as
// the benchmark needs it: sign-in by the handshake, `ping`, `subscribe` without positions, `message.send`.
import { Buffer } from "node:buffer";
import { getRandomValues, timingSafeEqual } from "node:crypto";

// Connections to Postgres. More do not raise the rate on two cores.
export const POOL_CONNECTIONS = 16;
export const FRAME_BYTES_MAX = 64 * 1024;
const CONTENT_CHARACTERS_MAX = 2000;

// The settings, which the load passes in the environment.
export const settings = {
  database: process.env.PEER_DATABASE_URL,
  secret: process.env.PEER_JWT_SECRET,
};

// Tells the load the address, and ends when the load ends, because then this standard input ends.
export function announce(port) {
  process.stdout.write(`127.0.0.1:${port}\n`);
  process.stdin.on("end", () => process.exit(0)).resume();
}

// The claims of a valid token; undefined for any other. `hmac` is the HMAC-SHA256 under the secret.
export function claimsOf(authorization, hmac) {
  if (!authorization?.startsWith("Bearer ")) return undefined;
  const token = authorization.slice(7);
  const first = token.indexOf(".");
  const second = token.lastIndexOf(".");
  if (first <= 0 || second <= first || !isHs256(token.slice(0, first))) return undefined;
  const signature = Buffer.from(token.slice(second + 1), "base64url");
  const wanted = hmac(token.slice(0, second));
  if (signature.length !== wanted.length || !timingSafeEqual(signature, wanted)) return undefined;
  const claims = JSON.parse(Buffer.from(token.slice(first + 1, second), "base64url").toString());
  if (typeof claims.sub !== "string" || !(claims.exp * 1000 > Date.now())) return undefined;
  return claims;
}

// All tokens of one issuer have the same header, so it is parsed once.
let knownHeader;
function isHs256(header) {
  if (header === knownHeader) return true;
  if (JSON.parse(Buffer.from(header, "base64url").toString()).alg !== "HS256") return false;
  knownHeader = header;
  return true;
}

export function authSuccess(claims) {
  const expires = new Date(claims.exp * 1000).toISOString();
  return (
    `{"type":"auth.success","payload":{"user_id":${JSON.stringify(claims.sub)},"session_id":"${uuidv7()}",` +
    `"expires_at":"${expires}","heartbeat_ms":30000,"server_time":"${new Date().toISOString()}"}}`
  );
}

// Handles the frames of all connections. A connection is {user, reply(text), subscribe(room)};
// `publish(room, text)` reaches its subscribers. `sql` is a pool with tagged templates, each of which is a
// statement that is prepared once per connection.
export function chat(sql, publish) {
  // The members of each conversation in use. A send then needs no query for its permission.
  const conversations = new Map();

  async function membersOf(id) {
    const known = conversations.get(id);
    if (known) return known;
    const rows = await sql`select user_id from chat.members where conversation_id = ${id}`;
    const members = new Set(rows.map((row) => row.user_id));
    conversations.set(id, members);
    return members;
  }

  async function subscribe(connection, id, payload) {
    const heads = {};
    const refused = [];
    for (const conversation of payload.conversation_ids) {
      const members = await membersOf(conversation);
      if (!members.has(connection.user)) {
        refused.push({ id: conversation, code: "not_found" });
        continue;
      }
      // Subscribe first, so that no message is between the head and the first push.
      connection.subscribe(conversation);
      const [row] = await sql`select seq from chat.conversations where id = ${conversation}`;
      heads[conversation] = Number(row.seq);
    }
    const conversation_ids = Object.keys(heads);
    connection.reply(
      JSON.stringify({ type: "subscribed", id, payload: { conversation_ids, heads, changes: {}, refused } }),
    );
  }

  async function send(connection, id, { conversation_id: room, content }) {
    const members = conversations.get(room) ?? (await membersOf(room));
    if (!members.has(connection.user)) return refuse(connection, id, "not_found", false);
    if (typeof content !== "string" || content.length < 1 || content.length > CONTENT_CHARACTERS_MAX) {
      return refuse(connection, id, "invalid", false);
    }
    const message_id = uuidv7();
    const at = new Date();
    const created_at = at.toISOString();
    // One statement, one round trip. The row lock on the conversation lasts until COMMIT and orders the seqs.
    const rows = await sql`
      with head as (update chat.conversations set seq = seq + 1 where id = ${room} returning seq)
      insert into chat.messages (conversation_id, seq, id, sender_id, content, created_at)
      select ${room}::uuid, head.seq, ${message_id}::uuid, ${connection.user}::text, ${content}::text,
        ${created_at}::timestamptz
      from head
      returning seq`;
    const message =
      `{"id":"${message_id}","conversation_id":"${room}","seq":${rows[0].seq},"sender":null,` +
      `"sender_id":${connection.userJson},"type":"text","content":${JSON.stringify(content)},` +
      `"reply_to_id":null,"attachments":[],"metadata":null,"mentions":[],"client_msg_id":null,` +
      `"created_at":"${created_at}","edited_at":null,"deleted":false,"change":null}`;
    connection.reply(
      `{"type":"message.sent","id":${JSON.stringify(id)},"payload":{"message":${message},"duplicate":false}}`,
    );
    publish(room, `{"type":"message.new","payload":{"conversation_id":"${room}","message":${message}}}`);
  }

  // Handles one text frame.
  async function handle(connection, text) {
    const { type, id, payload } = JSON.parse(text);
    switch (type) {
      case "message.send":
        return send(connection, id, payload);
      case "subscribe":
        return subscribe(connection, id, payload);
      case "ping":
        return connection.reply(`{"type":"pong","id":${JSON.stringify(id)},"payload":{}}`);
      default:
        return refuse(connection, id, "malformed", false);
    }
  }
  // The load sends only valid frames. An error is a fault of the peer or of Postgres, and would make every
  // figure wrong, so the peer ends, and the load reports that.
  return (connection, text) =>
    handle(connection, text).catch((error) => {
      console.error(error);
      process.exit(1);
    });
}

function refuse(connection, id, code, retryable) {
  connection.reply(JSON.stringify({ type: "error", id, payload: { code, message: code, retryable } }));
}

// Random bytes for many ids at once: one call for each id would cost more than the rest of the id.
const random = Buffer.allocUnsafe(10 * 1024);
let used = random.length;

// An id that begins with the time.
function uuidv7() {
  if (used === random.length) {
    getRandomValues(random);
    used = 0;
  }
  const time = Date.now().toString(16).padStart(12, "0");
  const hex = random.toString("hex", used, used + 10);
  used += 10;
  const variant = "89ab"[random[used - 1] & 3];
  return (
    `${time.slice(0, 8)}-${time.slice(8)}-7${hex.slice(0, 3)}-` +
    `${variant}${hex.slice(3, 6)}-${hex.slice(6, 18)}`
  );
}
