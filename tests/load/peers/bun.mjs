// The peer on Bun, whose server is uWebSockets and whose Postgres client is native. The server itself
// publishes: one call encodes the frame once and writes it to every subscriber.
import { POOL_CONNECTIONS, FRAME_BYTES_MAX, announce, authSuccess, chat, claimsOf, settings } from "./chat.mjs";

const sql = new Bun.SQL({ url: settings.database, max: POOL_CONNECTIONS, idleTimeout: 0, bigint: false });
// It costs a third of an HMAC of node:crypto with a key object.
const hmac = (text) => new Bun.CryptoHasher("sha256", settings.secret).update(text).digest();
const handle = chat(sql, (room, text) => server.publish(room, text));

class Connection {
  constructor(claims) {
    this.claims = claims;
    this.user = claims.sub;
    this.userJson = JSON.stringify(claims.sub);
    this.socket = undefined;
  }
  reply(text) {
    this.socket.send(text);
  }
  subscribe(room) {
    this.socket.subscribe(room);
  }
}

const server = Bun.serve({
  hostname: "127.0.0.1",
  port: 0,
  fetch(request, server) {
    const claims = claimsOf(request.headers.get("authorization"), hmac);
    if (!claims) return new Response(null, { status: 401 });
    if (server.upgrade(request, { data: new Connection(claims) })) return undefined;
    return new Response(null, { status: 400 });
  },
  websocket: {
    maxPayloadLength: FRAME_BYTES_MAX,
    idleTimeout: 960,
    perMessageDeflate: false,
    open(socket) {
      socket.data.socket = socket;
      socket.send(authSuccess(socket.data.claims));
      socket.data.claims = undefined;
    },
    message(socket, text) {
      handle(socket.data, text);
    },
  },
});

announce(server.port);
