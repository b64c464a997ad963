"""What Claude is asked: one system text per set of thresholds, one short message per situation.

Whoever changes a word here raises PROMPT_VERSION: answers are stored under it. A snapshot test
holds both together.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any, Final

from service.classifier.answer import MAX_LENGTH, TOOL_NAME
from service.classifier.asking import Request
from service.classifier.guard import (
    FAULT_MESSAGES,
    Fault,
    allowed_levels,
    available_placeholders,
)
from service.classifier.situation import Age, Joined, Situation, Span, recent_days
from service.levels import Reason
from service.thresholds import Thresholds

PROMPT_VERSION: Final = "1"


_SYSTEM: Final = """\
You work inside a CRM for membership organisations: clubs, chambers, alumni groups, open-source \
communities. For one member at a time you decide how engaged they are and explain it in two short \
texts, by calling the tool {tool} exactly once.

You get numbers and rough ages only. You never learn who the member or the organisation is; their \
names and all dates are placeholders in braces, and the program fills them in later.

The five levels, for this organisation:
- highly_engaged: comes often; at least {high} events attended in the last {window} days
- moderate: comes now and then; at least {low} attended in the last {window} days
- new: joined less than {new} days ago and does not come often yet
- at_risk: none of the others: they used to come, or have never come yet
- inactive: no sign of life (no event attended, invitation accepted or profile updated, and not \
joined) for {silent} days or more

Fixed rules have already chosen a level. Keep it unless the numbers as a whole tell otherwise, and \
choose only among the levels in "levels_to_choose_from".

admin_explanation is read by the organisation's staff. Say why the member is on this level, naming \
the numbers and dates that decided, and what would help next: two or three matter-of-fact sentences.

user_explanation is read by the member. Speak to them as "you": warm, specific, one to three \
sentences, with one thing that they could do next. It must not hurt: never name, hint at or \
paraphrase a low level, never count what they missed, never reproach. The words "at risk" and \
"inactive" must not appear in it in any spelling, and neither may words that contain or form them \
together, such as "remain active".

Both texts:
- contain {{org}}, the organisation's name; write "with {{org}}" rather than "at" or "in {{org}}"
- use only the placeholders listed in the message, spelt exactly so, and begin no sentence with one
- give dates only as placeholders and never as "x days ago": they are read for weeks
- give a number only if the message states it
- are plain English sentences, at most {most} characters: no mark-up, list, link, address or emoji
{{member}} is the member's name and belongs in admin_explanation only.

(Version {version} of these instructions.)"""

_REASONS: Final = {
    Reason.FREQUENT_ATTENDANCE: "enough events attended for the highest level",
    Reason.RECENTLY_JOINED: "joined recently",
    Reason.SOME_ATTENDANCE: "some events attended, not enough for the highest level",
    Reason.NO_ACTIVITY: "no sign of life for long",
    Reason.LAPSED: "attended before, but not enough lately",
    Reason.NEVER_ATTENDED: "has never attended an event",
}

_MEANINGS: Final = {
    "org": "the organisation's name",
    "member": "the member's name, in admin_explanation only",
    "last_attended": "the day of the latest event attended",
    "last_rsvp": "the day on which an invitation was last accepted",
    "joined": "the day on which the member joined",
    "next_change": "the day on which the counts or the level next change if nothing more happens",
}


@lru_cache(maxsize=1024)
def system_text(thresholds: Thresholds) -> str:
    """The purpose, the levels by these thresholds, the two audiences and what a text may hold."""
    return _SYSTEM.format(
        tool=TOOL_NAME,
        high=thresholds.highly_engaged_min_events,
        low=thresholds.moderate_min_events,
        window=thresholds.activity_window_days,
        new=thresholds.new_member_days,
        silent=thresholds.inactive_after_days,
        most=MAX_LENGTH,
        version=PROMPT_VERSION,
    )


def message_text(situation: Situation) -> str:
    """The situation as JSON: numbers, ranges, codes and the placeholders that have a value."""
    thresholds = situation.thresholds
    content: dict[str, Any] = {
        "level_by_the_rules": situation.level,
        "because": _REASONS[situation.reason],
        "levels_to_choose_from": sorted(allowed_levels(situation)),
        "events_attended": _count(situation.events),
        "invitations_accepted": _count(situation.rsvps),
        "counted_over_days": thresholds.activity_window_days,
        "last_event_attended": _ago(situation.last_attended, thresholds),
        "last_invitation_accepted": _ago(situation.last_rsvp, thresholds),
        "profile_updated_meanwhile": situation.profile_updated,
        "first_seen" if situation.inferred else "joined": _since(situation.joined, thresholds),
        "level_if_nothing_more_happens": situation.next_level or "stays",
        "placeholders": {
            f"{{{name}}}": meaning
            for name, meaning in _MEANINGS.items()
            if name in available_placeholders(situation)
        },
    }
    return json.dumps(content, indent=1)


def request_for(situation: Situation, fault: Fault | None = None) -> Request:
    """The question; `fault` is why an earlier answer to it was refused."""
    message = message_text(situation)
    if fault is not None:
        message += (
            f"\n\nAn earlier answer to this was refused: {FAULT_MESSAGES[fault]} "
            "Answer again, and mind this."
        )
    return Request(system_text(situation.thresholds), message)


def _count(span: Span) -> int | str:
    if span.high is None:
        return f"{span.low} or more"
    return span.low if span.low == span.high else f"between {span.low} and {span.high}"


def _ago(age: Age, thresholds: Thresholds) -> str:
    recent, window = recent_days(thresholds), thresholds.activity_window_days
    silent = thresholds.inactive_after_days
    return {
        Age.NEVER: "never",
        Age.RECENT: f"less than {recent} days ago",
        Age.COUNTED: f"{recent} to {window} days ago",
        Age.QUIET: f"{window} to {silent} days ago",
        Age.LONG_AGO: f"{silent} days ago or more",
    }[age]


def _since(joined: Joined, thresholds: Thresholds) -> str:
    new, silent = thresholds.new_member_days, thresholds.inactive_after_days
    return {
        Joined.NEW: f"less than {new} days ago",
        Joined.SETTLED: f"{new} to {silent} days ago",
        Joined.LONG: f"{max(new, silent)} days ago or more",
    }[joined]
