"""The API's description as a page: the document at /openapi.json, laid out to be read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final, NamedTuple

from fastapi import APIRouter, Request, Response
from markupsafe import Markup, escape
from starlette.responses import HTMLResponse

from service.api.pages.rendering import render

router = APIRouter(include_in_schema=False)

Schema = Mapping[str, Any]

# In this order; what has another tag comes after.
_TAGS: Final = ("member", "members", "overrides", "organisation", "thresholds", "sessions")
_LIMITS: Final = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
}


class Field(NamedTuple):
    """A parameter, or a part of a body."""

    name: str
    type: Markup
    required: bool
    note: str


class Answer(NamedTuple):
    """A status, when it comes, and what comes with it as text."""

    status: str
    title: str
    note: str
    example: str


class Operation(NamedTuple):
    """An endpoint."""

    anchor: str
    method: str
    path: str
    title: str
    note: str
    parameters: list[Field]
    body: Markup | None
    body_example: str
    answers: list[Answer]


class Model(NamedTuple):
    """A body by name."""

    name: str
    note: str
    codes: list[str]
    fields: list[Field]


@router.get("/docs")
async def description(request: Request) -> Response:
    """Everything that can be called, with examples. Made once: anybody may ask for it."""
    state = request.app.state
    if not hasattr(state, "description"):
        state.description = render("description.html", _laid_out(request.app.openapi()))
    return HTMLResponse(state.description)


def _laid_out(document: Schema) -> dict[str, Any]:
    schemas = document["components"]["schemas"]
    schemes = document["components"]["securitySchemes"]
    groups: dict[str, list[Operation]] = {tag: [] for tag in _TAGS}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            found = _operation(method.upper(), path, operation, schemas)
            found.parameters.extend(_credentials(operation, schemes))
            groups.setdefault(operation["tags"][0], []).append(found)
    return {
        "title": document["info"]["title"],
        "intro": [_prose(part) for part in document["info"]["description"].strip().split("\n\n")],
        "groups": {tag: operations for tag, operations in groups.items() if operations},
        "models": [_model(name, schema) for name, schema in sorted(schemas.items())],
    }


def _operation(method: str, path: str, operation: Schema, schemas: Schema) -> Operation:
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    return Operation(
        anchor=operation["operationId"],
        method=method,
        path=path,
        title=operation["summary"],
        note=operation["description"],
        parameters=[
            Field(
                f"{parameter['name']} ({parameter['in']})",
                _type(parameter["schema"]),
                parameter.get("required", False),
                parameter.get("description") or parameter["schema"].get("description", ""),
            )
            for parameter in operation.get("parameters", ())
        ],
        body=None if content is None else _type(content["schema"]),
        body_example="" if content is None else _example(content, schemas),
        answers=[
            _answer(status, response, schemas)
            for status, response in operation["responses"].items()
        ],
    )


def _credentials(operation: Schema, schemes: Schema) -> Iterator[Field]:
    """What an operation wants beside the bearer token, or in its place."""
    ways = operation.get("security", ())
    for name in dict.fromkeys(name for way in ways for name in way):
        scheme = schemes[name]
        if scheme["type"] == "apiKey":
            required = all(name in way for way in ways)
            place = f"{scheme['name']} ({scheme['in']})"
            yield Field(place, Markup("string"), required, scheme["description"])


def _answer(status: str, response: Schema, schemas: Schema) -> Answer:
    example, note = "", response["description"]
    for content in response.get("content", {}).values():
        example = _example(content, schemas)
        # Of what goes well, the body says more than the framework does.
        for name in _names_in(content["schema"]) if status < "300" else ():
            note = schemas[name]["description"]
    return Answer(status, HTTPStatus(int(status)).phrase, note, example)


def _example(content: Schema, schemas: Schema) -> str:
    if "example" in content:
        return _as_text(content["example"])
    for name in _names_in(content["schema"]):
        for example in schemas[name].get("examples", ()):
            return _as_text(example)
    return ""


def _as_text(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _model(name: str, schema: Schema) -> Model:
    required = schema.get("required", ())
    return Model(
        name,
        schema.get("description", ""),
        schema.get("enum", []),
        [
            Field(part, _type(of), part in required, of.get("description", ""))
            for part, of in schema.get("properties", {}).items()
        ],
    )


def _names_in(schema: Schema) -> Iterator[str]:
    for each in (schema, *schema.get("anyOf", ())):
        if "$ref" in each:
            yield each["$ref"].rpartition("/")[2]


def _type(schema: Schema) -> Markup:
    """A schema in words, with links to those that have a name."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return Markup('<a href="#model-{0}">{0}</a>').format(name)
    choices = schema.get("anyOf") or schema.get("oneOf")
    if choices:
        return Markup(" or ").join(_type(each) for each in choices)
    if "const" in schema or "enum" in schema:
        codes = schema.get("enum") or [schema["const"]]
        return Markup(", ").join(Markup("<code>{}</code>").format(code) for code in codes)
    kind = schema.get("format") or schema.get("type", "any")
    if kind == "array":
        return Markup("list of {}").format(_type(schema["items"]))
    words = [text.format(schema[key]) for key, text in _LIMITS.items() if key in schema]
    if "pattern" in schema:
        words.append(f"of the form {schema['pattern']}")
    return escape(", ".join([kind, *words]))


def _prose(text: str) -> Markup:
    """A paragraph in which backticks mark code."""
    parts = text.split("`")
    return Markup().join(
        Markup("<code>{}</code>").format(part) if number % 2 else escape(part)
        for number, part in enumerate(parts)
    )
