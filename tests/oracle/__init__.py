"""A second, independent reading of the specification: everything recomputed from the input log.

Plain Python on the standard library. It imports nothing of the product, keeps every fact in
dictionaries and prefers the definition to the fast way, so that fault and property tests can hold
the real tables, levels and clocks against it.

Where the specification leaves room, these readings were chosen:

Decoding (`wire`)
- A time is an RFC 3339 `date-time`: `T` and `Z` in either case, seconds and colons required, no
  space for `T`. Second 60, hour 24, `+24:00` and instants outside the years 1 to 9999 UTC are
  `schema`. Digits after the sixth of a fraction are cut off, not rounded.
- `naive_time` is a time that is right but for its missing offset; any other bad text is `schema`.
- Only `display_name` may be `null`; `null` elsewhere is `schema`, in fields with a default too.
- `ce_id` counts only if the body has no `id` at all; of several such headers the last counts.
- Text over 200 characters (code points) or with NUL is `schema`. Empty text is allowed.
- `NaN`, `Infinity` and a byte order mark are `not_json`. Half a surrogate pair is JSON but no text:
  `schema` in a name. Numbers of any length are JSON. Of a field given twice the last counts.
  How deep unknown fields may nest is left open.
- A membership tombstone whose key is not two ids joined by a colon is `bad_id`.
- A tombstone's Kafka timestamp counts as a time field for `future_dated`.

Facts (`state`)
- Canonical bodies are compared as UTF-8 bytes, times with six digits and `Z`, so that the order of
  times is their order in time; an absent `display_name` is `null`.
- A clash is counted when an arriving record meets the current one with equal `(recorded_at, id)`
  and another body. So the count, unlike the facts, depends on the order of arrival.
- An erasure removes what was recorded at or before `erased_at`, whether it arrived before or after
  the tombstone; what was recorded later stays. Otherwise facts would depend on the order. That of a
  tombstone is the end of its Kafka timestamp's millisecond.
- A user's profile updates recorded at or before `erased_at` go, and stay away, if the erasure
  leaves no fact of the user in any organisation (one in which the member `left` still counts).
  This is the one effect that depends on what had arrived by then.
- A member is known in an organisation by a membership record or any attendance or RSVP there,
  counted or not.

Levels (`rules`, `clock`)
- An inferred `joined_at` is the earliest counted fact even if it lies after `as_of`; the member is
  then not scored until it comes. It is inferred with or without implicit membership.
- The clock of a member who is not scored still shows when a count changes: its definition makes
  no exception for them. In a suspended organisation nothing is evaluated: level and clocks are
  None, and `organization_status` says why; what the service stored before stays there.
- An override has no effect before the instant at which it was set; it outlives a spell without
  score by withdrawn facts or suspension, but not leaving, erasure or a deleted organisation.
- An improvement leads to `moderate` or `highly_engaged`; `new` stands beside `moderate`.
"""

from tests.oracle.history import check_history
from tests.oracle.rules import Override, Signals, Thresholds
from tests.oracle.state import Evaluation, Oracle
from tests.oracle.wire import KINDS, canonical_body

__all__ = [
    "KINDS",
    "Evaluation",
    "Oracle",
    "Override",
    "Signals",
    "Thresholds",
    "canonical_body",
    "check_history",
]
