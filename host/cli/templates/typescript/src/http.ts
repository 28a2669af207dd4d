// Answers a request with a greeting.
import { get } from "switchboard:host/config@1.0.0";
import type { Response } from "switchboard:host/http@1.0.0";
import type { Problem } from "switchboard:host/types@1.0.0";
import { greeting } from "./rules";

export const http: typeof import("switchboard:host/http@1.0.0") = {
  handle({ method, route, caller }) {
    if (method === "GET" && route === "/api/v1/{name}") {
      if (caller === undefined) throw problem(401, "unauthorized", "a token is needed");
      return json(200, { greeting: greeting(get("greeting") ?? "hello", caller.userId) });
    }
    throw problem(500, "internal", "this handler does not answer the route");
  },
};

function json(status: number, body: unknown): Response {
  const headers: Array<[string, string]> = [["content-type", "application/json"]];
  return { status, headers, body: new TextEncoder().encode(JSON.stringify(body)) };
}

// The host sends a thrown problem to the caller. Any other error is a trap, and the caller gets 500.
function problem(status: number, code: string, detail: string): Problem {
  return { status, code, detail };
}
