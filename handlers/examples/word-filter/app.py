"""Warns users who write an unwanted word. Only the user gets the warning.

The handler exports the interface `event` of `wit/`, and calls `channels`, `config` and `log`.
"""

import json
import re

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import channels, config, log
from wit_world.imports.channels import Error_Refused, Publication
from wit_world.exports import event as contract
from wit_world.exports.event import Verdict_Ack, Verdict_Hold, Verdict_Reject

AGAIN_MS = 500


class Event(exports.Event):
    def handle(self, events: list[contract.Event]) -> list[contract.Verdict]:
        words = unwanted(config.get("words") or "")
        return [one(event, words) for event in events]


def one(event: contract.Event, words: set[str]) -> contract.Verdict:
    try:
        created = json.loads(event.payload)
        message = created["message"]
        found = sorted(words & spoken(message["content"])) if message["type"] == "text" else []
        sender = message["sender_id"]
    except (ValueError, KeyError, TypeError) as error:
        # A retry would fail too. The host parks the event, and operators see it.
        return Verdict_Reject(f"not a message: {error!r}")
    if not found:
        return Verdict_Ack()
    payload = {"conversation_id": created["conversation_id"], "seq": created["seq"], "words": found}
    frame = json.dumps({"type": "word.warning", "payload": payload}, separators=(",", ":"))
    try:
        channels.publish([Publication(f"user:{sender}", frame, None, None, None)])
    except Err as error:
        if isinstance(error.value, Error_Refused):
            return Verdict_Reject(error.value.value)
        log.log(log.Level.WARN, "a warning waits", [("why", type(error.value).__name__)])
        return Verdict_Hold(AGAIN_MS)
    return Verdict_Ack()


def unwanted(setting: str) -> set[str]:
    return {word.strip().casefold() for word in setting.split(",") if word.strip()}


def spoken(text: str) -> set[str]:
    return {word.casefold() for word in re.findall(r"\w+", text)}
