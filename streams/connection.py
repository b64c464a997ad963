"""How to reach Kafka: addresses, TLS and SASL from the settings, for every client alike."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, Final

from aiokafka.client import AIOKafkaClient, CoordinationType
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import (
    AuthenticationFailedError,
    CoordinatorNotAvailableError,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
)

from service.errors import NotReady, Retryable, SettingsError
from service.settings import Settings

COORDINATOR_LOOKS: Final = 5
LOOPBACK: Final = ("127.0.0.1", "localhost", "::1", "[::1]")


def client_arguments(settings: Settings) -> dict[str, Any]:
    """Arguments that every aiokafka client takes. Raises SettingsError on silent plaintext."""
    protocol = settings.kafka_security_protocol
    _refuse_plaintext(settings)
    arguments: dict[str, Any] = {
        "bootstrap_servers": settings.kafka_bootstrap_servers,
        "security_protocol": protocol,
        "ssl_context": tls_context(settings),
    }
    if protocol.startswith("SASL"):
        if settings.kafka_sasl_username is None or settings.kafka_sasl_password is None:
            raise SettingsError(
                "ENGAGEMENT_KAFKA_SASL_USERNAME and ENGAGEMENT_KAFKA_SASL_PASSWORD: needed for "
                f"{protocol}"
            )
        arguments |= {
            "sasl_mechanism": settings.kafka_sasl_mechanism,
            "sasl_plain_username": settings.kafka_sasl_username,
            "sasl_plain_password": settings.kafka_sasl_password.get_secret_value(),
        }
    return arguments


def producer_arguments(settings: Settings) -> dict[str, Any]:
    """Arguments of a producer that neither loses nor reorders."""
    return {
        **client_arguments(settings),
        "acks": "all",
        "enable_idempotence": True,
        "request_timeout_ms": 15_000,
        "max_batch_size": 256 * 1024,
        "max_request_size": 8 * 1024 * 1024,
    }


async def lacks_transactions(settings: Settings, transactional_id: str) -> bool:
    """Whether brokers that answer say, for some seconds, that nobody coordinates transactions."""
    client = AIOKafkaClient(**client_arguments(settings), request_timeout_ms=5_000)
    try:
        await client.bootstrap()
        for _ in range(COORDINATOR_LOOKS):
            try:
                await client.coordinator_lookup(CoordinationType.TRANSACTION, transactional_id)
            except CoordinatorNotAvailableError:
                await asyncio.sleep(1.0)
            else:
                return False
    except KafkaError:
        return False
    else:
        return True
    finally:
        await client.close()


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """The TLS context for the brokers, or None where the protocol has no TLS.

    Raises SettingsError when a file is missing or not what it should be.
    """
    if settings.kafka_security_protocol not in ("SSL", "SASL_SSL"):
        return None
    try:
        context = ssl.create_default_context(cafile=settings.kafka_ssl_ca_file)
        if settings.kafka_ssl_cert_file:
            context.load_cert_chain(settings.kafka_ssl_cert_file, settings.kafka_ssl_key_file)
    except OSError as error:
        raise SettingsError(
            "ENGAGEMENT_KAFKA_SSL_CA_FILE, ENGAGEMENT_KAFKA_SSL_CERT_FILE, "
            f"ENGAGEMENT_KAFKA_SSL_KEY_FILE: {error.strerror or error}"
        ) from None
    return context


def away(error: Exception) -> Retryable:
    """What a failure to reach the brokers, or of theirs, means for the work in hand."""
    text = str(error)
    name = type(error).__name__
    return Retryable(f"broker: {text if text.startswith(name) else f'{name}: {text}'}")


async def reason(settings: Settings, error: Exception) -> Retryable:
    """`away`, but with what the brokers say to a single connection: the clients keep it secret."""
    if not isinstance(error, KafkaConnectionError):
        return away(error)
    arguments = client_arguments(settings)
    host, port, _ = collect_hosts(arguments.pop("bootstrap_servers"), randomize=False)[0]
    try:
        connection = await create_conn(host, port, request_timeout_ms=5_000, **arguments)
    except (SaslAuthenticationFailed, AuthenticationFailedError) as cause:
        return NotReady(f"{away(cause)}: check ENGAGEMENT_KAFKA_SASL_USERNAME and its password")
    except ssl.SSLError as cause:
        return NotReady(f"{away(cause)}: check the ENGAGEMENT_KAFKA_SSL_* settings")
    except (KafkaError, OSError, TimeoutError) as cause:
        return away(cause)
    connection.close()
    return away(error)


def _refuse_plaintext(settings: Settings) -> None:
    if settings.kafka_security_protocol in ("SSL", "SASL_SSL") or settings.allow_plaintext:
        return
    hosts = [s.strip().rpartition(":")[0] for s in settings.kafka_bootstrap_servers.split(",")]
    if any(host not in LOOPBACK for host in hosts):
        raise SettingsError(
            "KAFKA_BOOTSTRAP_SERVERS: no TLS to a host other than loopback; set "
            "ENGAGEMENT_KAFKA_SECURITY_PROTOCOL=SSL or SASL_SSL, or "
            "ENGAGEMENT_ALLOW_PLAINTEXT=true"
        )
