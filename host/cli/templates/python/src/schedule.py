"""Logs a greeting once a minute."""

from wit_world import exports
from wit_world.exports.schedule import Tick
from wit_world.imports import config, log

from rules import greeting


class Schedule(exports.Schedule):
    def run(self, tick: Tick) -> None:
        log.log(log.Level.INFO, greeting(config.get("greeting") or "hello", tick.name), [])
