from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.classifier.asking import Reply, ToolCall, Usage
from service.classifier.guard import (
    Fault,
    Verdict,
    _fault_in,
    allowed_levels,
    available_placeholders,
    check,
    levels_near,
)
from service.classifier.situation import Situation, situation_of
from service.classifier.templates import all_texts
from service.levels import Level
from service.texts import PLACEHOLDERS as PLACEHOLDERS_OF_TEMPLATES
from service.texts import Texts, TextValues, is_clean, render_admin, render_user
from service.thresholds import DEFAULT_THRESHOLDS
from tests.unit.test_templates import evaluation_of
from tests.unit.test_texts import HURTFUL

H, M, R, N, I = (  # noqa: E741
    Level.HIGHLY_ENGAGED, Level.MODERATE, Level.AT_RISK, Level.NEW, Level.INACTIVE,
)  # fmt: skip

# Attended once lately, a member for long, no invitation accepted.
SITUATION = situation_of(evaluation_of((10,)), DEFAULT_THRESHOLDS)
GOOD: dict[str, Any] = {
    "level": "moderate",
    "admin_explanation": "{member} of {org} came on {last_attended}; next: {next_change}.",
    "user_explanation": "It was good to see you on {last_attended}. Come again to {org}.",
}


def reply(
    answer: dict[str, Any] | None = None,
    *,
    stop_reason: str | None = "tool_use",
    name: str = "classify_engagement",
    calls: int = 1,
    **changes: Any,
) -> Reply:
    given = {**GOOD, **changes} if answer is None else answer
    return Reply(stop_reason, (ToolCall(name, given),) * calls, Usage(900, 150))


def test_a_good_answer_passes() -> None:
    verdict = check(reply(), SITUATION)
    assert isinstance(verdict, Verdict)
    assert verdict.level is M
    assert verdict.texts.admin == GOOD["admin_explanation"]


@pytest.mark.parametrize("stop_reason", ["tool_use", "end_turn", "stop_sequence", None])
def test_a_complete_call_counts_whatever_it_ended_for(stop_reason: str | None) -> None:
    assert isinstance(check(reply(stop_reason=stop_reason), SITUATION), Verdict)


def test_white_space_is_tidied() -> None:
    verdict = check(reply(user_explanation="  It is good\n to have you with\t{org}. "), SITUATION)
    assert isinstance(verdict, Verdict)
    assert verdict.texts.user == "It is good to have you with {org}."


