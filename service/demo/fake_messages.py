"""What the stand-in for Claude sends back, act by act, and what it does not accept."""

from __future__ import annotations

import json
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Final, NamedTuple

from service.classifier.answer import TOOL_NAME
from service.demo.fake_answers import answer_to

MODELS: Final = ("claude-haiku-5-5", "claude-haiku-4-5")
# About what the models' tokenizers make of such prompts.
CHARACTERS_PER_TOKEN: Final = 3.2

Answer = dict[str, Any]


class Act(StrEnum):
    """What the stand-in does with one request."""

    NORMAL = "normal"
    DISAGREE = "disagree"  # another level that is allowed
    SLOW = "slow"  # answers after `delay_s`
    HANG = "hang"  # takes the request and says nothing
    RATE_LIMITED = "rate_limited"  # 429, retry-after 5
    RATE_LIMITED_FOR_A_DAY = "rate_limited_for_a_day"  # 429, retry-after 86 400
    OVERLOADED = "overloaded"  # 529
    SERVER_ERROR = "server_error"  # 500
    DENIED = "denied"  # 401
    REJECTED = "rejected"  # 400
    RESET = "reset"  # connection cut in the middle of the body
    NOT_JSON = "not_json"  # 200 with something else
    CUT_OFF = "cut_off"  # stop_reason max_tokens
    REFUSAL = "refusal"
    WRONG_TOOL = "wrong_tool"
    TWO_CALLS = "two_calls"
    TEXT_ONLY = "text_only"
    THINKING_ONLY = "thinking_only"
    THINKING_FIRST = "thinking_first"  # a good answer after a thinking block
    MISSING_FIELD = "missing_field"
    EXTRA_FIELD = "extra_field"
    WRONG_LEVEL = "wrong_level"  # a level that exists, but not for this member
    UNKNOWN_LEVEL = "unknown_level"
    TOO_LONG = "too_long"


class Recorded(NamedTuple):
    """One request as it came over the wire."""

    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> dict[str, Any]:
        """The parsed JSON."""
        parsed: dict[str, Any] = json.loads(self.raw)
        return parsed


class Response(NamedTuple):
    """What goes back; `cut` ends the connection half-way through the body."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    cut: bool = False


def error(status: int, kind: str, message: str, retry_after_s: int | None = None) -> Response:
    """An error as the API words it."""
    body = json.dumps({"type": "error", "error": {"type": kind, "message": message}}).encode()
    wait = () if retry_after_s is None else (("retry-after", str(retry_after_s)),)
    return Response(status, body, wait)


ERRORS: Final = {
    Act.RATE_LIMITED: error(429, "rate_limit_error", "slow down", 5),
    Act.RATE_LIMITED_FOR_A_DAY: error(429, "rate_limit_error", "come back tomorrow", 86_400),
    Act.OVERLOADED: error(529, "overloaded_error", "overloaded"),
    Act.SERVER_ERROR: error(500, "api_error", "internal error"),
    Act.DENIED: error(401, "authentication_error", "invalid x-api-key"),
    Act.REJECTED: error(400, "invalid_request_error", "not like this"),
}


def objection_to(recorded: Recorded) -> Response | None:
    """What the real API would not accept."""
    if not {"x-api-key", "authorization"} & recorded.headers.keys():
        return error(401, "authentication_error", "a key is required")
    try:
        body = recorded.body
    except ValueError:
        return error(400, "invalid_request_error", "not JSON")
    if body.get("model") not in MODELS:
        return error(404, "not_found_error", f"model: {body.get('model')}")
    forced = body.get("tool_choice", {}).get("type") in ("tool", "any")
    thinks = body.get("thinking", {"type": "adaptive"})["type"] != "disabled"
    reasons = {
        "sampling parameters": bool({"temperature", "top_p", "top_k"} & body.keys()),
        "thinking with a forced tool": forced and thinks,
        "an assistant's turn at the end": body["messages"][-1]["role"] != "user",
    }
    refused = [reason for reason, found in reasons.items() if found]
    return _not_supported(refused) if refused else None


def _not_supported(what: list[str]) -> Response:
    return error(400, "invalid_request_error", f"not supported: {', '.join(what)}")


def message_for(
    body: dict[str, Any], act: Act, rewrite: Callable[[dict[str, Any]], dict[str, Any]]
) -> dict[str, Any]:
    """A message that answers the request, with what the act does to it."""
    answer: dict[str, Any] = rewrite(answer_to(body, disagree=act is Act.DISAGREE))
    if act is Act.MISSING_FIELD:
        del answer["user_explanation"]
    elif act is Act.EXTRA_FIELD:
        answer["confidence"] = 0.9
    elif act is Act.WRONG_LEVEL:
        answer["level"] = _forbidden_level(body)
    elif act is Act.UNKNOWN_LEVEL:
        answer["level"] = "legendary"
    elif act is Act.TOO_LONG:
        answer["admin_explanation"] += " And so on." * 60
    call = {"type": "tool_use", "id": "toolu_stand_in", "name": TOOL_NAME, "input": answer}
    thinking = {"type": "thinking", "thinking": "", "signature": "c3RhbmQtaW4="}
    text = {"type": "text", "text": json.dumps(answer)}
    contents: dict[Act, list[dict[str, Any]]] = {
        Act.WRONG_TOOL: [{**call, "name": "delete_everything"}],
        Act.TWO_CALLS: [call, {**call, "id": "toolu_stand_in_2"}],
        Act.TEXT_ONLY: [text],
        Act.THINKING_ONLY: [thinking],
        Act.THINKING_FIRST: [thinking, call],
        Act.REFUSAL: [],
    }
    content = contents.get(act, [call])
    stop_reason = {
        Act.CUT_OFF: "max_tokens",
        Act.REFUSAL: "refusal",
        Act.TEXT_ONLY: "end_turn",
        Act.THINKING_ONLY: "end_turn",
    }.get(act, "tool_use")
    return {
        "id": "msg_stand_in",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": {
            "input_tokens": _tokens({k: body[k] for k in ("system", "messages", "tools")}),
            "output_tokens": _tokens(content),
        },
    }


def _tokens(value: object) -> int:
    return int(len(json.dumps(value)) / CHARACTERS_PER_TOKEN) + 1


def _forbidden_level(body: dict[str, Any]) -> str:
    allowed = json.loads(body["messages"][-1]["content"].split("\n\n")[0])["levels_to_choose_from"]
    levels = body["tools"][0]["input_schema"]["properties"]["level"]["enum"]
    return str(next(level for level in levels if level not in allowed))
