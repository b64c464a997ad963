"""PostgreSQL over TLS: verified where a file of certificates is given, and never given up."""

from __future__ import annotations

from pathlib import Path

import pytest

from db.migrate import migrate_with
from db.pool import acquired, open_pool
from service.errors import Retryable
from service.settings import Settings, load_settings
from tests.certificates import Authority
from tests.tls_proxy import TlsProxy, tls_proxy


def settings_for(proxy: TlsProxy, database: str, **more: str) -> Settings:
    return load_settings({"DATABASE_URL": proxy.url(database), **more})


async def ask(settings: Settings) -> object:
    pool = await open_pool(settings, purpose="test", size=1)
    try:
        async with acquired(pool) as connection:
            return await connection.fetchval("SELECT 1")
    finally:
        pool.terminate()


async def test_everything_goes_over_tls(database: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with tls_proxy(database, authority.issue("postgres")) as proxy:
        settings = settings_for(
            proxy, database, ENGAGEMENT_DATABASE_SSL_CA_FILE=str(authority.ca_file)
        )
        assert await ask(settings) == 1
        assert await migrate_with(settings) == []
        assert (proxy.encrypted, proxy.plain) == (2, 0)


async def test_a_certificate_of_somebody_else_is_refused(database: str, tmp_path: Path) -> None:
    trusted, other = Authority(tmp_path), Authority(tmp_path, "other")
    with tls_proxy(database, other.issue("postgres")) as proxy:
        settings = settings_for(
            proxy, database, ENGAGEMENT_DATABASE_SSL_CA_FILE=str(trusted.ca_file)
        )
        with pytest.raises(Retryable, match="certificate"):
            await ask(settings)
        assert (proxy.encrypted, proxy.plain) == (0, 0)


async def test_a_certificate_for_another_host_is_refused(database: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with tls_proxy(database, authority.issue("postgres", "127.0.0.9")) as proxy:
        settings = settings_for(
            proxy, database, ENGAGEMENT_DATABASE_SSL_CA_FILE=str(authority.ca_file)
        )
        with pytest.raises(Retryable, match="IP address mismatch"):
            await ask(settings)


async def test_a_server_that_does_not_speak_tls_gets_nothing(database: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with tls_proxy(database, authority.issue("postgres"), refusing=True) as proxy:
        for settings in (
            settings_for(proxy, database, ENGAGEMENT_DATABASE_SSL_CA_FILE=str(authority.ca_file)),
            settings_for(proxy, f"{database}?sslmode=require"),
        ):
            with pytest.raises(Retryable):
                await ask(settings)
        assert proxy.plain == 0


async def test_modes_in_the_address_are_honoured(database: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with tls_proxy(database, authority.issue("postgres")) as proxy:
        verified = f"{database}?sslmode=verify-full&sslrootcert={authority.ca_file}"
        assert await ask(settings_for(proxy, verified)) == 1
        assert await ask(settings_for(proxy, f"{database}?sslmode=require")) == 1
        assert (proxy.encrypted, proxy.plain) == (2, 0)
