// Replies to messages that consist of a configured word, in the same conversation. It exports the interface
// of `wit/event.wit`. Each import has the name of its file in `wit/`.
import { get } from "switchboard:host/config@1.0.0";
import { publish } from "switchboard:host/channels@1.0.0";
import { log } from "switchboard:host/log@1.0.0";

const AGAIN_MS = 500;

export const event = {
  // Returns one verdict per event, in order. The host repeats an event until it is acknowledged. A reply that
  // is sent twice is harmless here.
  handle(events) {
    return events.map(one);
  },
};

function one({ payload }) {
  let conversation, message;
  try {
    ({ conversation_id: conversation, message } = JSON.parse(payload));
    if (typeof conversation !== "string" || typeof message?.content !== "string") throw new Error("not a message");
  } catch (error) {
    // A retry would fail too. The host parks the event, and operators see it.
    return { tag: "reject", val: String(error.message) };
  }
  const answer = answerTo(message, get("word") ?? "!hours", get("answer") ?? "");
  if (answer === undefined) return { tag: "ack" };
  const frame = JSON.stringify({
    type: "auto.reply",
    payload: { conversation_id: conversation, in_reply_to: message.id, content: answer },
  });
  try {
    publish([{ address: `conv:${conversation}`, frame, position: undefined, mergeKey: undefined, exceptUser: undefined }]);
    return { tag: "ack" };
  } catch (error) {
    const { tag, val } = error.payload ?? {};
    if (tag === "refused") return { tag: "reject", val };
    log("warn", "an answer waits", [["why", String(tag ?? error)]]);
    return { tag: "hold", val: AGAIN_MS };
  }
}

/** The reply to a message; undefined if there is none. */
export function answerTo(message, word, answer) {
  const asked = message.type === "text" && message.content.trim().toLowerCase() === word.toLowerCase();
  return asked && answer !== "" ? answer : undefined;
}
