// Logs a greeting for the sender of each message.
import { get } from "switchboard:host/config@1.0.0";
import type { Event, Verdict } from "switchboard:host/event@1.0.0";
import { log } from "switchboard:host/log@1.0.0";
import { greeting } from "./rules";

export const event: typeof import("switchboard:host/event@1.0.0") = {
  handle(events) {
    const word = get("greeting") ?? "hello";
    return events.map((one) => handleOne(one, word));
  },
};

// Handles one event. An event comes again until it is acknowledged, so handling it twice must be safe.
function handleOne(one: Event, word: string): Verdict {
  let sender: unknown;
  try {
    sender = (JSON.parse(one.payload) as { sender_id?: unknown } | null)?.sender_id;
  } catch (error) {
    return { tag: "reject", val: String(error) };
  }
  // Such an event can never be handled: park it for an operator.
  if (typeof sender !== "string") return { tag: "reject", val: "it has no sender_id" };
  log("info", greeting(word, sender), []);
  return { tag: "ack" };
}
