"""Answers the frame `{name}` with a greeting."""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.frame import Reply, Request
from wit_world.imports import config, types

from rules import greeting


class Frame(exports.Frame):
    def handle(self, request: Request) -> Reply | None:
        payload = json.loads(request.payload)
        given = payload.get("name") if isinstance(payload, dict) else None
        who = request.caller.user_id if given is None else given
        if not isinstance(who, str):
            # The host sends a raised problem to the client. Any other exception is a trap.
            raise Err(types.Problem(422, "invalid", "name: is not a text", "name", None))
        answer = {"greeting": greeting(config.get("greeting") or "hello", who)}
        return Reply("{name}.ok", json.dumps(answer, separators=(",", ":")), [])
