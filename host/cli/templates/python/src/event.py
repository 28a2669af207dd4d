"""Logs a greeting for the sender of each message."""

import json

from wit_world import exports
from wit_world.exports import event as contract
from wit_world.exports.event import Verdict_Ack, Verdict_Reject
from wit_world.imports import config, log

from rules import greeting


class Event(exports.Event):
    def handle(self, events: list[contract.Event]) -> list[contract.Verdict]:
        word = config.get("greeting") or "hello"
        return [handle_one(one, word) for one in events]


def handle_one(one: contract.Event, word: str) -> contract.Verdict:
    """Handles one event. An event comes again until it is acknowledged, so handling it twice must be safe."""
    try:
        payload = json.loads(one.payload)
    except ValueError as error:
        return Verdict_Reject(str(error))
    sender = payload.get("sender_id") if isinstance(payload, dict) else None
    if not isinstance(sender, str):
        # Such an event can never be handled: park it for an operator.
        return Verdict_Reject("it has no sender_id")
    log.log(log.Level.INFO, greeting(word, sender), [])
    return Verdict_Ack()
