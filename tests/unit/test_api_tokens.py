"""Tokens: what is accepted, and every known way to cheat."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from service.api.jwks import FRESH_S, MIN_INTERVAL_S, USABLE_S, JwksKeys
from service.api.keys import FixedKey, VerificationKey, as_verification_key, keys_from_jwks
from service.api.tokens import (
    LEEWAY_S,
    BadToken,
    TokenVerifier,
    development_token,
    verifier_from,
)
from service.errors import Retryable, SettingsError
from service.settings import load_settings

ISSUER, AUDIENCE = "https://issuer.example", "engagement-api"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
SMALL_RSA = rsa.generate_private_key(public_exponent=65537, key_size=1024)
EC = ec.generate_private_key(ec.SECP256R1())
OTHER_EC = ec.generate_private_key(ec.SECP384R1())
ED = ed25519.Ed25519PrivateKey.generate()
KEYS: dict[str, Any] = {"RS256": RSA, "ES256": EC, "EdDSA": ED}


def pem(key: Any) -> bytes:
    public: bytes = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return public


def claims(**changes: Any) -> dict[str, Any]:
    now = datetime.now(UTC)
    body = {
        "sub": "ada", "iss": ISSUER, "aud": AUDIENCE, "iat": now, "exp": now + timedelta(minutes=5),
    } | changes  # fmt: skip
    return {name: value for name, value in body.items() if value is not None}


def token(algorithm: str = "RS256", key: Any = None, headers: Any = None, **changes: Any) -> str:
    return jwt.encode(
        claims(**changes), KEYS[algorithm] if key is None else key, algorithm, headers=headers
    )


def verifier(key: Any = RSA) -> TokenVerifier:
    verification = as_verification_key(key.public_key())
    assert verification is not None
    return TokenVerifier(FixedKey(verification), issuer=ISSUER, audience=AUDIENCE)


@pytest.mark.parametrize("algorithm", list(KEYS))
async def test_each_kind_of_key_has_its_algorithm(algorithm: str) -> None:
    found = await verifier(KEYS[algorithm]).verify(token(algorithm))
    assert found.user_id == "ada"
    assert found.expires_at > datetime.now(UTC)


async def test_audiences_may_be_several_and_access_tokens_may_say_so() -> None:
    assert (await verifier().verify(token(aud=["x", AUDIENCE]))).user_id == "ada"
    assert (await verifier().verify(token(headers={"typ": "at+jwt"}))).user_id == "ada"


async def test_a_token_that_is_known_still_expires() -> None:
    known = verifier()
    about_to = token(exp=datetime.now(UTC) - timedelta(seconds=LEEWAY_S - 1))
    assert (await known.verify(about_to)).user_id == "ada"
    await asyncio.sleep(1.1)
    with pytest.raises(BadToken, match="expired"):
        await known.verify(about_to)


async def test_a_token_that_is_known_needs_its_key_each_time() -> None:
    right = as_verification_key(RSA.public_key())
    another = as_verification_key(
        rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    )

    class Changing:
        key = right

        async def key_for(self, kid: str | None) -> VerificationKey | None:
            return self.key

    keys = Changing()
    known = TokenVerifier(keys, issuer=ISSUER, audience=AUDIENCE)
    mine = token()
    assert await known.verify(mine) == await known.verify(mine)
    for other in (None, another, as_verification_key(EC.public_key())):
        keys.key = other
        with pytest.raises(BadToken):
            await known.verify(mine)
    keys.key = right
    assert (await known.verify(mine)).user_id == "ada"


def part(value: object) -> str:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).decode().rstrip("=")


def unsigned(header: dict[str, Any]) -> str:
    body = claims() | {"iat": 1, "exp": 4_000_000_000}
    return f"{part(header)}.{part(body)}."


def hmac_with_public_key() -> str:
    import hashlib
    import hmac

    signed = f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part(claims() | {'iat': 1, 'exp': 4e9})}"
    mac = hmac.new(pem(RSA), signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{part(mac)}"


def with_other_body(genuine: str) -> str:
    header, _, signature = genuine.split(".")
    return f"{header}.{part(claims(sub='root') | {'iat': 1, 'exp': 4e9})}.{signature}"


HOUR = timedelta(hours=1)
CHEATS: dict[str, Callable[[], str]] = {
    "no algorithm": lambda: unsigned({"alg": "none", "typ": "JWT"}),
    "no algorithm, otherwise spelt": lambda: unsigned({"alg": "nOnE"}),
    "HMAC with the public key": hmac_with_public_key,
    "another key of the same kind": lambda: token(
        key=rsa.generate_private_key(public_exponent=65537, key_size=2048)
    ),
    "another algorithm": lambda: token("ES256"),
    "another hash": lambda: jwt.encode(claims(), RSA, "RS512"),
    "padding variant": lambda: jwt.encode(claims(), RSA, "PS256"),
    "its own key in the header": lambda: token("ES256", headers={"jwk": jwk(EC, "mine")}),
    "expired": lambda: token(exp=datetime.now(UTC) - timedelta(minutes=1)),
    "not yet issued": lambda: token(iat=datetime.now(UTC) + HOUR),
    "not yet valid": lambda: token(nbf=datetime.now(UTC) + HOUR),
    "another issuer": lambda: token(iss="https://issuer.example.evil"),
    "another audience": lambda: token(aud="another-api"),
    "no subject": lambda: token(sub=None),
    "no expiry": lambda: token(exp=None),
    "no issue date": lambda: token(iat=None),
    "no issuer": lambda: token(iss=None),
    "no audience": lambda: token(aud=None),
    "a subject that is no id": lambda: token(sub="a b; DROP TABLE"),
    "an empty subject": lambda: token(sub=""),
    "a subject with a newline": lambda: token(sub="ada\n"),
    "a token of another type": lambda: token(headers={"typ": "logout+jwt"}),
    "critical extensions": lambda: token(headers={"crit": ["exp"], "exp": 1}),
    "unencoded payload": lambda: token(headers={"b64": False, "crit": ["b64"]}),
    "far too long": lambda: token(filler="x" * 9000),
    "not a token": lambda: "abc",
    "two dots": lambda: "..",
    "not text": lambda: "é.é.é",
    "a list as header": lambda: f"{part([])}.{part({})}.{part(b'x')}",
    "a changed body": lambda: with_other_body(token()),
}  # fmt: skip


@pytest.mark.parametrize("cheat", list(CHEATS))
async def test_cheats(cheat: str) -> None:
    with pytest.raises(BadToken):
        await verifier().verify(CHEATS[cheat]())


async def test_the_message_of_a_refusal_echoes_nothing() -> None:
    with pytest.raises(BadToken) as caught:
        await verifier().verify(token(iss="at_risk", sub="inactive"))
    assert str(caught.value) == "The token is not valid here."


# -------------------------------------------------------------------------------------- key sets


def jwk(key: Any, kid: str | None, **more: Any) -> dict[str, Any]:
    name = {RSA: "RS256", EC: "ES256"}.get(key, "EdDSA")
    algorithm: Any = jwt.get_algorithm_by_name(name)
    body: dict[str, Any] = json.loads(algorithm.to_jwk(key.public_key()))
    return body | ({"kid": kid} if kid is not None else {}) | more


def test_only_usable_keys_of_a_set_are_kept() -> None:
    document = {
        "keys": [
            jwk(RSA, "rsa"), jwk(EC, "ec", use="sig", alg="ES256"), jwk(ED, "ed"),
            jwk(RSA, None), jwk(EC, None), jwk(RSA, "enc", use="enc"), jwk(RSA, "odd", alg="RS512"),
            jwk(EC, "twice"), jwk(RSA, "twice"), jwk(RSA, "mixed", alg="HS256"),
            {"kty": "oct", "kid": "hmac", "k": "c2VjcmV0", "alg": "HS256"},
            {"kty": "RSA", "kid": "broken", "n": "AA"}, "text", {"kid": 7}, None,
        ]
    }  # fmt: skip
    found = keys_from_jwks(document)
    assert {kid: key.algorithm for kid, key in found.items()} == {
        "rsa": "RS256", "ec": "ES256", "ed": "EdDSA",
    }  # fmt: skip


@pytest.mark.parametrize("document", [[], {}, {"keys": None}, "x", None])
def test_what_is_no_key_set(document: object) -> None:
    with pytest.raises(ValueError, match="JWK set"):
        keys_from_jwks(document)


class Site:
    """A JWKS address with a clock of its own."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.keys = {"keys": [jwk(RSA, "one")]}
        self.calls = 0
        self.fails = False

    async def fetch(self, url: str) -> bytes:
        self.calls += 1
        if self.fails:
            raise OSError("away")
        return json.dumps(self.keys).encode()

    def source(self) -> JwksKeys:
        return JwksKeys("https://keys.example", fetch=self.fetch, monotonic=lambda: self.now)


