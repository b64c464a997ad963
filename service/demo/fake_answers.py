"""What the stand-in for Claude says: a plain answer from the numbers of the request alone."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

# Of so many situations one is judged differently from the rules.
DISAGREES_IN: Final = 12

_OPENINGS: Final = {
    "highly_engaged": "Among the most committed people with {org} is {member}",
    "moderate": "A steady presence with {org} is {member}",
    "new": "Still finding a way into {org} is {member}",
    "at_risk": "Drifting away from {org} is {member}",
    "inactive": "Out of touch with {org} is {member}",
}
_WISHES: Final = {
    "highly_engaged": "Thank you for being there so often with {org}: it makes a real difference.",
    "moderate": "It is good to have you with {org}, and every visit of yours is noticed.",
    "new": "Welcome to {org}: a first event is the easiest way to get to know people.",
    "at_risk": "Everyone with {org} would love to see you again soon.",
    "inactive": "Your place with {org} is kept, and the door is open whenever you like.",
}


def answer_to(body: dict[str, Any], *, disagree: bool) -> dict[str, Any]:
    """The input of the tool call for one request."""
    situation = json.loads(body["messages"][-1]["content"].split("\n\n")[0])
    level = _level(situation, disagree=disagree)
    known = situation["placeholders"]
    events = situation["events_attended"]
    counted = "one event" if events == 1 else f"{events} events"
    admin = f"{_OPENINGS[level]}: {counted} in {situation['counted_over_days']} days"
    admin += ", most recently on {last_attended}." if "{last_attended}" in known else "."
    if "{last_rsvp}" in known:
        admin += " An invitation was last accepted on {last_rsvp}."
    if "{next_change}" in known:
        admin += " With nothing further the counts change on {next_change}: a good time to invite."
    user = _WISHES[level]
    if "{last_attended}" in known:
        user += " We remember seeing you on {last_attended}, and the next event is a good occasion."
    return {"level": level, "admin_explanation": admin, "user_explanation": user}


def _level(situation: dict[str, Any], *, disagree: bool) -> str:
    rules_level: str = situation["level_by_the_rules"]
    others = [level for level in situation["levels_to_choose_from"] if level != rules_level]
    digest = hashlib.sha256(json.dumps(situation, sort_keys=True).encode()).digest()
    if others and (disagree or digest[0] % DISAGREES_IN == 0):
        return str(others[digest[1] % len(others)])
    return rules_level
