"""How what was learned becomes records on the wire: ids, delays, repeats and spoilt ones."""

import heapq
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta, timezone
from itertools import count

from service.demo.bad_records import BAD_VALUES, bad_record
from service.demo.input_record import InputRecord, key_of, value_of
from service.demo.member_life import Rates, Told
from service.instants import wire_time

_LATEST = timedelta(days=10)
_SOON = timedelta(seconds=2)
_CLASHING = {"attended": "absent", "absent": "attended", "going": "declined"}
_SPOILT_KINDS = ("attendance", "rsvp", "profile-update")


class Sender:
    """Sends what was learned up to `ends_at`, late or twice or spoilt as the rates say.

    `message_id` gives the id of the n-th message, `offsets` the clocks of the organisations' own
    systems, by which times are written.
    """

    def __init__(
        self,
        rates: Rates,
        rng: random.Random,
        *,
        ends_at: datetime,
        message_id: Callable[[int], str],
        offsets: Mapping[str, timezone],
    ) -> None:
        self._rates = rates
        self._rng = rng
        self._ends_at = ends_at
        self._message_id = message_id
        self._offsets = offsets
        self._numbers = count()
        self._spoilt = 0
        self._last_body: tuple[str, dict[str, str]] | None = None
        self._waiting: list[tuple[datetime, int, InputRecord]] = []
        self._order = count()

    def send(self, told: Iterable[Told]) -> Iterator[InputRecord]:
        """The records in the order in which they are sent.

        The last ones make sure that every kind of spoilt record is among them, unless none is
        wanted.
        """
        for one in told:
            if one.recorded_at > self._ends_at:
                continue
            while self._waiting and self._waiting[0][0] <= one.recorded_at:
                yield heapq.heappop(self._waiting)[2]
            self._post(one)
        while self._waiting:
            yield heapq.heappop(self._waiting)[2]
        if self._rates.bad and self._last_body is not None:
            while self._spoilt < len(BAD_VALUES):
                yield self._bad(*self._last_body)

    def _post(self, told: Told) -> None:
        """Put the record where it waits to be sent, with all that goes wrong with it."""
        rates = self._rates
        if told.body is None:
            self._wait(told.recorded_at, InputRecord(told.kind, key_of(told.ids), None))
            return
        body = self._written(told)
        record = self._record(told.kind, body)
        sent_at = told.recorded_at + self._delay(_LATEST if self._chance(rates.late) else _SOON)
        self._wait(sent_at, record)
        if self._chance(rates.duplicates):
            self._wait(sent_at + self._delay(_LATEST), record)
        if self._chance(rates.clashes):
            clashing = {name: _CLASHING.get(text, text) for name, text in body.items()}
            if clashing != body:
                self._wait(sent_at + self._delay(_LATEST), self._record(told.kind, clashing))
        if told.kind in _SPOILT_KINDS:
            self._last_body = (told.kind, body)
            if self._chance(rates.bad):
                self._wait(sent_at, self._bad(told.kind, body))

    def _written(self, told: Told) -> dict[str, str]:
        """The body as the producer writes it, under a new id."""
        offset = self._offsets.get(told.ids.get("org_id", ""), UTC)
        times = {"recorded_at": told.recorded_at, **(told.body or {})}
        body = {"id": self._message_id(next(self._numbers)), **told.ids}
        for name, content in times.items():
            body[name] = content if isinstance(content, str) else _written_time(content, offset)
        return body

    def _record(self, kind: str, body: dict[str, str]) -> InputRecord:
        if not self._chance(self._rates.cloud_events):
            return InputRecord(kind, key_of(body), value_of(body))
        headers = (
            ("ce_specversion", b"1.0"),
            ("ce_id", body["id"].encode()),
            ("ce_source", b"population"),
            ("ce_type", f"community.{kind}.v1".encode()),
            ("ce_time", body["recorded_at"].encode()),
            ("content-type", b"application/json"),
        )
        rest = {name: text for name, text in body.items() if name != "id"}
        return InputRecord(kind, key_of(body), value_of(rest), headers)

    def _bad(self, kind: str, body: dict[str, str]) -> InputRecord:
        self._spoilt += 1
        return bad_record(self._spoilt - 1, kind, body)

    def _wait(self, sent_at: datetime, record: InputRecord) -> None:
        heapq.heappush(self._waiting, (sent_at, next(self._order), record))

    def _chance(self, share: float) -> bool:
        return self._rng.random() < share

    def _delay(self, longest: timedelta) -> timedelta:
        return self._rng.random() * longest


def _written_time(instant: datetime, offset: timezone) -> str:
    return wire_time(instant.astimezone(offset))
