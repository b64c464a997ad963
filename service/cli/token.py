"""`engagement token`: be somebody, in development."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Final
from urllib.parse import urlencode

import click

from service.api.sessions import LINK_LIFETIME_S, hash_of, new_secret
from service.api.tokens import development_token, is_development
from service.cli.api import opened_store
from service.cli.ids import Id
from service.cli.running import with_settings
from service.errors import SettingsError
from service.settings import Settings, load_settings

PATIENCE_S: Final = 10.0
# A token of no time at all would be over before anybody could use it.
HOURS: Final = (0.01, 24 * 30)


@click.command()
@click.argument("user", metavar="USER", type=Id())
@click.option("--hours", default=8.0, show_default=True, type=click.FloatRange(*HOURS))
@click.option(
    "--link", "org", metavar="ORG", type=Id(),
    help="A one-time sign-in link to ORG's admin pages.",
)  # fmt: skip
def token(*, user: str, hours: float, org: str | None) -> None:
    """Print a bearer token for USER, signed with ENGAGEMENT_JWT_DEV_SECRET.

    It says who somebody is; what they may do follows from their memberships.
    """
    if math.isnan(hours):
        raise click.BadParameter("not a number", param_hint="--hours")
    if org is not None:
        click.echo(with_settings(lambda settings: sign_in_link(settings, org, user)))
    else:
        click.echo(development_token(load_settings(), user, timedelta(hours=hours)))


async def sign_in_link(settings: Settings, org_id: str, user_id: str) -> str:
    """An address that signs `user_id` in once, within the hour. Raises SettingsError."""
    if not is_development(settings):
        raise SettingsError(
            "ENGAGEMENT_JWT_DEV_SECRET is not set: sign-in links are for development only"
        )
    store = await opened_store(settings, patience_s=PATIENCE_S)
    try:
        secret = new_secret()
        await store.open_session(hash_of(secret), "link", user_id, LINK_LIFETIME_S)
    finally:
        await store.close()
    query = urlencode({"code": secret, "org": org_id})
    return f"http://{settings.api_host}:{settings.api_port}/sign-in?{query}"
