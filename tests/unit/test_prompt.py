from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from service.classifier.answer import Answer, tool
from service.classifier.claude import MAX_OUTPUT_TOKENS, RESERVED_TOKENS, request_body
from service.classifier.guard import FAULT_MESSAGES, Fault
from service.classifier.prompt import PROMPT_VERSION, message_text, request_for, system_text
from service.classifier.situation import situation_of
from service.levels import Level
from service.thresholds import DEFAULT_THRESHOLDS, Thresholds, check
from tests.unit.test_templates import evaluation_of

SNAPSHOTS = Path(__file__).parent / "snapshots"
MODEL = "claude-haiku-5-5"


def everything_said() -> str:
    """System text, tool, repetition and a message of every level, as Claude reads them."""
    evaluations = [
        evaluation_of((5, 20, 50, 80), rsvps=(40,), profile=(3,)),
        evaluation_of((10,), joined=20),
        evaluation_of((40,), rsvps=(100,)),
        evaluation_of((100,)),
        evaluation_of(joined=100),
        evaluation_of((300,)),
    ]
    situations = [situation_of(e, DEFAULT_THRESHOLDS) for e in evaluations]
    parts = [system_text(DEFAULT_THRESHOLDS), json.dumps(tool(), indent=1)]
    parts += [message_text(situation) for situation in situations]
    parts += [request_for(situations[0], fault).message.split("\n\n")[1] for fault in Fault]
    return "\n\n----\n\n".join(parts) + "\n"


def test_the_prompt_is_the_one_of_its_version() -> None:
    """Changed words need another PROMPT_VERSION and a new snapshot: answers are stored under it."""
    path = SNAPSHOTS / f"prompt_{PROMPT_VERSION}.txt"
    said = everything_said()
    assert path.exists(), f"write {path.name} with the text below\n{said}"
    assert said == path.read_text(encoding="utf-8")


def test_the_system_text_names_purpose_levels_thresholds_and_audiences() -> None:
    text = system_text(Thresholds(12, 4, 120, 45, 200))
    for level in Level:
        assert f"- {level.value}: " in text
    for number in ("12 events", "at least 4 ", "120 days", "45 days", "200 days"):
        assert number in text
    for word in (
        "CRM",
        "membership organisations",
        "admin_explanation",
        "user_explanation",
        "warm",
    ):
        assert word in text


def test_a_message_offers_only_placeholders_that_have_a_value() -> None:
    never = json.loads(message_text(situation_of(evaluation_of(joined=300), DEFAULT_THRESHOLDS)))
    assert set(never["placeholders"]) == {"{org}", "{member}", "{joined}"}
    much = situation_of(evaluation_of((5,), rsvps=(5,)), DEFAULT_THRESHOLDS)
    assert set(json.loads(message_text(much))["placeholders"]) == {
        "{org}", "{member}", "{joined}", "{last_attended}", "{last_rsvp}", "{next_change}",
    }  # fmt: skip


def test_a_repetition_says_what_was_wrong() -> None:
    situation = situation_of(evaluation_of(), DEFAULT_THRESHOLDS)
    first, again = request_for(situation), request_for(situation, Fault.LINK)
    assert again.system == first.system
    assert again.message.startswith(first.message)
    assert FAULT_MESSAGES[Fault.LINK] in again.message
    assert FAULT_MESSAGES.keys() == set(Fault)


@pytest.mark.parametrize("model", ["claude-haiku-5-5", "claude-haiku-4-5"])
def test_the_request_has_one_shape_for_every_model(model: str) -> None:
    body = request_body(model, request_for(situation_of(evaluation_of(), DEFAULT_THRESHOLDS)))
    assert body.keys() == {
        "model", "max_tokens", "system", "messages", "tools", "tool_choice", "thinking",
    }  # fmt: skip
    assert body["model"] == model
    assert body["thinking"] == {"type": "disabled"}
    assert body["tool_choice"]["type"] == "tool"
    assert body["tool_choice"]["name"] == body["tools"][0]["name"] == "classify_engagement"


def test_the_tool_and_the_model_that_checks_it_agree() -> None:
    schema = tool()["input_schema"]
    checked = Answer.model_json_schema()
    assert tool()["strict"] is True
    assert schema["required"] == checked["required"] == list(schema["properties"])
    assert schema["additionalProperties"] is checked["additionalProperties"] is False
    assert schema["properties"]["level"]["enum"] == [level.value for level in Level]


def test_the_reservation_covers_the_longest_request() -> None:
    largest = check(Thresholds(10_000, 9_999, 3_650, 3_650, 3_650))
    evaluation = evaluation_of((10,), rsvps=(5,), joined=3_000, thresholds=largest)
    body = request_body(MODEL, request_for(situation_of(evaluation, largest), Fault.PLACEHOLDER))
    characters = len(json.dumps([body["system"], body["messages"], body["tools"]]))
    # At least three characters of plain English make a token, and the API adds some of its own.
    assert characters / 3 + 350 + MAX_OUTPUT_TOKENS <= RESERVED_TOKENS


def test_the_snapshot_of_a_released_version_is_never_edited() -> None:
    digests = {
        path.stem: hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        for path in SNAPSHOTS.glob("prompt_*.txt")
    }
    assert digests == RELEASED | {f"prompt_{PROMPT_VERSION}": digests[f"prompt_{PROMPT_VERSION}"]}


# Digest of each snapshot once its version is out; the current one may still be worked on.
RELEASED: dict[str, str] = {}
