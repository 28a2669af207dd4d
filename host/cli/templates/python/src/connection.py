"""Sends a greeting to every new connection."""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.connection import Closed, Gap, Opened, Page, Touch
from wit_world.imports import config, types

from rules import greeting


class Connection(exports.Connection):
    def open(self, opened: Opened) -> list[types.Push]:
        payload = {"greeting": greeting(config.get("greeting") or "hello", opened.caller.user_id)}
        frame = json.dumps({"type": "{name}", "payload": payload}, separators=(",", ":"))
        return [types.Push(frame, None)]

    # The manifest does not bind the functions below, so the host does not call them.

    def close(self, closed: Closed) -> None:
        pass

    def touched(self, node: str, touches: list[Touch]) -> None:
        pass

    def missed(self, gap: Gap) -> Page:
        raise Err(types.Problem(500, "internal", "this handler fills no gaps", None, None))