async def test_keys_are_fetched_once_and_kept() -> None:
    site = Site()
    source = site.source()
    checker = TokenVerifier(source, issuer=ISSUER, audience=AUDIENCE)
    for _ in range(3):
        assert (await checker.verify(token(headers={"kid": "one"}))).user_id == "ada"
    assert site.calls == 1
    for cheat in (token(headers={"kid": ""}), token("ES256", headers={"kid": "one"})):
        with pytest.raises(BadToken):
            await checker.verify(cheat)


@pytest.mark.parametrize(
    ("keys", "kid", "is_good"),
    [
        ([jwk(RSA, "one")], None, True),
        ([jwk(RSA, None)], None, True),
        ([jwk(RSA, None)], "one", True),
        ([jwk(RSA, "one")], "two", False),
        # Among several only the id can tell.
        ([jwk(RSA, "one"), jwk(EC, "two")], None, False),
        ([jwk(RSA, None), jwk(EC, "two")], None, False),
        ([jwk(RSA, None), jwk(EC, "two")], "one", False),
        ([jwk(RSA, None), jwk(EC, None)], None, False),
        # Whatever the id, it is the key that must have signed.
        ([jwk(EC, None)], None, False),
        ([], None, False),
    ],
)
async def test_an_only_key_needs_no_id(
    keys: list[dict[str, Any]], kid: str | None, is_good: bool
) -> None:
    site = Site()
    site.keys = {"keys": keys}
    checker = TokenVerifier(site.source(), issuer=ISSUER, audience=AUDIENCE)
    sent = token(headers={} if kid is None else {"kid": kid})
    if is_good:
        assert (await checker.verify(sent)).user_id == "ada"
    else:
        with pytest.raises(BadToken):
            await checker.verify(sent)


