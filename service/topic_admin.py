"""Create the topics of the registry and say how existing ones differ from it."""

from __future__ import annotations

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType  # type: ignore[attr-defined]

from service.errors import FaultError, InputError
from service.kafka import ask_again
from topics.registry import DEFAULT_PARTITIONS, TOPICS, Topic

_TIMEOUT_S = 15.0


def _admin(bootstrap: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": bootstrap, "log_level": 2}, logger=None)


def cluster_id(bootstrap: str, timeout_s: float = _TIMEOUT_S) -> str:
    """Id of the Kafka cluster.

    Raises
    ------
    FaultError
        Nobody answers there.
    """
    try:
        return str(_admin(bootstrap).list_topics(timeout=timeout_s).cluster_id)
    except KafkaException as error:
        raise FaultError(
            f"no Kafka broker answers at {bootstrap}: {error.args[0].str()}; is it running, and is the address right?"
        ) from error


def existing_partitions(bootstrap: str) -> dict[str, int]:
    """Number of partitions of each topic of the registry that exists."""
    try:
        found = _admin(bootstrap).list_topics(timeout=_TIMEOUT_S).topics
    except KafkaException as error:
        raise FaultError(f"topics of {bootstrap} cannot be listed: {error.args[0].str()}") from error
    return {t.name: len(found[t.name].partitions) for t in TOPICS if t.name in found}


def deployment_partitions(bootstrap: str) -> int:
    """P: the number of partitions that the raw topics and ``events`` have in common.

    Raises
    ------
    InputError
        A topic is missing, or they are not alike.
    """
    found = existing_partitions(bootstrap)
    missing = [t.name for t in TOPICS if t.name not in found]
    if missing:
        raise InputError(f"topics are missing: {', '.join(missing)}; make them with: stemstream topics create")
    counts = {t.name: found[t.name] for t in TOPICS if t.partitions == "P"}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} has {count}" for name, count in counts.items())
        raise InputError(f"raw and events topics must have equally many partitions, but {listed}")
    return next(iter(counts.values()))


def create_topics(bootstrap: str, partitions: int | None = None, replication: int = 1) -> list[str]:
    """Create what is missing; returns the names of the topics made.

    ``partitions`` is P; by default what the existing topics have, else the registry's default.

    Raises
    ------
    InputError
        The topics that exist do not have equally many partitions.
    FaultError
        The broker refuses.
    """
    found = existing_partitions(bootstrap)
    if partitions is None:
        partitions = max((found[t.name] for t in TOPICS if t.partitions == "P" and t.name in found), default=None)
    new = [_new_topic(t, partitions or DEFAULT_PARTITIONS, replication) for t in TOPICS if t.name not in found]
    admin = _admin(bootstrap)
    for name, future in (admin.create_topics(new, operation_timeout=_TIMEOUT_S) if new else {}).items():
        try:
            future.result(2 * _TIMEOUT_S)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise FaultError(f"topic {name} cannot be made: {error.args[0].str()}") from error
    deployment_partitions(bootstrap)
    return [t.topic for t in new]


def _config(topic: Topic) -> dict[str, str]:
    return {
        "cleanup.policy": "delete",
        "retention.ms": str(topic.retention_ms),
        "max.message.bytes": str(topic.max_message_bytes),
        # The broker's clock counts for retention: a receiver whose clock is wrong must not lose data.
        "message.timestamp.type": "LogAppendTime",
        "compression.type": "producer",
    } | topic.config


def _new_topic(topic: Topic, partitions: int, replication: int) -> NewTopic:
    count = partitions if topic.partitions == "P" else 1
    config = _config(topic) | ({"min.insync.replicas": "2"} if replication > 2 else {})
    return NewTopic(topic.name, num_partitions=count, replication_factor=replication, config=config)


def differences(bootstrap: str) -> list[str]:
    """How the broker's topics differ from the registry, a line each; empty when they do not."""
    found = existing_partitions(bootstrap)
    lines = [f"{t.name}: missing" for t in TOPICS if t.name not in found]
    lines += [
        f"{t.name}: {found[t.name]} partitions, expected 1"
        for t in TOPICS
        if t.partitions == 1 and found.get(t.name, 1) != 1
    ]
    counts = {t.name: found[t.name] for t in TOPICS if t.partitions == "P" and t.name in found}
    if len(set(counts.values())) > 1:
        lines += [
            f"{name}: {count} partitions, the raw and events topics must be alike" for name, count in counts.items()
        ]
    resources = [ConfigResource(ResourceType.TOPIC, t.name) for t in TOPICS if t.name in found]
    admin = _admin(bootstrap)  # answers come for as long as it lives
    answers = admin.describe_configs(resources) if resources else {}
    for resource, future in answers.items():
        actual = future.result(2 * _TIMEOUT_S)
        expected = _config(next(t for t in TOPICS if t.name == resource.name))
        lines += [
            f"{resource.name}: {key} is {actual[key].value}, the registry says {value}"
            for key, value in expected.items()
            if actual[key].value != value
        ]
    return lines


def active_members(bootstrap: str, groups: tuple[str, ...]) -> dict[str, int]:
    """Number of members that each consumer group has now; groups without members are left out.

    Raises
    ------
    FaultError
        The broker does not answer.
    """
    try:
        return _active_members(bootstrap, groups)
    except KafkaException as error:
        raise FaultError(f"members of {', '.join(groups)} on {bootstrap}: {error.args[0].str()}") from error


@ask_again
def _active_members(bootstrap: str, groups: tuple[str, ...]) -> dict[str, int]:
    admin = _admin(bootstrap)  # answers come for as long as it lives
    answers = admin.describe_consumer_groups(list(groups), request_timeout=_TIMEOUT_S)
    members = {group: len(future.result(2 * _TIMEOUT_S).members) for group, future in answers.items()}
    return {group: count for group, count in members.items() if count}
