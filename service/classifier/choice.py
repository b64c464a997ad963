"""Whether Claude is used at all: a setting, or whether there is a key."""

from __future__ import annotations

from urllib.parse import urlsplit

from service.classifier.claude import Claude
from service.errors import SettingsError
from service.settings import Settings


def check(settings: Settings) -> None:
    """Raise SettingsError for what `uses_claude` or `claude_of` would refuse."""
    if uses_claude(settings):
        _refuse_plaintext(settings)


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
    _refuse_plaintext(settings)
    return Claude(
        settings.anthropic_api_key.get_secret_value(),
        settings.model,
        base_url=settings.anthropic_base_url,
    )


def _refuse_plaintext(settings: Settings) -> None:
    url = urlsplit(settings.anthropic_base_url or "https://")
    here = url.hostname in ("localhost", "127.0.0.1", "::1")
    if not (url.scheme == "https" or here or settings.allow_plaintext):
        raise SettingsError(
            "ANTHROPIC_BASE_URL: must be https, or on loopback, or with "
            "ENGAGEMENT_ALLOW_PLAINTEXT=true"
        )
