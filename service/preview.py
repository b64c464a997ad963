"""What other thresholds would do to an organisation: a tally, member by member.

Pure. Levels are by the rules, before and after at the same instant; a member under an active
override stays.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import datetime
from itertools import chain, zip_longest
from typing import Final

from service.api.values import PreviewExample, ThresholdsPreview
from service.levels import Level
from service.rules import classify
from service.signals import Activity, signals_at
from service.thresholds import Thresholds
from service.timeline import Override

MAX_EXAMPLES: Final = 20

Move = tuple[Level, Level]


class PreviewTally:
    """Counts moves between levels; `add` every scored member once, then `result`."""

    def __init__(self, before: Thresholds, after: Thresholds, as_of: datetime) -> None:
        self._before, self._after, self._as_of = before, after, as_of
        self._matrix: Counter[Move] = Counter()
        self._examples: defaultdict[Move, list[PreviewExample]] = defaultdict(list)
        # The numbers in force are refused, so nothing would be published and nobody asked.
        self.is_other = before.numbers != after.numbers

    def add(
        self,
        user_id: str,
        display_name: str | None,
        activity: Activity,
        override: Override | None,
    ) -> None:
        """Count one scored member; dates reach back the longer of the two windows."""
        as_of = self._as_of
        if override is not None and override.active_at(as_of):
            self._matrix[override.level, override.level] += 1
            return
        level, next_level = (
            classify(signals_at(activity, t.window, as_of), t, as_of).level
            for t in (self._before, self._after)
        )
        self._matrix[level, next_level] += 1
        if level is not next_level:
            examples = self._examples[level, next_level]
            if len(examples) < MAX_EXAMPLES:
                examples.append(PreviewExample(user_id, display_name, level, next_level))

    def result(self, *, claude_calls: int) -> ThresholdsPreview:
        """The preview: every scored member gets a level record, since the version is in it."""
        members = self._matrix.total()
        moved = sum(n for (level, after), n in self._matrix.items() if level is not after)
        # One of each move first, then the next of each.
        examples = chain.from_iterable(zip_longest(*self._examples.values()))
        return ThresholdsPreview(
            base_version=self._before.version,
            as_of=self._as_of,
            members=members,
            members_changed=moved,
            matrix={(a, b): self._matrix[a, b] for a in Level for b in Level},
            examples=[e for e in examples if e is not None][:MAX_EXAMPLES],
            level_records=members if self.is_other else 0,
            change_records=moved,
            claude_calls=claude_calls,
        )
