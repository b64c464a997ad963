"""Whether Claude is used at all: a setting, or whether there is a key."""

from __future__ import annotations

from service.classifier.claude import Claude
from service.errors import SettingsError
from service.settings import Settings


def uses_claude(settings: Settings) -> bool:
    """Whether verdicts are asked for; SettingsError when they should be and there is no key."""
    if settings.classifier == "rules":
        return False
    if settings.classifier == "claude" and settings.anthropic_api_key is None:
        raise SettingsError("ENGAGEMENT_CLASSIFIER=claude needs ANTHROPIC_API_KEY")
    return settings.anthropic_api_key is not None


def claude_of(settings: Settings) -> Claude:
    """Claude as configured; nothing is imported or opened before the first question."""
    if settings.anthropic_api_key is None:
        raise SettingsError("ANTHROPIC_API_KEY is not set")
    return Claude(
        settings.anthropic_api_key.get_secret_value(),
        settings.model,
        base_url=settings.anthropic_base_url,
    )
