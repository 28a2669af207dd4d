"""Answers a request with a greeting."""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.http import Request, Response
from wit_world.imports import config, types

from rules import greeting


class Http(exports.Http):
    def handle(self, request: Request) -> Response:
        if (request.method, request.route) == ("GET", "/api/v1/{name}"):
            if request.caller is None:
                raise problem(401, "unauthorized", "a token is needed")
            word = config.get("greeting") or "hello"
            return answer(200, {"greeting": greeting(word, request.caller.user_id)})
        raise problem(500, "internal", "this handler does not answer the route")


def answer(status: int, body: object) -> Response:
    text = json.dumps(body, separators=(",", ":"))
    return Response(status, [("content-type", "application/json")], text.encode())


def problem(status: int, code: str, detail: str) -> Err:
    """The host sends a raised problem to the caller. With any other exception, the caller gets 500."""
    return Err(types.Problem(status, code, detail, None, None))
