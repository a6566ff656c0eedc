"""The connector `kafka`: a topic of its own for one subscriber."""

import asyncio
import ssl
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    KafkaError,
    MessageSizeTooLargeError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    UnsupportedSaslMechanismError,
)

from kafka_clients.login import Login, login_options
from kafka_clients.refusals import let_in
from schemas.errors import ConfigError, DeliveryError, Rejection, TargetError, TransientError
from schemas.topics import DEFAULT_RECORD
from sinks.base import Message, Result, Sink
from sinks.kafka_records import Out, record_of
from sinks.kafka_settings import KafkaSinkSettings
from sinks.redaction import Redaction
from sinks.renaming import Renaming

_CONNECT_SECONDS: Final = 30.0
_REQUEST_MS: Final = 10_000
_CLOSE_SECONDS: Final = 1.0
_BATCH_BYTES: Final = 256 * 1024
_NO_LIMIT: Final = 2**31 - 1

_REFUSALS: Final = (
    ClusterAuthorizationFailedError,
    SaslAuthenticationFailed,
    ssl.SSLCertVerificationError,
    TopicAuthorizationFailedError,
    UnsupportedSaslMechanismError,
)


def make(settings: KafkaSinkSettings, data_dir: Path) -> Sink:
    """Return the sink. Raises ConfigError if a certificate cannot be read."""
    return KafkaSink(settings)


class KafkaSink:
    """Sends each message to one topic, by an idempotent producer with acks=all.

    A record that is too large is not sent: one that a broker refuses spoils the order of all that
    follow. An idempotent producer waits for its broker without end: one that could not send
    everything within `write_seconds` is thrown away.
    """

    def __init__(self, settings: KafkaSinkSettings, *, write_seconds: float = 60) -> None:
        self._settings = settings
        self._write_seconds = write_seconds
        self._redaction = Redaction.of(settings.drop, settings.hash, settings.hash_key)
        self._renaming = Renaming.of(settings.rename)
        self._connection = {
            "bootstrap_servers": settings.bootstrap_servers,
            "request_timeout_ms": _REQUEST_MS,
            **_login(settings),
        }
        self._producer: Any = None
        self._largest = 0

    async def open(self) -> None:
        """Connect. Raises TransientError, or TargetError if the topic is not to be had."""
        if self._producer is not None:
            return
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await let_in(self._connection)
                self._largest = await self._limit()
                self._producer = await self._started()
        except (KafkaError, OSError, TimeoutError) as error:
            raise self._failure(error) from error

    async def write(self, messages: Sequence[Message]) -> Sequence[Result]:
        await self.open()
        outs: dict[int, Out] = {}
        results: dict[int, Result] = {}
        for place, message in enumerate(messages):
            out = record_of(message, self._redaction, self._renaming)
            if isinstance(out, Rejection):
                results[place] = out
            elif out.size > self._largest:
                results[place] = _too_large(self._largest)
            else:
                outs[place] = out
        errors = await self._send(outs)
        for place, error in errors.items():
            failure = self._failure(error)
            if not isinstance(failure, TransientError):
                raise failure from error
            alone = isinstance(error, MessageSizeTooLargeError) and len(messages) == 1
            results[place] = _too_large(self._largest) if alone else failure
        return [results.get(place, "written") for place in range(len(messages))]

    async def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await _abandon(producer)

    async def _send(self, outs: Mapping[int, Out]) -> Mapping[int, Exception]:
        """Send records in order of place; return what went wrong, by place.

        A partition's records are confirmed in order: behind one that was not, none was.
        """
        sends: dict[int, asyncio.Future[object]] = {}
        with suppress(KafkaError, TimeoutError):  # what was not confirmed is seen below
            async with asyncio.timeout(self._write_seconds):
                for place, out in sorted(outs.items()):
                    sends[place] = await self._producer.send(
                        self._settings.topic, out.value, key=out.key, headers=list(out.headers)
                    )
                    sends[place].add_done_callback(_error_of)
                for send in sends.values():
                    await asyncio.wait([send])
        ended = {place: _error_of(sends.get(place)) for place in outs}
        errors = {place: error for place, error in ended.items() if error is not None}
        if errors:
            await self.close()
        return errors

    async def _limit(self) -> int:
        """Return how large a record the topic takes, in bytes. Raises TargetError without it."""
        topic = self._settings.topic
        admin = AIOKafkaAdminClient(**self._connection)
        try:
            await admin.start()
            if topic not in await admin.list_topics():
                raise TargetError(
                    f"the topic {topic} is not at {self._settings.bootstrap_servers}, or not to be "
                    "seen by the sink's user: have it created, or its name corrected"
                )
            resource = ConfigResource(ConfigResourceType.TOPIC, topic)
            return _message_bytes(await admin.describe_configs([resource]))
        finally:
            await admin.close()

    async def _started(self) -> Any:
        producer = AIOKafkaProducer(
            client_id="casewire-sink",
            acks="all",
            enable_idempotence=True,
            compression_type="zstd",
            max_batch_size=min(_BATCH_BYTES, self._largest),
            max_request_size=_NO_LIMIT,
            **self._connection,
        )
        try:
            await producer.start()
        except BaseException:
            await _abandon(producer)
            raise
        return producer

    def _failure(self, error: Exception) -> DeliveryError:
        place = self._settings.bootstrap_servers
        if isinstance(error, ssl.SSLCertVerificationError):
            return TargetError(f"the certificate of {place} is not valid: check tls_authorities")
        if isinstance(error, _REFUSALS):
            name = type(error).__name__
            return TargetError(
                f"{place} does not let the sink in ({name}): check its user's rights"
            )
        return TransientError(f"Kafka at {place} does not take records ({type(error).__name__})")


def _login(settings: KafkaSinkSettings) -> Mapping[str, Any]:
    """Return how aiokafka's clients log in. Raises ConfigError if a certificate cannot be read."""
    sasl = settings.security_protocol.startswith("SASL")
    login = Login(
        protocol=settings.security_protocol,
        mechanism=settings.sasl_mechanism if sasl else "",
        username=settings.user,
        password=settings.password,
        ca_file=settings.tls_authorities,
        cert_file=settings.tls_certificate,
    )
    try:
        return login_options(login)
    except ConfigError as error:
        raise ConfigError(
            "tls_authorities or tls_certificate cannot be read as PEM; correct the file"
        ) from error


def _message_bytes(answers: Iterable[Any]) -> int:
    """Return a topic's `max.message.bytes`; Kafka's default if we may not ask."""
    for answer in answers:
        for _code, _message, _kind, _name, entries in answer.resources:
            for name, value, *_ in entries:
                if name == "max.message.bytes":
                    return int(value)
    return DEFAULT_RECORD


def _too_large(largest: int) -> Rejection:
    return Rejection("too_large", f"the topic takes records of {largest} bytes at most")


def _error_of(send: asyncio.Future[object] | None) -> Exception | None:
    """Return why a record was not confirmed, None if it was."""
    if send is None or not send.done() or send.cancelled():
        return TimeoutError()
    error = send.exception()
    return error if error is None or isinstance(error, Exception) else TimeoutError()


async def _abandon(producer: Any) -> None:
    """Close a producer without a wait for what it has not sent (as ingress/producer.py does)."""
    with suppress(Exception):
        async with asyncio.timeout(_CLOSE_SECONDS):
            # The client first: it fails the requests that the sender would wait for.
            await producer.client.close()
            await producer._sender.close()  # noqa: SLF001
            await producer.client.close()
    producer._closed = True  # noqa: SLF001 - else it warns that it was never closed
