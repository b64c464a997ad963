"""The AsyncAPI document is valid, complete, and true."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from db.dead_letters import DeadLetterRow
from db.outbox import OutboxRow
from service.cli.asyncapi import asyncapi, key_form
from service.cli.documents import DOCS
from service.records import message_key
from service.rows import key_of
from service.schemas import message_schemas
from service.settings import load_settings
from streams import relay
from streams.dead_letter_messages import letter_message
from streams.topics import topics

VENDOR = Path(__file__).parent / "vendor"
AT = datetime(2026, 3, 4, 21, tzinfo=UTC)


@cache
def document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DOCS / "asyncapi.json").read_text())
    return found


def followed(reference: str) -> Any:
    part: Any = document()
    for name in reference.removeprefix("#/").split("/"):
        part = part[name]
    return part


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for inner in part.values():
            yield from references(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from references(inner)


def message(name: str) -> dict[str, Any]:
    found: dict[str, Any] = document()["components"]["messages"][name]
    return found


def check_headers(name: str, headers: list[tuple[str, bytes | None]]) -> None:
    """What we send has exactly the headers that are promised."""
    promised = message(name)["headers"]
    said = {key: (value or b"").decode() for key, value in headers}
    jsonschema.Draft202012Validator(promised).validate(said)
    assert said.keys() == promised["properties"].keys()


def test_the_official_schema_is_as_published() -> None:
    for line in (VENDOR / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split()
        assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == digest


def test_it_is_valid_by_the_official_schema() -> None:
    official = json.loads((VENDOR / "asyncapi-3.0.0.json").read_text())
    validator = jsonschema.Draft7Validator(official)
    error = jsonschema.exceptions.best_match(validator.iter_errors(document()))
    assert error is None, error
    # The schema is not one that takes anything.
    assert not validator.is_valid(document() | {"operations": {"receive": {"action": "eat"}}})


def test_every_reference_leads_somewhere() -> None:
    found = list(references(document()))
    assert len(found) > 30
    for reference in found:
        assert followed(reference)


def test_every_topic_is_a_channel_with_its_configuration() -> None:
    channels = {channel["address"]: channel for channel in document()["channels"].values()}
    for topic in topics(load_settings({})):
        configured = channels.pop(topic.name)["bindings"]["kafka"]["topicConfiguration"]
        assert configured["cleanup.policy"] == [topic.config["cleanup.policy"]]
    assert not channels


def test_inputs_are_received_and_outputs_sent() -> None:
    actions = defaultdict(set)
    for operation in document()["operations"].values():
        actions[operation["action"]].add(followed(operation["channel"]["$ref"])["address"])
    inputs = {m.stream for m in message_schemas() if m.direction == "in"}
    assert actions["receive"] == inputs
    assert actions["send"] == {topic.name for topic in topics(load_settings({}))} - inputs


@pytest.mark.parametrize("schema", message_schemas(), ids=lambda schema: schema.stream)
def test_keys_are_what_is_used(schema: Any) -> None:
    example = schema.examples[0]
    key = key_of(example).decode()
    if schema.direction == "out":
        assert key == message_key(example["org_id"], example["user_id"])
    names = [m for m in document()["components"]["messages"].values()
             if m["name"] == schema.model.__name__]  # fmt: skip
    pattern = names[0]["bindings"]["kafka"]["key"]
    jsonschema.Draft202012Validator(pattern).validate(key)
    assert not jsonschema.Draft202012Validator(pattern).is_valid(f"{key}:more")
    assert key_form(schema) == pattern["description"]


def test_headers_are_what_the_relay_sends() -> None:
    row = OutboxRow(1, 7, AT, "riverside-chess:ada", b"{}", b"{}")
    sent = list(relay.Relay(None, load_settings({}), None)._messages(row))  # type: ignore[arg-type]
    by_topic = {topic: headers for topic, _, headers in sent}
    check_headers("change", by_topic["engagement.change.v1"])
    check_headers("level", by_topic["engagement.level.v1"])
    check_headers("levelTombstone", by_topic["engagement.level.v1"])


def test_headers_of_dead_letters_are_what_the_relay_sends() -> None:
    letter = DeadLetterRow(
        "community.rsvp.v1", 3, 41, "bad_id", "id is not", b"k", b"v", [], failed_at=AT
    )
    with_header = letter._replace(headers=[("ce_id", b"x")])
    assert letter_message(with_header, 1_000).headers[0] == ("ce_id", b"x")
    # With nothing of the record itself, the headers are all that there are.
    check_headers("deadLetter", letter_message(with_header, 0).headers)
    added = [name for name, _ in letter_message(letter, 1_000).headers]
    assert added == message("deadLetter")["headers"]["required"]


def test_it_is_made_from_the_code() -> None:
    assert asyncapi() == document()
