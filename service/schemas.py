"""JSON Schemas of every message, from the wire models alone.

Input schemas say what is accepted, output schemas what is sent. Both leave other fields open:
unknown ones are ignored by this service, and have to be ignored by consumers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, models_json_schema

from service.events import MODELS, SHARED_FIELDS, InputKind
from service.examples import INPUT_EXAMPLES, change_examples, level_examples
from service.records import CHANGE_STREAM, LEVEL_STREAM, ChangeRecord, LevelRecord

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

Schema = dict[str, Any]


class MessageSchema(NamedTuple):
    """One kind of message. `stream` is the default name of its topic."""

    stream: str
    direction: Literal["in", "out"]
    model: type[BaseModel]
    examples: list[Schema]

    @property
    def mode(self) -> JsonSchemaMode:
        """What the model stands for: what is accepted, or what is sent."""
        return "validation" if self.direction == "in" else "serialization"


class _Generator(GenerateJsonSchema):
    """Without titles that repeat the names of fields."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Never."""
        del schema
        return False


def message_schemas() -> list[MessageSchema]:
    """Every kind of message, inputs first."""
    inputs = [
        MessageSchema(f"community.{kind}.v1", "in", MODELS[kind], list(INPUT_EXAMPLES[kind]))
        for kind in InputKind
    ]
    return [
        *inputs,
        MessageSchema(LEVEL_STREAM, "out", LevelRecord, level_examples()),
        MessageSchema(CHANGE_STREAM, "out", ChangeRecord, change_examples()),
    ]


def json_schema(message: MessageSchema) -> Schema:
    """The schema of one message as a document of its own, with its examples."""
    body = message.model.model_json_schema(mode=message.mode, schema_generator=_Generator)
    _describe(body)
    return {
        "$schema": DIALECT,
        "$id": f"urn:engagement-scoring:{message.stream}",
        "title": body.pop("title"),
        "description": body.pop("description"),
        **body,
        "examples": message.examples,
    }


def shared_schemas(reference: str) -> Mapping[str, Schema]:
    """Model name -> schema of all messages and their parts, which refer to each other.

    `reference` holds `{model}`, as in ``#/components/schemas/{model}``.
    """
    wanted = [(message.model, message.mode) for message in message_schemas()]
    _, document = models_json_schema(wanted, ref_template=reference, schema_generator=_Generator)
    schemas: dict[str, Schema] = document["$defs"]
    for schema in schemas.values():
        _describe(schema)
    return schemas


def _describe(schema: Schema) -> None:
    """Add the meaning of the fields that many messages share."""
    for name, field in schema.get("properties", {}).items():
        if name in SHARED_FIELDS:
            field.setdefault("description", SHARED_FIELDS[name])
