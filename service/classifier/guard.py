"""What Claude may say: only an answer that passes here is ever stored or shown."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from enum import StrEnum
from functools import lru_cache
from typing import Final, NamedTuple

from pydantic import ValidationError

from service.classifier.answer import MAX_LENGTH, TOOL_NAME, Answer
from service.classifier.asking import Reply
from service.classifier.situation import Age, Joined, Situation
from service.levels import LADDER, Level
from service.texts import Texts, is_clean, placeholders_in, with_placeholders_as


class Fault(StrEnum):
    """Why an answer is refused: the reasons of the fallback counters."""

    REFUSAL = "refusal"
    CUT_OFF = "cut_off"
    NO_CALL = "no_call"
    SEVERAL_CALLS = "several_calls"
    WRONG_TOOL = "wrong_tool"
    SCHEMA = "schema"
    TOO_LONG = "too_long"
    LEVEL = "level"
    NO_ORG = "no_org"
    PLACEHOLDER = "placeholder"
    HURTFUL = "hurtful"
    MARK_UP = "mark_up"
    LINK = "link"
    DATE = "date"
    CHARACTERS = "characters"


class Verdict(NamedTuple):
    """An answer that passed."""

    level: Level
    texts: Texts


# Why a complete answer may have stopped: mostly for the call. For any other reason it was cut off.
_ENDED: Final = ("tool_use", "end_turn", "stop_sequence", None)

# What Claude is told when it is asked once more.
FAULT_MESSAGES: Final = {
    Fault.REFUSAL: "it was declined.",
    Fault.CUT_OFF: "it was too long and was cut off.",
    Fault.NO_CALL: f"it did not call {TOOL_NAME}.",
    Fault.SEVERAL_CALLS: f"it called {TOOL_NAME} more than once.",
    Fault.WRONG_TOOL: "it called a tool that does not exist.",
    Fault.SCHEMA: "fields were missing, added, empty or of the wrong type.",
    Fault.TOO_LONG: f"a text had more than {MAX_LENGTH} characters.",
    Fault.LEVEL: "the level was not one of levels_to_choose_from.",
    Fault.NO_ORG: "a text did not contain {org}.",
    Fault.PLACEHOLDER: (
        "a text used braces for something other than the listed placeholders, or user_explanation "
        "contained {member}."
    ),
    Fault.HURTFUL: (
        'user_explanation contained "at risk" or "inactive", or words that run together to one.'
    ),
    Fault.MARK_UP: "a text contained mark-up.",
    Fault.LINK: "a text contained a link or an address.",
    Fault.DATE: "a text contained a date or an age; use the placeholders.",
    Fault.CHARACTERS: "a text contained control or invisible characters.",
}


# -------------------------------------------------------------------------------------- levels


@lru_cache(maxsize=1024)
def levels_near(rules_level: Level, *, is_new: bool, enough_events: bool) -> frozenset[Level]:
    """The rules' level and what may replace it.

    `is_new`: joined within new_member_days. `enough_events`: at least moderate_min_events attended.
    """
    levels = {rules_level}
    if rules_level is Level.NEW:
        levels |= {Level.MODERATE, Level.HIGHLY_ENGAGED}
    else:
        position = LADDER.index(rules_level)
        levels |= set(LADDER[max(position - 1, 0) : position + 2])
        if rules_level in (Level.MODERATE, Level.HIGHLY_ENGAGED):
            levels.add(Level.NEW)
    if not is_new:
        levels.discard(Level.NEW)
    if not enough_events:
        levels.discard(Level.HIGHLY_ENGAGED)
    return frozenset(levels | {rules_level})


def allowed_levels(situation: Situation) -> frozenset[Level]:
    """The levels that Claude may choose."""
    return levels_near(
        situation.level,
        is_new=situation.joined is Joined.NEW,
        enough_events=situation.events.low >= situation.thresholds.moderate_min_events,
    )


# ---------------------------------------------------------------------------------------- texts


def available_placeholders(situation: Situation) -> Collection[str]:
    """The placeholders that have a value in this situation."""
    names = ["org", "member", "joined"]
    if situation.last_attended is not Age.NEVER:
        names.append("last_attended")
    if situation.last_rsvp is not Age.NEVER:
        names.append("last_rsvp")
    if situation.changes:
        names.append("next_change")
    return names


# What a placeholder is read as here: with the words around it, it may come to a link or mark-up.
_FILLED: Final = "name"
_MARK_UP: Final = re.compile(
    r"<\s*[a-z!/?]|&(?:#|[a-z]+;)|__|`|~~|[\[\]|]"
    r"|\*\*|\*[^\s*][^*]*\*|(?<!\w)_[^\s_][^_]*_(?!\w)"  # emphasis
    r"|^\s*(?:[#>*+•-]+|\d+[.)])\s",
    re.IGNORECASE | re.MULTILINE,
)
# There are too many names of domains and schemes to list them, so a full stop or a colon that runs
# into the next word is refused. Single letters (e.g., a.m., U.S.) and decimals are no domains.
_LINK: Final = re.compile(
    r"//|\bwww\.|\S@\S|[\w-][.\u3002][^\W\d_]{2}|\b[a-z][a-z0-9+.-]*:[\w+/?]"
    r"|\b\d+(?:\.\d+){3}\b",
    re.IGNORECASE,
)
_MONTH: Final = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|june?|july?|aug(?:ust)?|sept?(?:ember)?"
    r"|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)"
)
_DATE: Final = re.compile(
    r"\b(?:19|20)\d\d\b(?! event)|\b\d{1,4}[./-]\d{1,2}[./-]\d{1,4}\b"
    rf"|\b\d{{1,2}}(?:st|nd|rd|th)?\s+(?:of\s+)?{_MONTH}\b|\b{_MONTH}\s+\d"
    r"|\b(?:days?|weeks?|months?|years?) ago\b|\byesterday\b",
    re.IGNORECASE,
)
# Control, format, surrogate, private and unassigned characters.
_HIDDEN: Final = ("Cc", "Cf", "Cs", "Co", "Cn")


def check(reply: Reply, situation: Situation) -> Verdict | Fault:
    """The verdict that the reply comes to, or the first fault found."""
    answer = _answer_in(reply)
    if isinstance(answer, Fault):
        return answer
    if answer.level not in allowed_levels(situation):
        return Fault.LEVEL
    texts = Texts(answer.admin_explanation, answer.user_explanation)
    if not is_clean(texts.user):
        return Fault.HURTFUL
    available = set(available_placeholders(situation))
    for text, known in ((texts.admin, available), (texts.user, available - {"member"})):
        fault = _fault_in(text, known)
        if fault is not None:
            return fault
    return Verdict(answer.level, Texts(*(" ".join(text.split()) for text in texts)))


def _answer_in(reply: Reply) -> Answer | Fault:
    fault = _first(
        (reply.stop_reason == "refusal", Fault.REFUSAL),
        (reply.stop_reason not in _ENDED, Fault.CUT_OFF),
        (not reply.calls, Fault.NO_CALL),
        (len(reply.calls) > 1, Fault.SEVERAL_CALLS),
        (any(call.name != TOOL_NAME for call in reply.calls), Fault.WRONG_TOOL),
    )
    if fault is not None:
        return fault
    try:
        return Answer.model_validate(reply.calls[0].input)
    except ValidationError as error:
        problems = error.errors(include_input=False, include_context=False, include_url=False)
        too_long = all(problem["type"] == "string_too_long" for problem in problems)
        return Fault.TOO_LONG if too_long else Fault.SCHEMA


def _fault_in(text: str, known: Collection[str]) -> Fault | None:
    names = placeholders_in(text)
    around = with_placeholders_as("", text)
    # Dots and signs of other alphabets count as what they stand for.
    filled = unicodedata.normalize("NFKC", with_placeholders_as(_FILLED, text))
    return _first(
        (bool(names - set(known)) or "{" in around or "}" in around, Fault.PLACEHOLDER),
        ("org" not in names, Fault.NO_ORG),
        (_MARK_UP.search(filled) is not None, Fault.MARK_UP),
        (_LINK.search(filled) is not None, Fault.LINK),
        (_DATE.search(text) is not None, Fault.DATE),
        (any(_is_hidden(character) for character in text), Fault.CHARACTERS),
    )


def _is_hidden(character: str) -> bool:
    return unicodedata.category(character) in _HIDDEN and character not in "\n\r\t"


def _first(*findings: tuple[bool, Fault]) -> Fault | None:
    return next((fault for found, fault in findings if found), None)