@pytest.mark.parametrize(
    ("bad", "fault"),
    [
        (reply(stop_reason="refusal", calls=0), Fault.REFUSAL),
        (reply(stop_reason="max_tokens"), Fault.CUT_OFF),
        (reply(stop_reason="pause_turn"), Fault.CUT_OFF),
        (reply(stop_reason="model_context_window_exceeded", calls=0), Fault.CUT_OFF),
        (reply(stop_reason="end_turn", calls=0), Fault.NO_CALL),
        (reply(stop_reason=None, calls=0), Fault.NO_CALL),
        (reply(calls=2), Fault.SEVERAL_CALLS),
        (reply(name="delete_everything"), Fault.WRONG_TOOL),
        (reply({"level": "moderate", "admin_explanation": "With {org}."}), Fault.SCHEMA),
        (reply({**GOOD, "confidence": 1}), Fault.SCHEMA),
        (reply({}), Fault.SCHEMA),
        (reply(level="legendary"), Fault.SCHEMA),
        (reply(level=None), Fault.SCHEMA),
        (reply(user_explanation=""), Fault.SCHEMA),
        (reply(user_explanation=["{org}"]), Fault.SCHEMA),
        (reply(user_explanation="{org} " * 121), Fault.TOO_LONG),
        (reply(level="inactive"), Fault.LEVEL),
        (reply(level="new"), Fault.LEVEL),
    ],
)
def test_answers_of_the_wrong_form(bad: Reply, fault: Fault) -> None:
    assert check(bad, SITUATION) is fault


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("It is good to have you.", Fault.NO_ORG),
        ("With {org} since {birthday}.", Fault.PLACEHOLDER),
        ("With {org}, {last_rsvp}.", Fault.PLACEHOLDER),  # no invitation accepted: no value
        ("With {org} {}.", Fault.PLACEHOLDER),
        ("With {org} and {{member}}.", Fault.PLACEHOLDER),
        ("With {org} {.", Fault.PLACEHOLDER),
        ("With {ORG} and {org}.", Fault.PLACEHOLDER),
        ("With <b>{org}</b>.", Fault.MARK_UP),
        ("With {org}.<script>alert(1)</script>", Fault.MARK_UP),
        ("With **{org}**.", Fault.MARK_UP),
        ("With `{org}`.", Fault.MARK_UP),
        ("- With {org}", Fault.MARK_UP),
        ("See:\n1. {org}", Fault.MARK_UP),
        ("With {org} &amp; friends.", Fault.MARK_UP),
        ("With [{org}](somewhere).", Fault.MARK_UP),
        ("With {org}: https://evil.example/x", Fault.LINK),
        ("With {org}: www.evil.example", Fault.LINK),
        ("With {org}: evil.com has more.", Fault.LINK),
        ("With {org}: mail me@evil.example", Fault.LINK),
        ("With {org} see *hi* there.", Fault.MARK_UP),
        ("With {org} see _hi_ there.", Fault.MARK_UP),
        ("With _{org} and {last_attended}_ there.", Fault.MARK_UP),
        ("With {org} see [x][1].", Fault.MARK_UP),
        ("With {org} see [x].", Fault.MARK_UP),
        ("With {org}\n| a | b |", Fault.MARK_UP),
        ("## With {org}", Fault.MARK_UP),
        ("With {org}: riverside.community has more.", Fault.LINK),
        ("With {org}: chess.online/join now", Fault.LINK),
        ("With {org}: t.co/abc", Fault.LINK),
        ("With {org}: art.museum", Fault.LINK),
        ("With {org}: engagement.software.", Fault.LINK),
        ("With {org}: //evil.example/x", Fault.LINK),
        ("With {org}: //evil/x", Fault.LINK),
        ("With {org}: tel:+4912345", Fault.LINK),
        ("With {org}: javascript:alert(1)", Fault.LINK),
        ("With {org}: MAILTO:me", Fault.LINK),
        ("With {org}: EVIL.Example", Fault.LINK),
        ("With {org}: my-club2.xn--p1ai", Fault.LINK),
        ("With {org}: клуб.рф", Fault.LINK),
        ("With {org}: evil\uff0eexample", Fault.LINK),
        ("With {org}: evil\u3002example", Fault.LINK),
        ("With {org}.community.", Fault.LINK),  # as good as the name of the organisation
        ("With evil.{org}", Fault.LINK),
        ("With {org}: 203.0.113.7", Fault.LINK),
        ("With {org} since 2024.", Fault.DATE),
        ("With {org} on 4 March.", Fault.DATE),
        ("With {org} on March 4.", Fault.DATE),
        ("With {org} on 04/03/24.", Fault.DATE),
        ("With {org}, two weeks ago.", Fault.DATE),
        ("With {org}\u202e.", Fault.CHARACTERS),
        ("With\u200b {org}.", Fault.CHARACTERS),
        ("With {org}\x07.", Fault.CHARACTERS),
    ],
)
def test_texts_that_may_not_be_shown(text: str, fault: Fault) -> None:
    assert check(reply(user_explanation=text), SITUATION) is fault
    if fault is not Fault.SCHEMA:
        assert check(reply(admin_explanation=text), SITUATION) is fault


@pytest.mark.parametrize(
    "text",
    [
        "You came to 2 events with {org} in 90 days, and 3 make you a regular.",
        "Come along with a friend; {org} may have 5 more events this season.",
        "Well done! {org} is glad: between 6 and 9 events, that is a lot (really).",
        "It's been a pleasure, and {org} would love 1 or 2 more visits e.g. in the spring.",
        "You came on {last_attended} to {org}; what counts changes on {next_change}.",
        "Doors of {org} open at 9 a.m. (U.S. time), i.e. early; 2.5 hours, about 1.5 a visit.",
        "A visit ... and {org} smiles: 7:30 p.m. is best, or 50/50 and/or later...and so on.",
        "One * is fine with {org}, 3 * 4 too; so is snake_case, and a well-known friend & you.",
        "Dr. Who, Ph.D., of {org} says: see you. And again: it is good. \u201cSo it is.\u201d",
    ],
)
def test_ordinary_texts_pass(text: str) -> None:
    assert isinstance(check(reply(user_explanation=text), SITUATION), Verdict)


