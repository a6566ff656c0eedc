"""The state API of a streams worker: its token, and where it is served and found."""

import contextlib
import socket
from collections.abc import AsyncIterator

from casewire.addresses import Address
from casewire.config import Config
from casewire.health import serving
from ingress.tokens import make_key_file
from kafka_clients.login import client_options
from schemas.errors import ConfigError
from streams.api import Place, StateApi, state_app
from streams.app import App
from streams.holdings import WorkerHoldings
from streams.past.answers import Past
from streams.past.follower import Follower
from streams.past.indexes import Indexes, Layout
from streams.past.reads import RecordReader
from streams.past.story import Judges

_SHORTEST_TOKEN = 32


def told_address(bound: Address) -> str:
    """Return what other machines reach a bound address by."""
    if bound.host in ("0.0.0.0", "::"):  # noqa: S104 - asked, not bound
        return str(Address(socket.gethostname(), bound.port))
    return str(bound)


def make_token(config: Config) -> str:
    """Return the token; the file in the data directory is made if no other one is configured.

    Raises ConfigError or UnavailableError.
    """
    if not config.streams.token_file:
        make_key_file(config.state_token_file, "[streams] token_file")
    return read_token(config)


def read_token(config: Config) -> str:
    """Return the token. Raises ConfigError."""
    file = config.state_token_file
    try:
        token = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not ASCII"
        raise ConfigError(
            f"the token of the state API in {file} cannot be read ({reason}); "
            "start a streams worker, which makes it, or make the file readable"
        ) from error
    if len(token) < _SHORTEST_TOKEN:
        raise ConfigError(
            f"the token of the state API in {file} is shorter than {_SHORTEST_TOKEN} characters; "
            "make one with openssl rand -hex 32"
        )
    return token


@contextlib.asynccontextmanager
async def serving_states(
    app: App, config: Config, address: str, listener: socket.socket
) -> AsyncIterator[None]:
    """Serve the state API of a worker in this loop until the end of the block."""
    token = make_token(config)
    kafka = config.cluster
    holdings = WorkerHoldings(app, kafka)
    reader = RecordReader(client_options(kafka))
    folder = config.data_dir / "tables" / kafka.group("streams") / "past"
    indexes = Indexes(Layout(kafka, folder))
    follower = Follower(kafka, indexes, reader, holdings.partitions)
    past = Past(
        kafka.partitions,
        Judges.of(config.streams),
        indexes,
        reader,
        lambda key: holdings.published("case", key),
    )
    api = StateApi(Place(address, kafka.partitions), holdings, past)
    try:
        async with follower.following(), serving(state_app(api, token), listener):
            yield
    finally:
        await api.forwards.close()
        await reader.stop()
