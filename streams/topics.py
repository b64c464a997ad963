"""The eight topics: names from the settings, kinds, and how they are created."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, NamedTuple

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from service.errors import InvalidInput, NotReady, Retryable
from service.events import InputKind
from service.settings import Settings
from streams.connection import away, client_arguments, reason

DAY_MS: Final = 86_400_000
REQUEST_TIMEOUT_MS: Final = 15_000


class Topic(NamedTuple):
    """One topic and the configuration that it is created with."""

    name: str
    kind: InputKind | None
    config: dict[str, str]


def input_topics(settings: Settings) -> dict[str, InputKind]:
    """Name of each input topic -> what is in it."""
    return {
        settings.topic_attendance: InputKind.ATTENDANCE,
        settings.topic_rsvp: InputKind.RSVP,
        settings.topic_profile_update: InputKind.PROFILE_UPDATE,
        settings.topic_membership: InputKind.MEMBERSHIP,
        settings.topic_organization: InputKind.ORGANIZATION,
    }


def topics(settings: Settings) -> list[Topic]:
    """All topics, inputs first. Inputs are kept longer than the longest outage to be survived."""
    kept = {"cleanup.policy": "delete", "retention.ms": str(30 * DAY_MS)}
    # Tombstones stay for a week, so that a consumer that was away learns of them.
    state = {
        "cleanup.policy": "compact",
        "delete.retention.ms": str(7 * DAY_MS),
        "min.cleanable.dirty.ratio": "0.2",
        "segment.ms": str(DAY_MS),
    }
    return [
        *(Topic(name, kind, kept) for name, kind in input_topics(settings).items()),
        Topic(settings.topic_level, None, state),
        Topic(settings.topic_change, None, kept),
        # A record of the largest size that is usual, and the headers that say what is wrong.
        Topic(settings.topic_dead_letter, None, {**kept, "max.message.bytes": str(2 * 1024**2)}),
    ]


async def apply_topics(settings: Settings) -> list[str]:
    """Create the topics that are missing; names of those made now. Idempotent.

    Existing topics keep their partitions and configuration. Raises Retryable.
    """
    async with _Admin(settings) as admin:
        existing = set(await admin.list_topics())
        missing = [topic for topic in topics(settings) if topic.name not in existing]
        if not missing:
            return []
        response = await admin.create_topics(
            [
                NewTopic(
                    topic.name,
                    num_partitions=settings.topic_partitions,
                    replication_factor=settings.topic_replication_factor,
                    topic_configs=topic.config,
                )
                for topic in missing
            ],
            timeout_ms=REQUEST_TIMEOUT_MS,
        )
        made = []
        for name, code, *rest in response.topic_errors:
            error = for_code(code)
            if code == 0:
                made.append(name)
            elif error is not TopicAlreadyExistsError:
                raise Retryable(f"topic {name}: {error.__name__} {rest[0] if rest else ''}")
        return made


async def missing_topics(settings: Settings) -> list[str]:
    """Topics that do not exist. Raises Retryable when no broker answers."""
    async with _Admin(settings) as admin:
        existing = set(await admin.list_topics())
    return [topic.name for topic in topics(settings) if topic.name not in existing]


async def require_topics(settings: Settings) -> None:
    """Raise NotReady when a topic is missing, Retryable when no broker answers."""
    missing = await missing_topics(settings)
    if missing:
        raise NotReady(f"missing topics {', '.join(missing)}: run `engagement topics apply`")


async def wrong_policies(settings: Settings) -> dict[str, str]:
    """Topics whose cleanup policy is not what consumers rely on -> the policy they have."""
    async with _Admin(settings) as admin:
        wanted = {topic.name: topic.config["cleanup.policy"] for topic in topics(settings)}
        resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in wanted]
        found = {}
        for response in await admin.describe_configs(resources):
            for resource in response.resources:
                name, entries = resource[3], resource[4]
                policy = next((e[1] for e in entries if e[0] == "cleanup.policy"), "")
                if policy != wanted[name]:
                    found[name] = policy
    return found


async def partitions_of(settings: Settings, names: Collection[str]) -> dict[str, list[int]]:
    """Partitions of those of the topics that exist. Raises Retryable when no broker answers."""
    async with _Admin(settings) as admin:
        # Asked for all: naming a topic may create it on a broker that does so by itself.
        described = await admin.describe_topics()
    return {
        topic["topic"]: sorted(p["partition"] for p in topic["partitions"])
        for topic in described
        if topic["topic"] in names and not topic["error_code"]
    }


def topic_named(settings: Settings, name: str) -> str:
    """The topic in force for its own name, its default name or the last word of that.

    Raises InvalidInput, which lists the topics.
    """
    known: dict[str, str] = {}
    for field, info in type(settings).model_fields.items():
        default = info.default
        if field.startswith("topic_") and isinstance(default, str):
            in_force = str(getattr(settings, field))
            short = default.removesuffix(".v1").rpartition(".")[2]
            known |= {in_force: in_force}
            known = {default: in_force, short: in_force} | known
    if name not in known:
        listed = ", ".join(topic.name for topic in topics(settings))
        raise InvalidInput(f"no topic of ours is called {name}: {listed}")
    return known[name]


class _Admin:
    """An admin client for the length of a block, with errors translated."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._arguments = client_arguments(settings)
        self._client: AIOKafkaAdminClient | None = None

    async def __aenter__(self) -> AIOKafkaAdminClient:
        self._client = AIOKafkaAdminClient(**self._arguments, request_timeout_ms=REQUEST_TIMEOUT_MS)
        try:
            await self._client.start()
        except (KafkaError, OSError) as error:
            await self._client.close()
            raise await reason(self._settings, error) from error
        return self._client

    async def __aexit__(self, _type: object, error: BaseException | None, _tb: object) -> None:
        if self._client is not None:
            await self._client.close()
        if isinstance(error, KafkaError):
            raise away(error) from error
