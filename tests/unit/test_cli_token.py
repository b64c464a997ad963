"""`engagement token`: whoever gets one can use it."""

from __future__ import annotations

import jwt
import pytest

from service.cli import main

SECRET = "of this test, and long enough for HS256"


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGAGEMENT_JWT_DEV_SECRET", SECRET)


@pytest.mark.parametrize("hours", ["0", "0.0", "0.000001", "-1", "721", "nan", "inf"])
def test_a_lifetime_that_is_none_is_wrong_use(
    hours: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["token", "ada", f"--hours={hours}"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "--hours" in captured.err


@pytest.mark.parametrize("hours", ["0.01", "8", "720"])
def test_a_token_holds_for_as_long_as_was_said(
    hours: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["token", "ada", "--hours", hours]) == 0
    token = capsys.readouterr().out.strip()
    claims = jwt.decode(token, SECRET, algorithms=["HS256"], audience="engagement-api")
    assert claims["sub"] == "ada"
    assert claims["exp"] - claims["iat"] == float(hours) * 3600


def test_a_token_that_nobody_would_accept_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENGAGEMENT_JWT_JWKS_URL", "https://keys.example/jwks")
    assert main.run(["token", "ada"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "ENGAGEMENT_JWT_JWKS_URL and ENGAGEMENT_JWT_DEV_SECRET" in captured.err


def test_nothing_but_the_link_is_on_standard_output(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    monkeypatch.setattr("service.cli.token.PATIENCE_S", 0.5)
    assert main.run(["token", "ada", "--link", "club"]) == 1
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "waiting" in captured.err
