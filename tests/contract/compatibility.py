"""What in a new schema would break somebody who was written against an old one."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]


def breaks(old: Schema, new: Schema, direction: str) -> list[str]:
    """Every break, in words; empty when `new` may replace `old`.

    Inputs ("in"): what was accepted stays accepted. Outputs ("out"): whoever reads with the old
    schema understands what is sent now, and whoever reads with the new one understands what is
    still on the topic.
    """
    return _compare(_resolved(old, old), _resolved(new, new), direction, "value")


def _resolved(schema: Any, document: Schema) -> Any:
    """The schema with its references filled in, without words for people."""
    if isinstance(schema, list):
        return [_resolved(part, document) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        return _resolved(document["$defs"][name], document)
    words = ("$schema", "$id", "$defs", "title", "description", "examples", "default")
    return {name: _resolved(part, document) for name, part in schema.items() if name not in words}


def _compare(old: Schema, new: Schema, direction: str, where: str) -> list[str]:
    if old.keys() & {"anyOf"} or new.keys() & {"anyOf"}:
        return _compare_options(old, new, direction, where)
    found = []
    if old.get("type") != new.get("type"):
        return [f"{where}: {old.get('type')} became {new.get('type')}"]
    found += _compare_words(old, new, direction, where)
    found += _compare_limits(old, new, direction, where)
    before, after = old.get("properties", {}), new.get("properties", {})
    for name in before.keys() - after.keys():
        # An input field that is no longer read does no harm to those who send it.
        if direction == "out":
            found.append(f"{where}.{name}: is gone")
    for name in before.keys() & after.keys():
        found += _compare(before[name], after[name], direction, f"{where}.{name}")
    required = set(new.get("required", ())) - set(old.get("required", ()))
    found += [f"{where}.{name}: is required now" for name in sorted(required)]
    if direction == "out":
        missing = set(old.get("required", ())) - set(new.get("required", ()))
        found += [f"{where}.{name}: may be missing now" for name in sorted(missing)]
    return found


def _compare_options(old: Schema, new: Schema, direction: str, where: str) -> list[str]:
    """Null or something."""
    was, now = _without_null(old), _without_null(new)
    found = []
    if direction == "in" and was[1] and not now[1]:
        found.append(f"{where}: null is refused now")
    if direction == "out" and was[1] != now[1]:
        found.append(f"{where}: null {'appears' if now[1] else 'is gone'}")
    return found + _compare(was[0], now[0], direction, where)


def _without_null(schema: Schema) -> tuple[Schema, bool]:
    if "anyOf" not in schema:
        return schema, False
    options = [option for option in schema["anyOf"] if option != {"type": "null"}]
    assert len(options) == 1, f"more than one form: {options}"
    return options[0], len(options) < len(schema["anyOf"])


def _compare_words(old: Schema, new: Schema, direction: str, where: str) -> list[str]:
    """Enumerations may grow in both directions: consumers were told to expect other words."""
    before, after = old.get("enum"), new.get("enum")
    if before is None or after is None:
        grown_open = direction == "in" and after is None
        return [] if before == after or grown_open else [f"{where}: its words changed"]
    return [f"{where}: {word} is gone" for word in before if word not in after]


def _compare_limits(old: Schema, new: Schema, direction: str, where: str) -> list[str]:
    fixed = ("pattern", "format", "const", "maximum", "minimum", "minLength")
    found = [f"{where}: {name} changed" for name in fixed if old.get(name) != new.get(name)]
    before, after = old.get("maxLength"), new.get("maxLength")
    if before != after:
        narrower = after is not None and (before is None or after < before)
        if narrower if direction == "in" else not narrower:
            found.append(f"{where}: maxLength changed")
    return found
