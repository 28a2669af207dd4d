// Sends a greeting to every new connection.
import { get } from "switchboard:host/config@1.0.0";
import type { Problem } from "switchboard:host/types@1.0.0";
import { greeting } from "./rules";

export const connection: typeof import("switchboard:host/connection@1.0.0") = {
  open({ caller }) {
    const payload = { greeting: greeting(get("greeting") ?? "hello", caller.userId) };
    return [{ frame: JSON.stringify({ type: "{name}", payload }) }];
  },

  // The manifest does not bind the functions below, so the host does not call them.
  close() {},
  touched() {},
  missed() {
    const problem: Problem = { status: 500, code: "internal", detail: "this handler fills no gaps" };
    throw problem;
  },
};
