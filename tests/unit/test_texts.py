from __future__ import annotations

from datetime import UTC, datetime
from time import perf_counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.classifier.templates import all_texts
from service.levels import Level
from service.texts import (
    PLACEHOLDERS,
    YOUR_ORGANISATION,
    TextValues,
    in_words,
    is_clean,
    placeholders_in,
    plain_name,
    render_admin,
    render_user,
)
from service.thresholds import DEFAULT_THRESHOLDS


def at(month: int, day: int) -> datetime:
    return datetime(2026, month, day, 12, tzinfo=UTC)


VALUES = TextValues(
    org_name="Riverside Chess Club",
    member_name="Ada",
    thresholds=DEFAULT_THRESHOLDS,
    events=4,
    last_attended_at=at(3, 4),
    last_rsvp_at=at(3, 20),
    profile_updated_at=at(1, 9),
    joined_at=at(2, 1),
    next_change_at=at(5, 1),
    next_level_change_at=at(6, 2),
    next_level=Level.AT_RISK,
    improvement_events=2,
    improvement_before=at(6, 3),
    override_expires_at=at(9, 9),
)

HURTFUL = [
    "at_risk", "At-Risk", "AT RISK", "at  risk", "at\u00a0risk", "a\u200bt\u200b \u2060risk",
    "at\u00adrisk", "atrisk", "inactive", "In-Active", "IN_ACTIVE", "in\u200dactive", "İnactive",
    "\uff21\uff34 \uff32\uff29\uff33\uff2b",
    "áť rísk", "\u0430t risk", "a t _ r i s k", "at\u2011risk",
    "at\u3164risk", "\u0131nactive", "at\nrisk",
]  # fmt: skip


@pytest.mark.parametrize("text", HURTFUL)
def test_hurtful_words_are_found_in_every_spelling(text: str) -> None:
    assert not is_clean(text)
    assert not is_clean(f"Somebody wrote {text} here")


@pytest.mark.parametrize(
    "text", ["", "active", "a risk worth taking", "An active club", "Attention, risky", "日本"]
)
def test_other_words_are_clean(text: str) -> None:
    assert is_clean(text)


def test_every_placeholder_is_rendered_for_both_audiences() -> None:
    template = " | ".join(f"{name}={{{name}}}" for name in sorted(PLACEHOLDERS))
    assert render_admin(template, VALUES) == (
        "before=3 June 2026 | events=4 | highly_min=3 | joined=1 February 2026 | "
        "last_activity=20 March 2026 | last_attended=4 March 2026 | last_rsvp=20 March 2026 | "
        "member=Ada | moderate_min=1 | needed=2 | next_change=1 May 2026 | next_level=at risk | "
        "next_level_change=2 June 2026 | org=Riverside Chess Club | "
        "override_until=9 September 2026 | window_days=90"
    )
    user = render_user(template, VALUES)
    assert "member=you" in user
    assert "next_level=We'd love to see you" in user
    assert is_clean(user)


def test_topics_do_not_name_the_member() -> None:
    assert render_admin("Ask {member}.", VALUES._replace(member_name=None)) == "Ask this member."


def test_missing_values_read_as_words() -> None:
    template = " ".join(f"{{{name}}}" for name in sorted(PLACEHOLDERS))
    bare = TextValues("")
    for text in (render_admin(template, bare), render_user(template, bare)):
        assert "{" not in text
        assert "None" not in text
        assert YOUR_ORGANISATION in text


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("a {unknown} b", "a  b"),
        ("50 % of {org", "50 % of org"),
        ("%s %(x)s {} {{org}}", "%s %(x)s  Riverside Chess Club"),
        ("}{", ""),
    ],
)
def test_odd_templates_leave_no_brace(template: str, text: str) -> None:
    assert render_admin(template, VALUES) == text
    assert render_user(template, VALUES) == text


@pytest.mark.parametrize("word", HURTFUL)
def test_a_hurtful_organisation_name_is_left_out_for_the_member(word: str) -> None:
    values = VALUES._replace(org_name=f"The {word} Society")
    assert render_user("Welcome to {org}.", values) == "Welcome to your organisation."
    assert plain_name(values.org_name) in render_admin("{member} of {org}.", values)


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("See you at {org}.", "Risk Society"),
        ("We met in {org}.", "Active Minds"),
        ("{org} risk takers", "Look At"),
        ("You are in-{last_attended}{org}", "active"),
    ],
)
def test_a_name_that_completes_a_hurtful_word_is_left_out(template: str, name: str) -> None:
    text = render_user(template, VALUES._replace(org_name=name))
    assert is_clean(text)
    assert YOUR_ORGANISATION in text


def test_a_hurtful_template_is_never_shown_to_the_member() -> None:
    assert render_user("You are at risk with {org}.", VALUES) == (
        "It is good to have you with your organisation."
    )


def test_names_are_one_line_of_plain_text() -> None:
    assert plain_name("  A\tB\n\u202eC\u2066\x00\u200b{d}\ud800 ") == "A B C (d)"
    assert plain_name("<b>Tom & Co</b>") == "<b>Tom & Co</b>"
    assert plain_name("\u200b\u202e") == ""


def test_dates_are_written_out() -> None:
    assert in_words(datetime(2026, 3, 4, 23, 59, tzinfo=UTC)) == "4 March 2026"
    assert in_words(datetime(1, 1, 1, tzinfo=UTC)) == "1 January 1"
    assert in_words(datetime.max.replace(tzinfo=UTC)) == "31 December 9999"


def test_placeholders_in() -> None:
    assert placeholders_in("{org} {x y} {} {member}") == {"org", "x y", "", "member"}


@settings(max_examples=300, deadline=None)
@given(
    st.text(max_size=60),
    st.one_of(st.none(), st.text(max_size=40)),
    st.lists(
        st.one_of(
            st.text(max_size=12),
            st.sampled_from(["{org}", "{member}", "at ", "in ", "risk", "{next_level}", "{", "}"]),
        ),
        max_size=8,
    ).map("".join),
)
def test_rendering_never_fails_and_never_hurts(
    org_name: str, member_name: str | None, template: str
) -> None:
    values = VALUES._replace(org_name=org_name, member_name=member_name)
    user = render_user(template, values)
    assert is_clean(user)
    assert not {"{", "}"} & set(user + render_admin(template, values))


@pytest.mark.parametrize("org_name", ["Risk Society", "Active Minds", "AT", "in", "at_risk", "Zed"])
def test_no_member_text_of_ours_hurts_whatever_the_organisation(org_name: str) -> None:
    for texts in all_texts():
        assert is_clean(render_user(texts.user, VALUES._replace(org_name=org_name)))


def test_rendering_both_texts_is_cheap() -> None:
    pairs = all_texts()
    best = 1.0
    for _ in range(20):
        begun = perf_counter()
        for admin, user in pairs:
            render_admin(admin, VALUES)
            render_user(user, VALUES)
        best = min(best, (perf_counter() - begun) / len(pairs))
    assert best < 6e-6 * 2  # twice the bar, for a busy machine
