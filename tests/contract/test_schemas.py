"""The JSON Schemas say exactly what is accepted and sent, and never break who relies on them."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.cli.asyncapi import CONTRACT_VERSION
from service.cli.documents import RELEASED, SCHEMAS
from service.decoding import decode
from service.errors import DeadLetter
from service.events import InputKind
from service.examples import INPUT_EXAMPLES
from service.schemas import MessageSchema, json_schema, message_schemas
from service.settings import load_settings
from streams.topics import input_topics, topics
from tests.contract.compatibility import breaks

MESSAGES = {message.stream: message for message in message_schemas()}
SCHEMA_OF = {stream: json_schema(message) for stream, message in MESSAGES.items()}
KINDS = input_topics(load_settings({}))
BOTH = pytest.mark.parametrize("stream", MESSAGES)


def committed(stream: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((SCHEMAS / f"{stream}.json").read_text())
    return schema


def accepts(schema: dict[str, Any], body: object) -> bool:
    return jsonschema.Draft202012Validator(schema).is_valid(body)


def decodes(kind: InputKind, body: object) -> bool:
    try:
        decode(kind, json.dumps(body).encode())
    except DeadLetter:
        return False
    return True


def test_every_topic_but_that_of_the_dead_letters_has_a_schema() -> None:
    names = [topic.name for topic in topics(load_settings({}))]
    assert [*MESSAGES, load_settings({}).topic_dead_letter] == names


@BOTH
def test_a_schema_is_one_and_takes_its_examples(stream: str) -> None:
    schema = committed(stream)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert len(schema["examples"]) == 2
    for example in schema["examples"]:
        jsonschema.Draft202012Validator(schema).validate(example)
        assert not accepts(schema, example | {"org_id": 7, "user_id": 7})


@BOTH
def test_every_field_that_does_not_speak_for_itself_is_explained(stream: str) -> None:
    silent = {"name", "signals", "cause", "joined_at", "override", "computed_level", "source",
              "reason", "activity_window_days", "computed_at"}  # fmt: skip
    fields = committed(stream)["properties"]
    assert {name for name, field in fields.items() if "description" not in field} <= silent


# ------------------------------------------------------------- the schema and the intake agree

# None with a newline at its end: there Python's `$` is not that of JSON Schema.
TEXTS = st.sampled_from([
    "ada", "", "a" * 128, "a" * 129, "-ada", "a b", "ädä", "a|b.c_d@e-f", "a\0", "a\nb", 7, None,
    True, "x" * 200, "x" * 201, "\u0000", "member", "left", "active", "2026-03-04T18:30:00Z",
])  # fmt: skip
TIMES = st.sampled_from([
    "2026-03-04T18:30:00Z", "2026-03-04t18:30:00z", "2026-03-04 18:30:00Z", "2026-03-04T18:30:00",
    "2026-03-04T18:30:00.123456789+05:30", "2026-03-04T18:30Z", "2026-03-04", 1772649000, None,
    "2026-03-04T18:30:00+0530", "2026-03-04T18:30:00.Z", "\u0662026-03-04T18:30:00Z",
])  # fmt: skip
WORDS = st.sampled_from(["attended", "going", "member", "admin", "active", "Active", "", None, 1])


def values_for(field: dict[str, Any]) -> st.SearchStrategy[Any]:
    if field.get("format") == "date-time":
        return TIMES
    return WORDS if "enum" in field else TEXTS


@st.composite
def bodies(draw: Callable[[Any], Any], message: MessageSchema) -> dict[str, Any]:
    """An example with a few fields left out, added or filled with something else."""
    fields = SCHEMA_OF[message.stream]["properties"]
    body = dict(draw(st.sampled_from(message.examples)))
    for name in draw(st.lists(st.sampled_from(list(fields)), max_size=3)):
        if draw(st.booleans()):
            body[name] = draw(values_for(fields[name]))
        else:
            body.pop(name, None)
    if draw(st.booleans()):
        body["more"] = draw(TEXTS)
    return body


@pytest.mark.parametrize("stream", KINDS)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_what_the_schema_takes_is_what_is_accepted(stream: str, data: st.DataObject) -> None:
    body = data.draw(bodies(MESSAGES[stream]))
    assert accepts(SCHEMA_OF[stream], body) == decodes(KINDS[stream], body)


def test_a_date_that_is_none_is_left_to_the_format() -> None:
    body = INPUT_EXAMPLES[InputKind.RSVP][0] | {"responded_at": "2026-02-30T08:00:00Z"}
    assert accepts(json_schema(MESSAGES["community.rsvp.v1"]), body)
    assert not decodes(InputKind.RSVP, body)


# --------------------------------------------------------------------------------- compatibility


def released() -> list[Path]:
    return sorted(RELEASED.glob("*/*.json"))


def test_there_is_something_to_compare_with() -> None:
    versions = {path.parent.name for path in released()}
    assert versions
    for version in versions:
        assert len([path for path in released() if path.parent.name == version]) >= len(MESSAGES)


@pytest.mark.parametrize("path", released(), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_nothing_released_is_broken(path: Path) -> None:
    message = MESSAGES[path.stem]
    assert breaks(json.loads(path.read_text()), json_schema(message), message.direction) == []


@BOTH
def test_a_change_of_a_schema_is_a_new_version(stream: str) -> None:
    path = RELEASED / CONTRACT_VERSION / f"{stream}.json"
    if path.exists():
        old, new = json.loads(path.read_text()), json_schema(MESSAGES[stream])
        assert without_words(old) == without_words(new), "raise CONTRACT_VERSION"


def without_words(schema: Any) -> Any:
    if isinstance(schema, list):
        return [without_words(part) for part in schema]
    if isinstance(schema, dict):
        words = ("description", "title", "examples")
        return {k: without_words(v) for k, v in schema.items() if k not in words}
    return schema


OR_NULL = {"anyOf": [{"type": "integer"}, {"type": "null"}]}
BREAKING: dict[str, list[Callable[[dict[str, Any]], object]]] = {
    "in": [
        lambda s: s["required"].append("more"),
        lambda s: s["properties"]["status"]["enum"].remove("left"),
        lambda s: s["properties"]["id"].update(maxLength=64),
        lambda s: s["properties"]["id"].update(pattern="^[a-z]$"),
        lambda s: s["properties"]["joined_at"].update(type="integer"),
        lambda s: s["properties"].update(display_name={"type": "string"}),
        lambda s: s["properties"]["user_id"].update(enum=["ada"]),
    ],
    "out": [
        lambda s: s["properties"].pop("reason"),
        lambda s: s["required"].remove("revision"),
        lambda s: s["properties"].update(revision={"type": "string"}),
        lambda s: s["properties"].update(revision=OR_NULL),
        lambda s: s["$defs"]["Level"]["enum"].remove("new"),
        lambda s: s["$defs"]["SignalsRecord"]["properties"].pop("joined_at"),
        lambda s: s["properties"].update(next_level={"$ref": "#/$defs/Level"}),
        lambda s: s["required"].append("more"),
    ],
}  # fmt: skip
HARMLESS: dict[str, list[Callable[[dict[str, Any]], object]]] = {
    "in": [
        lambda s: s["properties"].update(more={"type": "string"}),
        lambda s: s["properties"]["status"]["enum"].append("paused"),
        lambda s: s["required"].remove("joined_at"),
        lambda s: s["properties"]["id"].update(maxLength=256),
        lambda s: s["properties"]["id"].update(description="other words"),
    ],
    "out": [
        lambda s: s["properties"].update(more={"type": "string"}),
        lambda s: s["$defs"]["Level"]["enum"].append("champion"),
    ],
}
STREAMS = {"in": "community.membership.v1", "out": "engagement.level.v1"}


def changed(direction: str, change: Callable[[dict[str, Any]], object]) -> list[str]:
    old = json_schema(MESSAGES[STREAMS[direction]])
    new = copy.deepcopy(old)
    change(new)
    return breaks(old, new, direction)


@pytest.mark.parametrize("direction", ["in", "out"])
def test_the_comparison_finds_what_breaks_and_nothing_else(direction: str) -> None:
    for change in BREAKING[direction]:
        assert changed(direction, change)
    for change in HARMLESS[direction]:
        assert changed(direction, change) == []
