"""A dead letter is sent as it came, less the largest parts while it is too large."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from db.dead_letters import DeadLetterRow
from streams.dead_letter_messages import letter_message

NOW = datetime(2026, 6, 1, tzinfo=UTC)
ADDED = 6

maybe_bytes = st.none() | st.binary(max_size=300)
letters = st.builds(
    lambda key, value, headers: DeadLetterRow(
        "community.rsvp.v1", 3, 41, "schema", "is wrong", key, value, headers, failed_at=NOW
    ),
    maybe_bytes,
    maybe_bytes,
    st.lists(st.tuples(st.text(max_size=20), maybe_bytes), max_size=5),
)


def bytes_of(key: bytes | None, value: bytes | None, headers: object = ()) -> int:
    assert isinstance(headers, list)
    text = sum(len(name.encode()) + len(content or b"") for name, content in headers)
    return len(key or b"") + len(value or b"") + text


@given(letters, st.integers(0, 1_500))
def test_what_fits_is_unchanged_and_what_does_not_is_told(letter: DeadLetterRow, most: int) -> None:
    key, value, headers = letter_message(letter, most)
    omitted = {name: int(size or b"") for name, size in headers if name.endswith("-omitted")}
    own = headers[: len(headers) - ADDED - len(omitted)]
    assert bytes_of(key, value, own) <= most
    assert all(header in letter.headers for header in own)
    assert key == (None if "dlq-key-omitted" in omitted else letter.key)
    assert value == (None if "dlq-value-omitted" in omitted else letter.value)
    assert (len(own) < len(letter.headers)) == ("dlq-headers-omitted" in omitted)
    if omitted:
        told = sum(omitted.values())
        assert bytes_of(key, value, own) + told >= bytes_of(
            letter.key, letter.value, list(letter.headers)
        )
    generous = bytes_of(letter.key, letter.value, list(letter.headers)) + 10 * len(letter.headers)
    assert letter_message(letter, generous).headers[: len(letter.headers)] == letter.headers


@given(letters)
def test_the_largest_goes_first(letter: DeadLetterRow) -> None:
    largest = b"x" * 1_000
    for changed in (
        letter._replace(key=largest),
        letter._replace(value=largest),
        letter._replace(headers=[*letter.headers, ("large", largest)]),
    ):
        rest = bytes_of(letter.key, letter.value, list(letter.headers)) + 10 * len(letter.headers)
        _, _, headers = letter_message(changed, max(rest, 999))
        assert len([name for name, _ in headers if name.endswith("-omitted")]) == 1