def test_the_member_is_not_named_to_themselves() -> None:
    assert check(reply(user_explanation="{member}, hello from {org}."), SITUATION) is (
        Fault.PLACEHOLDER
    )


@pytest.mark.parametrize("word", HURTFUL)
def test_hurtful_words_in_the_members_text(word: str) -> None:
    text = f"With {{org}} you are {word} of missing much."
    assert check(reply(user_explanation=text), SITUATION) is Fault.HURTFUL
    # Administrators may read them, if they are plainly written.
    allowed = check(reply(admin_explanation="{member} of {org} is at risk."), SITUATION)
    assert isinstance(allowed, Verdict)


# --------------------------------------------------------------------------------------- levels


@pytest.mark.parametrize(
    ("rules_level", "is_new", "enough_events", "allowed"),
    [
        (H, False, True, {H, M}),
        (H, True, True, {H, M, N}),
        (M, False, True, {M, R, H}),
        (M, True, True, {M, R, H, N}),
        (M, False, False, {M, R}),
        (R, False, False, {R, M, I}),
        (R, True, False, {R, M, I}),
        (I, False, False, {I, R}),
        (N, True, False, {N, M}),
        (N, True, True, {N, M, H}),
    ],
)
def test_which_levels_claude_may_choose(
    rules_level: Level, is_new: bool, enough_events: bool, allowed: set[Level]
) -> None:
    assert levels_near(rules_level, is_new=is_new, enough_events=enough_events) == allowed


@pytest.mark.parametrize(
    ("attended", "joined", "allowed"),
    [
        ((1, 2, 3), 10, {H, M, N}),
        ((1, 2, 3), 100, {H, M}),
        ((1,), 10, {N, M, H}),
        ((), 10, {N, M}),
        ((1,), 100, {M, R, H}),
        ((100,), 200, {R, M, I}),
        ((), 300, {I, R}),
    ],
)
def test_levels_follow_from_the_situation(
    attended: tuple[float, ...], joined: float, allowed: set[Level]
) -> None:
    situation = situation_of(evaluation_of(attended, joined=joined), DEFAULT_THRESHOLDS)
    assert allowed_levels(situation) == allowed


# ------------------------------------------------------------------------------------- property


@pytest.mark.parametrize("texts", all_texts())
def test_the_rules_own_texts_are_free_of_mark_up_and_links(texts: Texts) -> None:
    for text in texts:
        assert _fault_in(text, PLACEHOLDERS_OF_TEMPLATES) not in (Fault.MARK_UP, Fault.LINK)


SITUATIONS = st.builds(
    lambda attended, rsvps, joined: situation_of(
        evaluation_of(attended, rsvps, joined=joined), DEFAULT_THRESHOLDS
    ),
    st.lists(st.integers(0, 300), max_size=5).map(tuple),
    st.lists(st.integers(0, 300), max_size=3).map(tuple),
    st.integers(0, 400),
)
PLACEHOLDERS = ["{org}", "{member}", "{last_attended}", "{last_rsvp}", "{joined}", "{next_change}"]
ODDITIES = [
    "{x}",
    "at",
    "in",
    "risk",
    "active",
    "a.b",
    "<i>",
    "&lt;",
    "https://",
    "\u200b",
    "-",
    "_",
]
PIECES = st.sampled_from([*PLACEHOLDERS, *ODDITIES, "with", "."])
TEXTS = st.lists(st.one_of(PIECES, st.just(" "), st.text(max_size=6)), max_size=16).map("".join)


@settings(max_examples=500, deadline=None)
@given(
    SITUATIONS,
    st.sampled_from([*Level, "legendary"]),
    TEXTS,
    TEXTS,
    st.sampled_from(["Chess Club", "Risk Society", "Active Minds", "{member}", "at_risk"]),
)
def test_whatever_passes_is_fit_to_be_shown(
    situation: Situation, level: str, admin: str, user: str, org_name: str
) -> None:
    answer = {"level": level, "admin_explanation": admin, "user_explanation": user}
    verdict = check(reply(answer), situation)
    if isinstance(verdict, Fault):
        return
    assert verdict.level in allowed_levels(situation)
    values = TextValues(org_name)
    shown = render_user(verdict.texts.user, values)
    assert is_clean(shown)
    for text in (shown, render_admin(verdict.texts.admin, values)):
        assert not set("{}<>`") & set(text)
        assert "http" not in text
        assert len(text) <= 600 + 200
    assert "member" in available_placeholders(situation)
