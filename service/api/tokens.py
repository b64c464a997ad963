"""Who is calling, by a signed token (RFC 8725): fixed algorithms, required claims, no guesses."""

from __future__ import annotations

import hashlib
import re
import time
import warnings
from collections import OrderedDict
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import jwt
import structlog

from service.api.jwks import JwksKeys
from service.api.keys import FixedKey, KeySource, VerificationKey, key_from_file
from service.errors import EngagementError, SettingsError
from service.events import ID_PATTERN
from service.settings import Settings

MAX_TOKEN_LENGTH: Final = 8192
LEEWAY_S: Final = 30
REQUIRED: Final = ["exp", "iat", "iss", "aud", "sub"]
REMEMBERED: Final = 1_000
TOKEN_TYPES: Final = frozenset({None, "jwt", "at+jwt", "application/at+jwt"})

_ID: Final = re.compile(ID_PATTERN, re.ASCII)

# Of the development secret, however long, there is a warning of our own.
warnings.filterwarnings("ignore", category=jwt.InsecureKeyLengthWarning)

log = structlog.get_logger(__name__)


class BadToken(EngagementError):
    """The token proves nothing; the message is a fixed sentence."""


class Claims(NamedTuple):
    """What a valid token says."""

    user_id: str
    expires_at: datetime


class TokenVerifier:
    """Verifies bearer tokens against one source of keys.

    Remembers which tokens were right under which key, since callers send the same one again and
    again; whether the key still counts, and whether the token has expired, is looked at each time.
    """

    def __init__(self, keys: KeySource, *, issuer: str, audience: str) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._verified: OrderedDict[bytes, tuple[VerificationKey, Claims]] = OrderedDict()

    async def verify(self, token: str) -> Claims:
        """The claims, or BadToken. Raises Retryable when the keys cannot be had."""
        if len(token) > MAX_TOKEN_LENGTH or not token.isascii():
            raise BadToken("The token is not well-formed.")
        key = await self._key(token)
        digest = hashlib.sha256(token.encode()).digest()
        known_key, known = self._verified.get(digest, (None, None))
        if known is not None and known_key == key:
            if known.expires_at.timestamp() <= time.time() - LEEWAY_S:
                raise BadToken("The token has expired.")
            return known
        claims = self._claims(token, key)
        self._verified[digest] = key, claims
        if len(self._verified) > REMEMBERED:
            self._verified.popitem(last=False)
        return claims

    def _claims(self, token: str, key: VerificationKey) -> Claims:
        try:
            claims = jwt.decode(
                token,
                key.key,
                algorithms=[key.algorithm],
                issuer=self._issuer,
                audience=self._audience,
                leeway=LEEWAY_S,
                options={"require": REQUIRED},
            )
        except jwt.ExpiredSignatureError:
            raise BadToken("The token has expired.") from None
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError):
            raise BadToken("The token is not valid here.") from None
        return _claims(claims)

    async def _key(self, token: str) -> VerificationKey:
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, TypeError):
            raise BadToken("The token is not well-formed.") from None
        kind, kid = header.get("typ"), header.get("kid")
        if "crit" in header or not (kind is None or isinstance(kind, str)):
            raise BadToken("The token is not valid here.")
        if (None if kind is None else kind.lower()) not in TOKEN_TYPES:
            raise BadToken("The token is not valid here.")
        key = await self._keys.key_for(kid if isinstance(kid, str) else None)
        if key is None or header.get("alg") != key.algorithm:
            raise BadToken("The token is not valid here.")
        return key


def _claims(claims: dict[str, Any]) -> Claims:
    subject, expires = claims["sub"], claims["exp"]
    if not isinstance(subject, str) or _ID.fullmatch(subject) is None:
        raise BadToken("The token is not valid here.")
    try:
        expires_at = datetime.fromtimestamp(float(expires), UTC)
    except (ValueError, TypeError, OverflowError, OSError):
        raise BadToken("The token is not valid here.") from None
    return Claims(subject, expires_at)


def is_development(settings: Settings) -> bool:
    """Whether tokens are signed with the development secret."""
    return settings.jwt_dev_secret is not None


def _check_signers(settings: Settings) -> None:
    """Raise SettingsError unless it is clear who may sign."""
    given = [
        name
        for name, value in (
            ("ENGAGEMENT_JWT_JWKS_URL", settings.jwt_jwks_url),
            ("ENGAGEMENT_JWT_PUBLIC_KEY_FILE", settings.jwt_public_key_file),
            ("ENGAGEMENT_JWT_DEV_SECRET", settings.jwt_dev_secret),
        )
        if value is not None
    ]
    if len(given) != 1:
        problem = f"{' and '.join(given)} are set" if given else "nothing says who may sign tokens"
        raise SettingsError(
            f"{problem}: set exactly one of ENGAGEMENT_JWT_JWKS_URL, "
            "ENGAGEMENT_JWT_PUBLIC_KEY_FILE and, for development only, ENGAGEMENT_JWT_DEV_SECRET"
        )


def verifier_from(settings: Settings) -> TokenVerifier:
    """The verifier that the settings ask for. Raises SettingsError when they are unclear."""
    _check_signers(settings)
    return TokenVerifier(
        _key_source(settings), issuer=settings.jwt_issuer, audience=settings.jwt_audience
    )


def _key_source(settings: Settings) -> KeySource:
    if settings.jwt_jwks_url is not None:
        return JwksKeys(settings.jwt_jwks_url)
    if settings.jwt_public_key_file is not None:
        return FixedKey(key_from_file(settings.jwt_public_key_file))
    log.warning(
        "DEVELOPMENT_SECRET_IN_USE",
        action="start",
        danger="whoever knows the secret can sign in as anybody",
        advice="in production set ENGAGEMENT_JWT_JWKS_URL or ENGAGEMENT_JWT_PUBLIC_KEY_FILE",
    )
    assert settings.jwt_dev_secret is not None
    return FixedKey(VerificationKey("HS256", settings.jwt_dev_secret.get_secret_value().encode()))


def development_token(settings: Settings, user_id: str, lifetime: timedelta) -> str:
    """A token signed with the development secret. Raises SettingsError without one."""
    if settings.jwt_dev_secret is None:
        raise SettingsError("ENGAGEMENT_JWT_DEV_SECRET is not set: there is nothing to sign with")
    # Beside another key nobody accepts it.
    _check_signers(settings)
    now = datetime.now(UTC)
    claims = {
        "sub": user_id,
        "iss": settings.jwt_issuer,
        "aud": settings.jwt_audience,
        "iat": now,
        "exp": now + lifetime,
    }
    secret = settings.jwt_dev_secret.get_secret_value().encode()
    return jwt.encode(claims, secret, algorithm="HS256")
