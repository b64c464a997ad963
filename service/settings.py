"""The configuration in force: the only reader of the environment.

Names without prefix are the ones people already have (`DATABASE_URL`, ...); everything else begins
with `ENGAGEMENT_`. An unknown `ENGAGEMENT_*` name stops the start, since a misspelt limit that is
silently ignored is worse than none.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from functools import cache
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
)

from service.errors import SettingsError, plain
from service.schedule import check_cron

PREFIX: Final = "ENGAGEMENT_"
# How alike a name must be to be offered instead of an unknown one: a letter or two may differ.
CLOSE: Final = 0.8

MAX_PORT: Final = 65_535
Port = Annotated[int, Field(ge=1, le=MAX_PORT)]


def _no_directory(topic: str) -> str:
    if topic in (".", ".."):
        raise ValueError("is no name of a topic")
    return topic


Topic = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$"), AfterValidator(_no_directory)]


def _postgresql(url: SecretStr) -> SecretStr:
    parts = urlsplit(url.get_secret_value())
    if parts.scheme not in ("postgresql", "postgres"):
        raise ValueError("must begin with postgresql://")
    # Several servers may be named, each with its port.
    for address in parts.netloc.rpartition("@")[2].split(","):
        port = address.rpartition("]")[2].partition(":")[2]
        if port and not (port.isascii() and port.isdigit() and 0 < int(port) <= MAX_PORT):
            raise ValueError("has a port that is none")
    return url


def _plain(name: str) -> AliasChoices:
    """A name that people already have, without our prefix."""
    return AliasChoices(name)


def _ours(name: str) -> AliasChoices:
    return AliasChoices(PREFIX + name)


class Settings(BaseModel):
    """One frozen set of settings; build it with `load_settings`."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    # Where the parts are.
    kafka_bootstrap_servers: str = Field(
        "127.0.0.1:9092",
        validation_alias=_plain("KAFKA_BOOTSTRAP_SERVERS"),
        description="Kafka brokers, host:port, comma-separated",
    )
    database_url: Annotated[SecretStr, AfterValidator(_postgresql)] = Field(
        SecretStr("postgresql://postgres@127.0.0.1:5432/engagement"),
        validation_alias=_plain("DATABASE_URL"),
        description="PostgreSQL connection string",
    )
    anthropic_api_key: SecretStr | None = Field(
        None,
        validation_alias=_plain("ANTHROPIC_API_KEY"),
        description="Turns Claude on; without it the rules decide and explain",
    )
    anthropic_base_url: str | None = Field(
        None, validation_alias=_plain("ANTHROPIC_BASE_URL"), description="Another address of Claude"
    )

    # Topics.
    topic_attendance: Topic = Field(
        "community.attendance.v1",
        validation_alias=_ours("TOPIC_ATTENDANCE"),
        description="In: attendance",
    )
    topic_rsvp: Topic = Field(
        "community.rsvp.v1",
        validation_alias=_ours("TOPIC_RSVP"),
        description="In: answers to invitations",
    )
    topic_profile_update: Topic = Field(
        "community.profile-update.v1",
        validation_alias=_ours("TOPIC_PROFILE_UPDATE"),
        description="In: profile updates",
    )
    topic_membership: Topic = Field(
        "community.membership.v1",
        validation_alias=_ours("TOPIC_MEMBERSHIP"),
        description="In: joining, leaving, erasure",
    )
    topic_organization: Topic = Field(
        "community.organization.v1",
        validation_alias=_ours("TOPIC_ORGANIZATION"),
        description="In: organisations",
    )
    topic_level: Topic = Field(
        "engagement.level.v1",
        validation_alias=_ours("TOPIC_LEVEL"),
        description="Out: current state of every member, compacted",
    )
    topic_change: Topic = Field(
        "engagement.change.v1",
        validation_alias=_ours("TOPIC_CHANGE"),
        description="Out: changes of level",
    )
    topic_dead_letter: Topic = Field(
        "engagement.dead-letter.v1",
        validation_alias=_ours("TOPIC_DEAD_LETTER"),
        description="Out: records that can never be applied",
    )
    topic_partitions: int = Field(
        8, ge=1, le=1000, validation_alias=_ours("TOPIC_PARTITIONS"),
        description="Partitions of a topic made by `topics apply`",
    )  # fmt: skip
    topic_replication_factor: int = Field(
        1, ge=1, le=10, validation_alias=_ours("TOPIC_REPLICATION_FACTOR"),
        description="Copies of a topic made by `topics apply`; 3 in production",
    )  # fmt: skip

    # Intake.
    consumer_group: str = Field(
        "engagement-scoring",
        pattern=r"^[A-Za-z0-9._-]{1,200}$",
        validation_alias=_ours("CONSUMER_GROUP"),
        description="Kafka consumer group and Faust app id",
    )
    session_timeout_s: float = Field(
        45.0, ge=6, le=300, validation_alias=_ours("SESSION_TIMEOUT_S"),
        description="A worker that is silent this long loses its partitions",
    )  # fmt: skip
    batch_max_records: int = Field(
        4000, ge=1, le=50_000, validation_alias=_ours("BATCH_MAX_RECORDS"),
        description="Records applied in one transaction",
    )  # fmt: skip
    active_partitions: int = Field(
        4, ge=1, le=32, validation_alias=_ours("ACTIVE_PARTITIONS"),
        description="Partitions applied at once by one worker",
    )  # fmt: skip
    max_future_skew_s: int = Field(
        86_400, ge=0, le=31_536_000, validation_alias=_ours("MAX_FUTURE_SKEW_S"),
        description="Times further ahead of the database's clock go to the dead letters",
    )  # fmt: skip
    dlq_max_consecutive: int = Field(
        50, ge=1, le=1_000_000, validation_alias=_ours("DLQ_MAX_CONSECUTIVE"),
        description="A partition stops at this many dead letters in a row",
    )  # fmt: skip
    implicit_membership: bool = Field(
        True,
        validation_alias=_ours("IMPLICIT_MEMBERSHIP"),
        description="Score people with activity but without a membership record",
    )

    # Time.
    recompute_cron: Annotated[str, AfterValidator(check_cron)] = Field(
        "0 4 * * *",
        validation_alias=_ours("RECOMPUTE_CRON"),
        description="When the daily recompute runs, UTC",
    )
    erasure_memory_days: int = Field(
        400, ge=1, le=36_500, validation_alias=_ours("ERASURE_MEMORY_DAYS"),
        description="How long an erasure keeps late records out",
    )  # fmt: skip

    # Claude.
    classifier: Literal["auto", "claude", "rules"] = Field(
        "auto",
        validation_alias=_ours("CLASSIFIER"),
        description="`auto` uses Claude where a key is set, `claude` needs one, `rules` never does",
    )
    model: str = Field(
        "claude-haiku-5-5",
        validation_alias=_ours("MODEL"),
        description="The Claude model",
    )
    claude_concurrency: int = Field(
        8,
        ge=1,
        le=256,
        validation_alias=_ours("CLAUDE_CONCURRENCY"),
        description="Calls to Claude at once",
    )
    claude_daily_calls: int = Field(
        10_000, ge=0, validation_alias=_ours("CLAUDE_DAILY_CALLS"),
        description="Calls to Claude a day (UTC), attempts counted",
    )  # fmt: skip
    claude_daily_tokens: int = Field(
        20_000_000, ge=0, validation_alias=_ours("CLAUDE_DAILY_TOKENS"),
        description="Tokens a day (UTC), in and out; 3,000 are set aside for each call under way",
    )  # fmt: skip

    # HTTP.
    api_host: str = Field(
        "127.0.0.1",
        validation_alias=_ours("API_HOST"),
        description="Address that the API listens on",
    )
    api_port: Port = Field(
        8080,
        validation_alias=_ours("API_PORT"),
        description="Port of the API",
    )
    api_ops_host: str = Field(
        "127.0.0.1",
        validation_alias=_ours("API_OPS_HOST"),
        description="Address of the API's probes and metrics",
    )
    api_ops_port: Port = Field(
        9090,
        validation_alias=_ours("API_OPS_PORT"),
        description="Port of the API's probes and metrics",
    )
    worker_ops_host: str = Field(
        "127.0.0.1",
        validation_alias=_ours("WORKER_OPS_HOST"),
        description="Address of the worker's probes and metrics",
    )
    worker_ops_port: Port = Field(
        6066,
        validation_alias=_ours("WORKER_OPS_PORT"),
        description="Port of the worker's probes and metrics",
    )
    jwt_jwks_url: str | None = Field(
        None,
        validation_alias=_ours("JWT_JWKS_URL"),
        description="Where the keys of the API's bearer tokens are",
    )
    jwt_public_key_file: str | None = Field(
        None,
        validation_alias=_ours("JWT_PUBLIC_KEY_FILE"),
        description="A file with the public key instead",
    )
    jwt_dev_secret: SecretStr | None = Field(
        None,
        validation_alias=_ours("JWT_DEV_SECRET"),
        description="A shared secret instead; for development only",
    )
    jwt_issuer: str = Field(
        "engagement",
        validation_alias=_ours("JWT_ISSUER"),
        description="`iss` of accepted tokens",
    )
    jwt_audience: str = Field(
        "engagement-api",
        validation_alias=_ours("JWT_AUDIENCE"),
        description="`aud` of accepted tokens",
    )

    # Security of the connections.
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT",
        validation_alias=_ours("KAFKA_SECURITY_PROTOCOL"),
        description="PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL",
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "SCRAM-SHA-512",
        validation_alias=_ours("KAFKA_SASL_MECHANISM"),
        description="PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512",
    )
    kafka_sasl_username: str | None = Field(
        None,
        validation_alias=_ours("KAFKA_SASL_USERNAME"),
        description="User at the brokers",
    )
    kafka_sasl_password: SecretStr | None = Field(
        None,
        validation_alias=_ours("KAFKA_SASL_PASSWORD"),
        description="Password at the brokers",
    )
    kafka_ssl_ca_file: str | None = Field(
        None,
        validation_alias=_ours("KAFKA_SSL_CA_FILE"),
        description="Certificates that the brokers' must follow from",
    )
    kafka_ssl_cert_file: str | None = Field(
        None,
        validation_alias=_ours("KAFKA_SSL_CERT_FILE"),
        description="Our certificate for the brokers",
    )
    kafka_ssl_key_file: str | None = Field(
        None,
        validation_alias=_ours("KAFKA_SSL_KEY_FILE"),
        description="The key to it",
    )
    database_ssl_ca_file: str | None = Field(
        None,
        validation_alias=_ours("DATABASE_SSL_CA_FILE"),
        description="Certificates that PostgreSQL's must follow from; turns TLS on",
    )
    allow_plaintext: bool = Field(
        False,
        validation_alias=_ours("ALLOW_PLAINTEXT"),
        description="Allow connections without TLS to hosts other than loopback",
    )

    # Operation.
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO",
        validation_alias=_ours("LOG_LEVEL"),
        description="DEBUG, INFO, WARNING or ERROR",
    )
    log_format: Literal["auto", "json", "plain"] = Field(
        "auto",
        validation_alias=_ours("LOG_FORMAT"),
        description="`auto`: JSON unless a terminal reads along",
    )