async def test_unknown_ids_cause_one_fetch_a_minute_at_the_most() -> None:
    site = Site()
    source = site.source()
    assert await source.key_for("one")
    for number in range(50):
        assert await source.key_for(f"forged-{number}") is None
    assert site.calls == 1
    site.keys = {"keys": [jwk(EC, "two")]}
    assert await source.key_for("two") is None
    site.now += MIN_INTERVAL_S
    assert await source.key_for("two")
    assert await source.key_for("one") is None, "a key that was withdrawn is good no more"
    assert site.calls == 2


async def test_many_callers_wait_for_one_fetch() -> None:
    import asyncio

    site = Site()
    source = site.source()
    found = await asyncio.gather(*(source.key_for("one") for _ in range(20)))
    assert all(found)
    assert site.calls == 1


async def test_old_keys_are_good_while_the_address_is_away_for_a_while() -> None:
    site = Site()
    source = site.source()
    assert await source.key_for("one")
    site.fails = True
    site.now += FRESH_S + 1
    assert await source.key_for("one")
    site.now += USABLE_S
    with pytest.raises(Retryable):
        await source.key_for("one")
    site.fails = False
    site.now += MIN_INTERVAL_S
    assert await source.key_for("one")


def test_a_key_set_comes_by_https_or_from_this_machine() -> None:
    for url in ("http://keys.example/jwks", "file:///etc/passwd", "ftp://x", "keys"):
        with pytest.raises(SettingsError):
            JwksKeys(url)
    JwksKeys("http://127.0.0.1:99/jwks")


# -------------------------------------------------------------------------------------- settings

SECRET = "a-secret-that-is-long-enough-for-hs256"


def settings(**given: str) -> Any:
    return load_settings({f"ENGAGEMENT_JWT_{name}": value for name, value in given.items()})


def test_exactly_one_way_to_trust(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(pem(RSA))
    with pytest.raises(SettingsError, match="nothing says"):
        verifier_from(settings())
    url = "https://keys.example"
    for both in (
        {"DEV_SECRET": SECRET, "JWKS_URL": url},
        {"DEV_SECRET": SECRET, "PUBLIC_KEY_FILE": str(file)},
        {"JWKS_URL": url, "PUBLIC_KEY_FILE": str(file)},
    ):
        with pytest.raises(SettingsError, match="exactly one"):
            verifier_from(settings(**both))
    verifier_from(settings(PUBLIC_KEY_FILE=str(file)))
    verifier_from(settings(JWKS_URL=url))


async def test_development_tokens_need_the_secret_and_are_loud(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ours = settings(DEV_SECRET=SECRET)
    found = await verifier_from(ours).verify(development_token(ours, "ada", timedelta(minutes=1)))
    assert found.user_id == "ada"
    assert "DEVELOPMENT_SECRET_IN_USE" in capsys.readouterr().out
    with pytest.raises(SettingsError):
        development_token(settings(), "ada", timedelta(minutes=1))
    forged = jwt.encode(claims(iss="engagement"), "another-secret-that-is-long-enough!", "HS256")
    with pytest.raises(BadToken):
        await verifier_from(ours).verify(forged)


async def test_a_public_key_file_never_verifies_hmac(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(pem(RSA))
    checker = verifier_from(settings(PUBLIC_KEY_FILE=str(file), ISSUER=ISSUER, AUDIENCE=AUDIENCE))
    assert (await checker.verify(token())).user_id == "ada"
    with pytest.raises(BadToken):
        await checker.verify(hmac_with_public_key())


@pytest.mark.parametrize("content", [pem(SMALL_RSA), pem(OTHER_EC), b"nonsense", b""])
def test_key_files_that_are_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(content)
    with pytest.raises(SettingsError, match="PUBLIC_KEY_FILE"):
        verifier_from(settings(PUBLIC_KEY_FILE=str(file)))


def test_a_fixed_key_has_one_algorithm() -> None:
    assert isinstance(as_verification_key(RSA.public_key()), VerificationKey)
    assert as_verification_key(RSA) is None
    assert as_verification_key(SMALL_RSA.public_key()) is None
