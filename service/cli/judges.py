"""Who decides when a command evaluates: as the workers do, as far as this process can tell."""

from __future__ import annotations

from db.evaluating import Judge, RulesJudge
from db.judging import ClaudeJudge, KeepingJudge
from service.classifier.choice import uses_claude
from service.settings import Settings


def judge_for(settings: Settings) -> Judge:
    """The rules where they are asked for; otherwise Claude's verdicts stand.

    Without a key this process may not ask for new ones, but the workers may have one.
    """
    if settings.classifier == "rules":
        return RulesJudge()
    return ClaudeJudge(settings.model) if uses_claude(settings) else KeepingJudge()
