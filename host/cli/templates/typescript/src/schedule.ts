// Logs a greeting once a minute.
import { get } from "switchboard:host/config@1.0.0";
import { log } from "switchboard:host/log@1.0.0";
import { greeting } from "./rules";

export const schedule: typeof import("switchboard:host/schedule@1.0.0") = {
  run(tick) {
    log("info", greeting(get("greeting") ?? "hello", tick.name), []);
  },
};