@cache
def environment_names() -> dict[str, str]:
    """Environment name -> field name, for every setting."""
    names = {}
    for field, info in Settings.model_fields.items():
        alias = info.validation_alias
        assert isinstance(alias, AliasChoices)
        names[str(alias.choices[0])] = field
    return names


def load_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings, or raise SettingsError naming every setting at fault."""
    environment = os.environ if environment is None else environment
    names = environment_names()
    unknown = sorted(n for n in environment if n.startswith(PREFIX) and n not in names)
    if unknown:
        raise SettingsError(
            f"unknown setting {', '.join(_with_likely(n, names) for n in unknown)}: "
            "`engagement config --markdown` lists them all"
        )
    given: dict[str, Any] = {n: environment[n] for n in names if environment.get(n, "") != ""}
    try:
        settings = Settings.model_validate(given)
    except ValidationError as error:
        raise SettingsError(_explain(error)) from None
    _refuse_shared_topics(settings)
    _refuse_elsewhere(settings, environment)
    return settings


def _refuse_shared_topics(settings: Settings) -> None:
    """Each topic has a meaning of its own; a worker that reads what it writes feeds itself."""
    settings_of: dict[str, list[str]] = {}
    for name, field in environment_names().items():
        topic = getattr(settings, field)
        if field.startswith("topic_") and isinstance(topic, str):
            settings_of.setdefault(topic, []).append(name)
    shared = [" and ".join(names) for names in settings_of.values() if len(names) > 1]
    if shared:
        raise SettingsError("; ".join(f"{names}: name the same topic" for names in shared))


def _refuse_elsewhere(settings: Settings, environment: Mapping[str, str]) -> None:
    """Where the database is must be in DATABASE_URL: its driver would look for it in PGHOST."""
    url = urlsplit(settings.database_url.get_secret_value())
    names = [name for name in ("PGHOST", "PGSERVICE") if environment.get(name)]
    if names and not url.hostname and "host=" not in url.query:
        raise SettingsError(f"DATABASE_URL: names no host, and {names[0]} is not read: name it")


def _with_likely(unknown: str, names: Collection[str]) -> str:
    # Without the prefix, which all have in common: it would make any two names look alike.
    known = {name.removeprefix(PREFIX): name for name in names}
    likely = get_close_matches(unknown.removeprefix(PREFIX), known, n=1, cutoff=CLOSE)
    return f"{unknown} (do you mean {known[likely[0]]}?)" if likely else unknown


def _explain(error: ValidationError) -> str:
    # Never the value: it may be a secret.
    found = []
    for problem in error.errors(include_input=False, include_context=False):
        name = ".".join(str(part) for part in problem["loc"])
        found.append(f"{name}: {plain(problem['msg'])}")
    return "; ".join(found)
