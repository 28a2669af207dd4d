// Answers the frame `{name}` with a greeting.
import { get } from "switchboard:host/config@1.0.0";
import type { Problem } from "switchboard:host/types@1.0.0";
import { greeting } from "./rules";

export const frame: typeof import("switchboard:host/frame@1.0.0") = {
  handle({ payload, caller }) {
    const given = JSON.parse(payload) as { name?: unknown } | null;
    const who = given?.name ?? caller.userId;
    if (typeof who !== "string") throw invalid("name", "name: is not a text");
    const answer = { greeting: greeting(get("greeting") ?? "hello", who) };
    return { frameType: "{name}.ok", payload: JSON.stringify(answer), subscriptions: [] };
  },
};

// The host sends a thrown problem to the client. Any other error is a trap, and the client gets `internal`.
function invalid(field: string, detail: string): Problem {
  return { status: 422, code: "invalid", detail, field };
}
