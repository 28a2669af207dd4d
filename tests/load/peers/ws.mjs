// The peer on Node with ws. A push is encoded once, and the loop writes these bytes to every subscriber.
import { Buffer } from "node:buffer";
import { createHmac, createSecretKey } from "node:crypto";
import { createServer } from "node:http";
import postgres from "postgres";
import { Sender, WebSocketServer } from "ws";
import { POOL_CONNECTIONS, FRAME_BYTES_MAX, announce, authSuccess, chat, claimsOf, settings } from "./chat.mjs";

const sql = postgres(settings.database, { max: POOL_CONNECTIONS });
const key = createSecretKey(Buffer.from(settings.secret));
const hmac = (text) => createHmac("sha256", key).update(text).digest();

// The subscribers of each conversation.
const rooms = new Map();
const handle = chat(sql, (room, text) => {
  const shape = { fin: true, mask: false, opcode: 1, readOnly: false, rsv1: false };
  const frame = Buffer.concat(Sender.frame(Buffer.from(text), shape));
  for (const socket of rooms.get(room) ?? []) socket._sender.sendFrame([frame]);
});

class Connection {
  constructor(socket, claims) {
    this.socket = socket;
    this.user = claims.sub;
    this.userJson = JSON.stringify(claims.sub);
    this.rooms = [];
  }
  reply(text) {
    this.socket.send(text);
  }
  subscribe(room) {
    if (!rooms.has(room)) rooms.set(room, new Set());
    rooms.get(room).add(this.socket);
    this.rooms.push(room);
  }
  closed() {
    for (const room of this.rooms) {
      const subscribers = rooms.get(room);
      subscribers.delete(this.socket);
      if (subscribers.size === 0) rooms.delete(room);
    }
  }
}

const sockets = new WebSocketServer({
  clientTracking: false,
  maxPayload: FRAME_BYTES_MAX,
  noServer: true,
  perMessageDeflate: false,
});

const server = createServer((_, response) => response.writeHead(400).end());
server.on("upgrade", (request, stream, head) => {
  const claims = claimsOf(request.headers.authorization, hmac);
  if (!claims) return stream.end("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
  sockets.handleUpgrade(request, stream, head, (socket) => {
    const connection = new Connection(socket, claims);
    socket.on("message", (data) => handle(connection, data.toString()));
    socket.on("close", () => connection.closed());
    // A client that breaks off is no error of the peer; `close` follows.
    socket.on("error", () => {});
    socket.send(authSuccess(claims));
  });
});
server.listen({ host: "127.0.0.1", port: 0, backlog: 1024 }, () => announce(server.address().port));
