"""The description of the API: an example of every body, and a problem for everything that fails."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from jsonschema import Draft202012Validator

from service.api.app import create_app
from service.api.services import Services
from service.api.sessions import CSRF_HEADER, PLAIN_NAME, SECURE_NAME, UNSAFE

DOCUMENT: dict[str, Any] = create_app(Services(None, None)).openapi()  # type: ignore[arg-type]
PROBLEM = "application/problem+json"


class Content(NamedTuple):
    """A body of the description: where it is, of which kind, its schema and its examples."""

    where: str
    media_type: str
    schema: dict[str, Any]
    examples: list[Any]


def operations() -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def contents() -> Iterator[Content]:
    for name, operation in operations():
        parts = {"request": operation.get("requestBody", {}), **operation["responses"]}
        for part, described in parts.items():
            for media_type, content in described.get("content", {}).items():
                schema = content["schema"]
                given = [content["example"]] if "example" in content else []
                given += list(examples_of(schema))
                yield Content(f"{name} {part}", media_type, schema, given)


def examples_of(schema: dict[str, Any]) -> Iterator[Any]:
    for each in (schema, *schema.get("anyOf", ())):
        name = each.get("$ref", "").rpartition("/")[2]
        if name:
            yield from DOCUMENT["components"]["schemas"][name].get("examples", ())


def validator(schema: dict[str, Any]) -> Draft202012Validator:
    return Draft202012Validator({**schema, "components": DOCUMENT["components"]})


CONTENTS = list(contents())


def test_it_is_openapi_3_1() -> None:
    assert DOCUMENT["openapi"] == "3.1.0"
    for name, schema in DOCUMENT["components"]["schemas"].items():
        Draft202012Validator.check_schema(schema)
        assert schema.get("description"), f"{name} says nothing about itself"
    for name, operation in operations():
        assert operation["description"], name
        for parameter in operation.get("parameters", ()):
            described = parameter.get("description") or parameter["schema"].get("description")
            assert described or parameter["name"] == "sort", (name, parameter["name"])


@pytest.mark.parametrize("content", CONTENTS, ids=lambda c: f"{c.where} {c.media_type}")
def test_every_body_has_an_example_that_is_one(content: Content) -> None:
    assert content.examples
    for example in content.examples:
        validator(content.schema).validate(example)


def test_examples_show_all_that_an_answer_has() -> None:
    for content in CONTENTS:
        if content.where.endswith((" 200", " 202")):
            name = content.schema["$ref"].rpartition("/")[2]
            properties = set(DOCUMENT["components"]["schemas"][name]["properties"])
            assert set(content.examples[0]) == properties, name


def test_whatever_fails_is_a_problem() -> None:
    for name, operation in operations():
        for status, response in operation["responses"].items():
            if int(status) < 400:
                continue
            assert set(response["content"]) == {PROBLEM}, (name, status)
            example = response["content"][PROBLEM]["example"]
            assert example["status"] == int(status)
            assert example["type"].startswith("urn:engagement:problem:")
        wanted = {"401", "404", "422", "500", "503"}
        if "requestBody" in operation:
            wanted |= {"408", "413"}
        assert wanted <= set(operation["responses"]), name


def test_it_says_how_to_write_by_a_session() -> None:
    schemes = DOCUMENT["components"]["securitySchemes"]
    cookie, header = schemes["session"], schemes["csrf"]
    assert (cookie["in"], cookie["name"]) == ("cookie", SECURE_NAME)
    assert PLAIN_NAME in cookie["description"]
    assert (header["in"], header["name"]) == ("header", CSRF_HEADER)
    assert CSRF_HEADER in DOCUMENT["info"]["description"]
    for name, operation in operations():
        ways = [set(way) for way in operation.get("security", DOCUMENT["security"])]
        unsafe = name.split()[0] in UNSAFE
        by_session = {"session", "csrf"} if unsafe else {"session"}
        if name == "POST /session":
            assert ways == [{"bearer"}]
        elif name == "DELETE /session":
            assert ways == [by_session]
        else:
            assert ways == [{"bearer"}, by_session], name
    opened = DOCUMENT["paths"]["/session"]["post"]["responses"]["200"]
    assert "Set-Cookie" in opened["headers"]
    refused = DOCUMENT["paths"]["/session"]["delete"]["responses"]["403"]
    assert CSRF_HEADER in refused["content"][PROBLEM]["example"]["detail"]


def test_bounds_of_numbers_are_said_as_json_schema_says_them() -> None:
    """Other words than its own are ignored by whoever reads it, so they would promise nothing."""
    allowed = {
        "type", "enum", "const", "format", "pattern", "minLength", "maxLength", "minimum",
        "maximum", "minItems", "maxItems", "items", "properties", "required", "title", "default",
        "description", "examples", "anyOf", "oneOf", "discriminator", "additionalProperties",
        "$ref",
    }  # fmt: skip
    found = [schema for _, schema in schemas_in(DOCUMENT["components"]["schemas"])]
    found += [p["schema"] for _, o in operations() for p in o.get("parameters", [])]
    assert len(found) > 100
    for schema in found:
        assert set(schema) <= allowed, schema
    numbers = DOCUMENT["components"]["schemas"]["PreviewRequest"]["properties"]
    bounds = [(numbers[name]["minimum"], numbers[name]["maximum"]) for name in sorted(numbers)]
    assert bounds == [(1, 3_650), (2, 10_000), (1, 3_650), (1, 9_999), (0, 3_650)]


def schemas_in(named: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema among these by name, those within others too."""
    for name, schema in named.items():
        yield name, schema
        yield from schemas_in(schema.get("properties", {}))
        parts = [schema.get("items"), schema.get("additionalProperties")]
        for part in [*schema.get("anyOf", []), *schema.get("oneOf", []), *parts]:
            if isinstance(part, dict):
                yield from schemas_in({name: part})
