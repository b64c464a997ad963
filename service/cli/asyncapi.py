"""The AsyncAPI document: every topic, message, key and header, from the models and the registry."""

from __future__ import annotations

from typing import Any, Final

from service.errors import DeadLetterCode
from service.events import ID_PATTERN, InputKind, Membership
from service.records import (
    CHANGE_STREAM,
    CHANGE_TYPE,
    LEVEL_STREAM,
    LEVEL_TYPE,
    SOURCE,
    LevelRecord,
)
from service.schemas import MessageSchema, message_schemas, shared_schemas
from service.settings import Settings, load_settings
from streams.topics import Topic, topics

ASYNCAPI_VERSION: Final = "3.0.0"
# Of the wire, not of the program: grows with what producers and consumers can notice.
CONTRACT_VERSION: Final = "1.0.0"
BINDING_VERSION: Final = "0.5.0"

_SCHEMAS: Final = "#/components/schemas/"
_TYPES: Final = {LEVEL_STREAM: LEVEL_TYPE, CHANGE_STREAM: CHANGE_TYPE}
_JSON: Final = "application/json"
_DESCRIPTION: Final = """\
Activity of the members of organisations comes in, levels of engagement with their reasons go out.

Values are JSON in UTF-8, headers are CloudEvents 1.0 in binary mode. Topic names are the default
ones. Consumers must ignore fields that they do not know, and take values of an enumeration that
they do not know for "something else". See producers.md and consumers.md.
"""

Part = dict[str, Any]


def asyncapi() -> Part:
    """The document, the same for the same release."""
    settings = load_settings({})
    registry = {topic.name: topic for topic in topics(settings)}
    channels: Part = {}
    messages: Part = {}
    operations: Part = {}
    for schema in message_schemas():
        topic = registry.pop(schema.stream)
        name = _name(topic)
        made = {name: _message(schema)} | _tombstones(name, schema)
        messages |= made
        channels[name] = _channel(settings, topic, list(made))
        operations |= _operation(name, schema.direction)
    (dead_letters,) = registry.values()
    name = _name(dead_letters)
    messages[name] = _dead_letter()
    channels[name] = _channel(settings, dead_letters, [name])
    operations |= _operation(name, "out")
    return {
        "asyncapi": ASYNCAPI_VERSION,
        "id": f"urn:{SOURCE}",
        "info": {
            "title": "Engagement scoring",
            "version": CONTRACT_VERSION,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": _JSON,
        "servers": {
            "kafka": {
                "host": settings.kafka_bootstrap_servers,
                "protocol": "kafka",
                "description": "The brokers that KAFKA_BOOTSTRAP_SERVERS names.",
            }
        },
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": messages,
            "schemas": dict(shared_schemas(_SCHEMAS + "{model}")),
        },
    }


def key_pattern(schema: MessageSchema) -> str:
    """What the Kafka keys of these messages look like."""
    ids = [name for name in ("org_id", "user_id") if name in schema.model.model_fields]
    return ":".join(ID_PATTERN for _ in ids)


def key_form(schema: MessageSchema) -> str:
    """The same in words: the names of the fields."""
    return ":".join(name for name in ("org_id", "user_id") if name in schema.model.model_fields)


def _name(topic: Topic) -> str:
    """`engagement.dead-letter.v1` -> `deadLetter`."""
    first, *rest = topic.name.split(".")[-2].split("-")
    return first + "".join(word.capitalize() for word in rest)


def _channel(settings: Settings, topic: Topic, messages: list[str]) -> Part:
    config: Part = {
        name: [value] if name == "cleanup.policy" else int(value)
        for name, value in topic.config.items()
        if name in ("cleanup.policy", "retention.ms", "delete.retention.ms")
    }
    return {
        "address": topic.name,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
        "bindings": {
            "kafka": {
                "topic": topic.name,
                "partitions": settings.topic_partitions,
                "topicConfiguration": config,
                "bindingVersion": BINDING_VERSION,
            }
        },
    }


def _operation(channel: str, direction: str) -> Part:
    action = "receive" if direction == "in" else "send"
    return {
        f"{action}{channel[0].upper()}{channel[1:]}": {
            "action": action,
            "channel": {"$ref": f"#/channels/{channel}"},
        }
    }


def _message(schema: MessageSchema) -> Part:
    name = schema.model.__name__
    headers = cloud_event_headers(_TYPES.get(schema.stream))
    return {
        "name": name,
        "summary": (schema.model.__doc__ or "").strip(),
        "contentType": _JSON,
        "headers": headers,
        "payload": {"$ref": _SCHEMAS + name},
        "bindings": {"kafka": _key(schema)},
        "examples": [{"payload": example} for example in schema.examples],
    }


def _key(schema: MessageSchema) -> Part:
    return {
        "key": {
            "type": "string",
            "description": key_form(schema),
            "pattern": f"^{key_pattern(schema)}$",
        },
        "bindingVersion": BINDING_VERSION,
    }


def cloud_event_headers(kind: str | None) -> Part:
    """Headers of a message of ours, all of them there; of input (None), where nothing has to be."""
    text = {"type": "string"}
    if kind is None:
        given = {"ce_id": {**text, "description": "Fills a missing `id`.",
                           "pattern": f"^{ID_PATTERN}$"}}  # fmt: skip
        return {"type": "object", "properties": given}
    properties = {
        "ce_specversion": {**text, "const": "1.0"},
        "ce_id": {**text, "format": "uuid", "description": "The same for every repeat."},
        "ce_source": {**text, "const": SOURCE},
        "ce_type": {**text, "const": kind},
        "ce_time": {**text, "format": "date-time"},
        "content-type": {**text, "const": _JSON},
    }
    return {"type": "object", "properties": properties, "required": list(properties)}


def _tombstones(name: str, schema: MessageSchema) -> Part:
    """Null values that mean something."""
    if schema.model is Membership:
        title, summary = "Erasure", "A null value: forget this member. The key says who."
    elif schema.model is LevelRecord:
        title, summary = "NoLevel", "A null value: the member has no level any more."
    else:
        return {}
    return {
        f"{name}Tombstone": {
            "name": title,
            "summary": summary,
            "contentType": _JSON,
            "headers": cloud_event_headers(_TYPES.get(schema.stream)),
            "payload": {"type": "null"},
            "bindings": {"kafka": _key(schema)},
        }
    }


def _dead_letter() -> Part:
    text = {"type": "string"}
    errors = "__streams.errors."
    added = {
        f"{errors}topic": {**text, "enum": [f"community.{kind}.v1" for kind in InputKind]},
        f"{errors}partition": {**text, "pattern": "^[0-9]+$"},
        f"{errors}offset": {**text, "pattern": "^[0-9]+$"},
        f"{errors}exception": {**text, "enum": [code.value for code in DeadLetterCode]},
        f"{errors}message": text,
        "dlq-failed-at": {**text, "format": "date-time"},
    }
    # Only where something was left out: how many bytes.
    omitted = {
        f"dlq-{part}-omitted": {**text, "pattern": "^[0-9]+$"}
        for part in ("key", "value", "headers")
    }
    return {
        "name": "DeadLetter",
        "summary": "An input record that can never be applied: key, value and headers unchanged, "
        "less what is larger than this topic takes.",
        "headers": {"type": "object", "properties": added | omitted, "required": list(added)},
        "payload": {"description": "Whatever the value was, null included."},
    }
