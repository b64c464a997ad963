"""The fold of the input log, thresholds and overrides, and what follows from them."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TypedDict

from tests.oracle.clock import Improvement, nearest_improvement, next_changes
from tests.oracle.facts import Facts, Member
from tests.oracle.rules import (
    Override,
    Signals,
    Standing,
    Thresholds,
    decide,
    shown_level,
    signals_at,
)
from tests.oracle.wire import KINDS, Headers, Record, RefusedError, decode, member_of_key

COUNTED_STATUSES = ("attended", "partial")


class Evaluation(TypedDict):
    """One member at one instant. `level` is the shown one, `computed_level` what the rules say."""

    org_id: str
    user_id: str
    organization_status: str
    rule: int | None
    level: str | None
    computed_level: str | None
    reason: str | None
    signals: Signals
    thresholds_version: int
    next_change_at: datetime | None
    next_level_change_at: datetime | None
    next_level: str | None


class Oracle:
    """Holds what the service should hold after the same input."""

    def __init__(
        self,
        *,
        implicit_membership: bool = True,
        max_future_skew_s: float = 86_400,
        thresholds: Mapping[str, Thresholds | Mapping[str, int]] | None = None,
    ) -> None:
        """Start empty, with version 1 of the given thresholds by organisation."""
        self.implicit_membership = implicit_membership
        self.max_skew = timedelta(seconds=max_future_skew_s)
        self._facts = Facts()
        self._overrides: dict[Member, Override] = {}
        self._thresholds: dict[str, list[Thresholds]] = {}
        for org_id, chosen in (thresholds or {}).items():
            self.set_thresholds(org_id, chosen)

    # What goes in

    def apply(
        self,
        kind: str,
        key: bytes | None,
        value: bytes | None,
        *,
        now: datetime,
        timestamp: datetime | None = None,
        headers: Headers = (),
    ) -> str | None:
        """Fold one record in; `now` is the database's clock, `timestamp` Kafka's (default `now`).

        Returns None if the record was accepted, also if it has no effect, or else the code of its
        dead letter. Repeats have no effect.
        """
        shape = KINDS[kind]
        if value is None and kind != "membership":
            return "null_value"
        try:
            if value is None:
                self._apply_tombstone(key, timestamp or now, now)
            else:
                record = decode(shape, value, headers, now=now, max_skew=self.max_skew)
                self._facts.keep(kind, record)
                self._end_overrides(kind, record)
        except RefusedError as refused:
            return refused.code
        return None

    def _apply_tombstone(self, key: bytes | None, erased_at: datetime, now: datetime) -> None:
        org_id, user_id = member_of_key(key)
        if erased_at > now + self.max_skew:
            raise RefusedError("future_dated")
        # Kafka tells the millisecond: what was recorded anywhere in it goes.
        millisecond = erased_at.microsecond // 1000
        self.erase(org_id, user_id, erased_at.replace(microsecond=1000 * millisecond + 999))

    def _end_overrides(self, kind: str, record: Record) -> None:
        """Whoever has left, or whose organisation was deleted, has no override any more."""
        if kind == "membership":
            member = (record["org_id"], record["user_id"])
            membership = self._facts.memberships.get(member)
            if membership is not None and membership["status"] == "left":
                self._overrides.pop(member, None)
        elif kind == "organization":
            org_id = record["org_id"]
            if self.organization(org_id)["status"] == "deleted":
                for member in [one for one in self._overrides if one[0] == org_id]:
                    del self._overrides[member]

    def erase(self, org_id: str, user_id: str, erased_at: datetime) -> None:
        """Erase a member up to that instant. Idempotent."""
        self._facts.erase((org_id, user_id), erased_at)
        self._overrides.pop((org_id, user_id), None)

    def set_thresholds(self, org_id: str, thresholds: Thresholds | Mapping[str, int]) -> int:
        """Make these the organisation's thresholds, at every `as_of`; returns their version."""
        if not isinstance(thresholds, Thresholds):
            thresholds = Thresholds(**thresholds)
        versions = self._thresholds.setdefault(org_id, [Thresholds()])
        versions.append(thresholds)
        return len(versions) - 1

    def set_override(
        self,
        org_id: str,
        user_id: str,
        level: str,
        notes: str,
        performed_by: str,
        at: datetime,
        expires_at: datetime | None = None,
    ) -> None:
        """Show this level from `at` until before `expires_at`, in place of any earlier override.

        ValueError if it would have expired already or the member is not scored at `at`.
        """
        if expires_at is not None and expires_at <= at:
            raise ValueError("the override would have expired already")
        if self.evaluate(org_id, user_id, at)["level"] is None:
            raise ValueError("the member is not scored")
        self._overrides[org_id, user_id] = Override(level, notes, performed_by, at, expires_at)

    def clear_override(self, org_id: str, user_id: str, at: datetime) -> None:
        """End the member's override; ValueError if none is active at `at`."""
        if self.override(org_id, user_id, at) is None:
            raise ValueError("no override is active")
        del self._overrides[org_id, user_id]

    # What comes out

    @property
    def clashes(self) -> int:
        """How many records met a current one with equal `(recorded_at, id)` and another body."""
        return self._facts.clashes

    def members(self, org_id: str | None = None) -> list[Member]:
        """Everybody known, scored or not, in order."""
        return sorted(one for one in self._facts.members() if org_id in (None, one[0]))

    def facts(self, kind: str) -> list[Record]:
        """The current records of a kind, as its table should hold them, by natural key."""
        return self._facts.records(kind)

    def organization(self, org_id: str) -> dict[str, str]:
        """Its `name` and `status`, known or by default."""
        record = self._facts.organizations.get(org_id, {"name": org_id, "status": "active"})
        return {"name": record["name"], "status": record["status"]}

    def override(self, org_id: str, user_id: str, as_of: datetime) -> Override | None:
        """The override in effect at that instant."""
        found = self._overrides.get((org_id, user_id))
        return found if found is not None and found.is_active(as_of) else None

    def signals(self, org_id: str, user_id: str, as_of: datetime) -> Signals:
        """The seven signals at that instant, also of a member who is not scored."""
        return signals_at(self._standing((org_id, user_id)), as_of)

    def evaluate(
        self, org_id: str, user_id: str, as_of: datetime, *, with_override: bool = False
    ) -> Evaluation:
        """The member at that instant, by the rules alone or with the override that is set now.

        With the override, `level` and both clocks are those of the shown level.
        """
        standing = self._standing((org_id, user_id), with_override=with_override)
        status = self.organization(org_id)["status"]
        verdict = decide(standing, as_of)
        clocks = next_changes(standing, as_of) if status != "suspended" else (None, None, None)
        return Evaluation(
            org_id=org_id,
            user_id=user_id,
            organization_status=status,
            rule=verdict.rule,
            level=shown_level(standing, as_of),
            computed_level=verdict.level,
            reason=verdict.reason,
            signals=signals_at(standing, as_of),
            thresholds_version=max(0, len(self._thresholds.get(org_id, [])) - 1),
            next_change_at=clocks[0],
            next_level_change_at=clocks[1],
            next_level=clocks[2],
        )

    def evaluate_all(
        self, as_of: datetime, org_id: str | None = None, *, with_override: bool = False
    ) -> dict[Member, Evaluation]:
        """`evaluate` for everybody known."""
        return {
            member: self.evaluate(*member, as_of, with_override=with_override)
            for member in self.members(org_id)
        }

    def shown_level(self, org_id: str, user_id: str, as_of: datetime) -> str | None:
        """The override's level while one is active, else the rules'; None if not scored."""
        return shown_level(self._standing((org_id, user_id), with_override=True), as_of)

    def nearest_improvement(self, org_id: str, user_id: str, as_of: datetime) -> Improvement | None:
        """The fewest more attended events that would lift the computed level, and until when."""
        return nearest_improvement(self._standing((org_id, user_id)), as_of)

    def _standing(self, member: Member, *, with_override: bool = False) -> Standing:
        org_id, user_id = member
        attended = sorted(
            one["occurred_at"]
            for one in self._facts.events_of("attendance", member)
            if one["status"] in COUNTED_STATUSES
        )
        going = sorted(
            one["responded_at"]
            for one in self._facts.events_of("rsvp", member)
            if one["response"] == "going"
        )
        profile = sorted(
            one["updated_at"]
            for one in self._facts.profiles.get(user_id, {}).values()
            if one["actor"] == "member"
        )
        membership = self._facts.memberships.get(member)
        joined_at: datetime | None
        source: str | None
        if membership is not None:
            joined_at, source = membership["joined_at"], "membership"
            is_member = membership["status"] == "active"
        else:
            joined_at = min(attended + going, default=None)
            source = None if joined_at is None else "inferred"
            is_member = self.implicit_membership
        return Standing(
            attended=attended,
            going=going,
            profile=profile,
            joined_at=joined_at,
            joined_at_source=source,
            may_be_scored=is_member and self.organization(org_id)["status"] == "active",
            thresholds=self._thresholds.get(org_id, [Thresholds()])[-1],
            override=self._overrides.get(member) if with_override else None,
        )
