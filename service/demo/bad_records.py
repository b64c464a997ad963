"""Records that no repair of ours could apply, each made from a good one, with their codes.

`rejected` is missing on purpose: what a correct intake lets through, the database accepts.
"""

from collections.abc import Callable, Mapping

from service.demo.input_record import InputRecord, key_of, value_of

Body = Mapping[str, object]

_CHOICES = ("status", "response", "actor")


def _without_a_time(body: Body) -> bytes:
    return value_of({name: value for name, value in body.items() if name != "recorded_at"})


def _with_an_unknown_choice(body: Body) -> bytes:
    return value_of({**body, **{name: "perhaps" for name in _CHOICES if name in body}})


def _without_offset(body: Body) -> bytes:
    return value_of({**body, "recorded_at": str(body["recorded_at"])[:19]})


def _centuries_ahead(body: Body) -> bytes:
    return value_of({**body, "recorded_at": "2999" + str(body["recorded_at"])[4:]})


BAD_VALUES: tuple[tuple[str, Callable[[Body], bytes | None]], ...] = (
    ("too_large", lambda body: value_of({**body, "padding": "x" * 70_000})),
    ("null_value", lambda _body: None),
    ("not_json", lambda _body: b""),
    ("not_json", lambda body: value_of(body)[:-1]),
    ("not_json", lambda body: value_of(body).replace(b"-", b"\xff", 1)),
    ("schema", lambda _body: b"{}"),
    ("schema", lambda body: b"[" + value_of(body) + b"]"),
    ("schema", _without_a_time),
    ("schema", _with_an_unknown_choice),
    ("schema", lambda body: value_of({**body, "user_id": 4711})),
    ("schema", lambda body: value_of({**body, "recorded_at": "yesterday"})),
    ("bad_id", lambda body: value_of({**body, "user_id": "first last"})),
    ("bad_id", lambda body: value_of({**body, "id": ""})),
    ("bad_id", lambda body: value_of({**body, "user_id": "x" * 129})),
    ("naive_time", _without_offset),
    ("future_dated", _centuries_ahead),
)
"""Each code with a way to spoil the body of an attendance, an RSVP or a profile update."""


def bad_record(number: int, kind: str, body: Mapping[str, str]) -> InputRecord:
    """The number-th way, round and round, to spoil this record of a kind that BAD_VALUES is for."""
    _, spoil = BAD_VALUES[number % len(BAD_VALUES)]
    return InputRecord(kind, key_of(body), spoil(body))
