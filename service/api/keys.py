"""Keys that tokens are verified with. A key has one algorithm, fixed here, never by the token."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from service.errors import SettingsError

MIN_RSA_BITS: Final = 2048


class VerificationKey(NamedTuple):
    """A key and the only algorithm that it is good for."""

    algorithm: str
    key: Any


class KeySource(Protocol):
    """Where keys come from."""

    async def key_for(self, kid: str | None) -> VerificationKey | None:
        """The key of this id, None when there is none. Raises Retryable when that is unknown."""
        ...


class FixedKey(KeySource):
    """One key, whatever the token's key id says: a file, or the development secret."""

    def __init__(self, key: VerificationKey) -> None:
        self._key = key

    async def key_for(self, kid: str | None) -> VerificationKey | None:
        """See `KeySource.key_for`."""
        del kid
        return self._key


def key_from_file(path: str) -> VerificationKey:
    """A PEM public key: RSA of 2048 bits or more, P-256 or Ed25519. Raises SettingsError."""
    try:
        loaded = load_pem_public_key(Path(path).read_bytes())
    except (OSError, ValueError, TypeError) as error:
        reason = type(error).__name__
        raise SettingsError(
            f"ENGAGEMENT_JWT_PUBLIC_KEY_FILE: not a readable PEM public key ({reason})"
        ) from None
    key = as_verification_key(loaded)
    if key is None:
        raise SettingsError(
            "ENGAGEMENT_JWT_PUBLIC_KEY_FILE: give an RSA key of at least 2048 bits, "
            "a P-256 key or an Ed25519 key"
        )
    return key


def as_verification_key(public_key: object) -> VerificationKey | None:
    """The key with the algorithm of its kind; None for kinds and sizes that are not accepted."""
    if isinstance(public_key, rsa.RSAPublicKey) and public_key.key_size >= MIN_RSA_BITS:
        return VerificationKey("RS256", public_key)
    if isinstance(public_key, ec.EllipticCurvePublicKey) and isinstance(
        public_key.curve, ec.SECP256R1
    ):
        return VerificationKey("ES256", public_key)
    if isinstance(public_key, ed25519.Ed25519PublicKey):
        return VerificationKey("EdDSA", public_key)
    return None


def keys_from_jwks(document: object) -> dict[str | None, VerificationKey]:
    """The usable keys of a JWK set by key id, which one may lack. Raises ValueError if it is none.

    Left out: ids that occur twice, several keys without one, keys for other uses, symmetric keys,
    and kinds that are not accepted.
    """
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise ValueError("not a JWK set")  # noqa: TRY004 - a bad document, not a bad call
    found: dict[str | None, VerificationKey] = {}
    seen: set[str | None] = set()
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(kid := entry.get("kid"), str | None):
            continue
        key = _key_from_jwk(entry)
        if kid in seen:
            found.pop(kid, None)
        elif key is not None:
            found[kid] = key
        seen.add(kid)
    return found


def _key_from_jwk(entry: dict[str, Any]) -> VerificationKey | None:
    if entry.get("use", "sig") != "sig" or entry.get("kty") not in ("RSA", "EC", "OKP"):
        return None
    try:
        key = as_verification_key(jwt.PyJWK(entry).key)
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    if key is None or entry.get("alg", key.algorithm) != key.algorithm:
        return None
    return key
