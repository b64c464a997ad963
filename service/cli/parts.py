"""Generated parts of the pages in docs: tables of topics and metrics, one section per input."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from service.cli.asyncapi import key_form
from service.events import ID_PATTERN
from service.schemas import MessageSchema, Schema, json_schema, message_schemas
from service.settings import Settings, environment_names, load_settings
from streams.topics import DAY_MS, Topic, topics

BROKER: Final = "127.0.0.1:9092"


def topic_table() -> str:
    """Every topic: name, setting, direction, key, cleanup."""
    settings = load_settings({})
    keys = {message.stream: key_form(message) for message in message_schemas()}
    lines = ["| topic | setting | key | kept |", "| --- | --- | --- | --- |"]
    for topic in topics(settings):
        key = f"`{keys[topic.name]}`" if topic.name in keys else "as it was"
        name = f"`{_setting_of(settings, topic)}`"
        lines.append(f"| `{topic.name}` | {name} | {key} | {_kept(topic)} |")
    return "\n".join(lines)


def _setting_of(settings: Settings, topic: Topic) -> str:
    named = [
        environment
        for environment, field in environment_names().items()
        if field.startswith("topic_") and getattr(settings, field) == topic.name
    ]
    return named[0]


def _kept(topic: Topic) -> str:
    days = {name: int(text) // DAY_MS for name, text in topic.config.items() if name.endswith("ms")}
    if topic.config["cleanup.policy"] == "compact":
        return f"compacted; tombstones {days['delete.retention.ms']} days"
    return f"{days['retention.ms']} days"


def topic_pages() -> str:
    """One section per input topic: key, fields, two examples, how to send one by hand."""
    pages = [_page(message) for message in message_schemas() if message.direction == "in"]
    return "\n\n".join(pages)


def _page(message: MessageSchema) -> str:
    schema = json_schema(message)
    lines = [f"### `{message.stream}`", "", schema["description"], ""]
    link = f"[{message.stream}.json](schemas/{message.stream}.json)"
    lines += [f"Key: `{key_form(message)}`. Schema: {link}.", ""]
    lines += ["| field | value | meaning |", "| --- | --- | --- |"]
    lines += [
        f"| `{name}`{'' if name in schema['required'] else ' (optional)'} | {value_in_words(field)}"
        f" | {field.get('description', '')} |"
        for name, field in schema["properties"].items()
    ]
    for example in message.examples:
        lines += ["", "```json", *_pretty(example), "```"]
    lines += ["", "```sh", *send_lines(message), "```"]
    return "\n".join(lines)


def value_in_words(field: Schema) -> str:
    """What may stand in a field."""
    for option in field.get("anyOf", ()):
        if option.get("type") != "null":
            return f"{value_in_words(option)}, or null"
    if "enum" in field:
        values = " / ".join(f"`{value}`" for value in field["enum"])
        return f"{values}; default `{field['default']}`" if "default" in field else values
    if field.get("format") == "date-time":
        return "time"
    if field.get("pattern") == f"^{ID_PATTERN}$":
        return "id"
    return f"text, at most {field['maxLength']} characters" if "maxLength" in field else "text"


def send_lines(message: MessageSchema) -> list[str]:
    """How to send the first example by kcat."""
    body = message.examples[0]
    key = ":".join(body[name] for name in ("org_id", "user_id") if name in body)
    return [
        f"kcat -P -b {BROKER} -t {message.stream} -k {key} <<'RECORD'",
        json.dumps(body),
        "RECORD",
    ]


def _pretty(body: Any) -> list[str]:
    return json.dumps(body, indent=2).splitlines()


def metric_table() -> str:
    """Every metric of worker and API: name, kind, labels, meaning."""
    lines = ["| metric | kind | labels | meaning |", "| --- | --- | --- | --- |"]
    for name, kind, labels, meaning in sorted(metrics()):
        shown = ", ".join(f"`{label}`" for label in labels)
        lines.append(f"| `{name}` | {kind} | {shown} | {meaning} |")
    return "\n".join(lines)


def metrics() -> Iterator[tuple[str, str, tuple[str, ...], str]]:
    """(name as it is scraped, kind, labels, meaning) of every metric of ours."""
    from service.classifier.metrics import CLAUDE_METRICS
    from service.metrics import METRICS

    for group in (METRICS, CLAUDE_METRICS):
        for metric in vars(group).values():
            (family,) = metric.describe()
            suffix = "_total" if family.type == "counter" else ""
            labels = metric._labelnames  # noqa: SLF001 - the library has no other way to ask
            yield family.name + suffix, family.type, labels, family.documentation
