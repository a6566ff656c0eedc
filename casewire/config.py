"""casewire.toml, credentials.toml and the environment, read once and checked whole.

A path in the file is relative to the file's folder, a path in the environment to the current one.
"""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias

import msgspec

from casewire.addresses import Address
from casewire.alerts.settings import AlertSettings, with_secrets
from casewire.console.settings import ConsoleSettings
from casewire.environment import read_environment, variable
from casewire.kafka_login import with_login
from casewire.sink_config import read_sinks, sink_problems
from casewire.tables import (
    NAME_PATTERN,
    FromEnvironment,
    TableT,
    key_name,
    keys_of,
    nearest,
    read_named,
    read_secret,
    read_table,
)
from casewire.tracing import TracingSettings, with_headers
from ingress.auth import NAMED_KINDS, Credential, policy
from ingress.settings import CredentialSettings, DomainSettings, IngressSettings
from schemas.envelope import DOMAIN_PATTERN
from schemas.errors import ConfigError
from schemas.settings import KafkaSettings, Table
from sinks.registry import SETTINGS
from sinks.settings import ExclusionSettings, SinkTable
from streams.settings import StreamsSettings

FILE: Final = "casewire.toml"
CREDENTIALS_FILE: Final = "credentials.toml"
TOKEN_KEY_FILE: Final = "token.key"  # noqa: S105 - a name
STATE_TOKEN_FILE: Final = "state-api.token"  # noqa: S105 - a name
CONSOLE_TOKEN_FILE: Final = "console.token"  # noqa: S105 - a name
#: Kinds of credentials that HQ exchanges for a token before each payload.
TOKEN_KINDS: Final = frozenset({"bearer", "oauth2"})

LogLevel: TypeAlias = Literal["debug", "info", "warning"]


class MachineSettings(Table, frozen=True, kw_only=True):
    """The keys outside of all tables.

    `metrics_bind` is the first address that a process tries for its health and metrics; it takes
    the next port while one is in use. `broker_bind` is that of a broker which `casewire up` starts.
    `processes`: the health addresses of all processes if they are not all on this machine.
    `log_level` "debug" has lines of our own for each event (docs/logs.md).
    """

    data_dir: Annotated[str, msgspec.Meta(min_length=1)] = "var"
    broker_bind: str = "127.0.0.1:9092"
    console_bind: str = "127.0.0.1:8081"
    metrics_bind: str = "127.0.0.1:9400"
    processes: Sequence[str] = ()
    log_level: LogLevel = "info"


class Config(Table, frozen=True, kw_only=True):
    """The whole configuration. `file` is None if there is none.

    Secrets have been read: those of `credentials`, the URLs of sinks with a `url_file`,
    and those of `kafka`, `alerts` and `tracing`.
    `access_files` are all files that say who may forward; `state_token_file` has the token of the
    state API.
    """

    file: Path | None
    data_dir: Path
    machine: MachineSettings
    kafka: KafkaSettings
    ingress: IngressSettings
    streams: StreamsSettings
    domains: Mapping[str, DomainSettings]
    credentials: Sequence[Credential]
    access_files: Sequence[Path]
    token_key_file: Path
    state_token_file: Path
    exclusions: Mapping[str, ExclusionSettings]
    sinks: Mapping[str, SinkTable]
    alerts: AlertSettings
    tracing: TracingSettings
    console: ConsoleSettings

    @property
    def own_broker(self) -> bool:
        """Whether `casewire up` is to start a broker."""
        return not self.kafka.bootstrap_servers

    @property
    def cluster(self) -> KafkaSettings:
        """`kafka` with the address of the broker of our own if no other is configured."""
        servers = self.kafka.bootstrap_servers or self.machine.broker_bind
        return msgspec.structs.replace(self.kafka, bootstrap_servers=servers)

    @property
    def console_token_file(self) -> Path | None:
        """The file with the token to log in to the console with; None if users are configured."""
        return None if self.console.knows_users else self.data_dir / CONSOLE_TOKEN_FILE

    @property
    def run_dir(self) -> Path:
        """Where running processes leave their addresses and logs."""
        return self.data_dir / "run"


_TABLES: Final[Mapping[str, type[Table]]] = {
    "kafka": KafkaSettings,
    "ingress": IngressSettings,
    "streams": StreamsSettings,
    "alerts": AlertSettings,
    "tracing": TracingSettings,
    "console": ConsoleSettings,
}
_NAMED: Final[Mapping[str, Sequence[str]]] = {
    "domains": keys_of(DomainSettings),
    "credentials": keys_of(CredentialSettings),
    "exclusions": keys_of(ExclusionSettings),
    "sinks": list(dict.fromkeys(key for kind in SETTINGS.values() for key in keys_of(kind))),
}
_PLAIN: Final = [
    *((key,) for key in keys_of(MachineSettings)),
    *((table, key) for table, kind in _TABLES.items() for key in keys_of(kind)),
]
_TOP_LEVEL: Final = (*keys_of(MachineSettings), *_TABLES, *_NAMED)


def load_config(path: Path | None, env: Mapping[str, str]) -> Config:
    """Read and check everything. Raises ConfigError with a line for each thing that is wrong."""
    errors: list[str] = []
    raw = {} if path is None else _read_files(path, errors)
    names = {table: list(_table(raw, table)) for table in _NAMED}
    for key, value in read_environment(env, _PLAIN, _NAMED, names, errors).items():
        _put(raw, key, value)
    config = _checked(raw, path, errors)
    if config is None or errors:
        raise ConfigError("\n".join(errors))
    return config


def _read_files(path: Path, errors: list[str]) -> dict[str, object]:
    raw = read_toml(path)
    beside = path.parent / CREDENTIALS_FILE
    if not beside.exists():
        return raw
    added = read_toml(beside)
    errors.extend(
        f"{key}: only [credentials.NAME] may stand in {beside}; move it to {path}"
        for key in added
        if key != "credentials"
    )
    credentials = dict(_table(raw, "credentials"))
    for name, credential in _table(added, "credentials").items():
        if name in credentials:
            errors.append(
                f"[credentials.{name}]: is in {path} and in {beside}; remove one of the two"
            )
        credentials[name] = credential
    return raw | {"credentials": credentials}


def read_toml(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror}); make one with casewire init, "
            "or give the path of yours by --config"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}; correct that place") from error


def _table(raw: Mapping[str, object], key: str) -> Mapping[str, object]:
    """Return a table, empty if there is none or if it is something else (which is reported)."""
    table = raw.get(key)
    return table if isinstance(table, dict) else {}


def _put(raw: dict[str, object], path: tuple[str, ...], value: FromEnvironment) -> None:
    *tables, key = path
    for part in tables:
        inner = dict(_table(raw, part))
        raw[part] = inner
        raw = inner
    raw[key] = value


def _checked(raw: Mapping[str, object], path: Path | None, errors: list[str]) -> Config | None:
    for key, value in raw.items():
        if key not in _TOP_LEVEL:
            errors.append(f"{key}: unknown table; did you mean {nearest(key, _TOP_LEVEL)}?")
        elif key in (*_TABLES, *_NAMED) and not isinstance(value, dict):
            errors.append(f"{key}: is a table; write [{key}]")
    top = {key: raw[key] for key in keys_of(MachineSettings) if key in raw}
    machine = read_table(MachineSettings, top, (), errors)
    kafka = read_table(KafkaSettings, _table(raw, "kafka"), ("kafka",), errors)
    ingress = read_table(IngressSettings, _table(raw, "ingress"), ("ingress",), errors)
    streams = read_table(StreamsSettings, _table(raw, "streams"), ("streams",), errors)
    alerts = read_table(AlertSettings, _table(raw, "alerts"), ("alerts",), errors)
    tracing = read_table(TracingSettings, _table(raw, "tracing"), ("tracing",), errors)
    console = read_table(ConsoleSettings, _table(raw, "console"), ("console",), errors)
    domains = read_named(DomainSettings, raw, "domains", DOMAIN_PATTERN, errors)
    settings = read_named(CredentialSettings, raw, "credentials", NAME_PATTERN, errors)
    folder = Path() if path is None else path.parent
    credentials = _credentials(settings, _table(raw, "domains"), folder, errors)
    exclusions = read_named(ExclusionSettings, raw, "exclusions", NAME_PATTERN, errors)
    sinks = read_sinks(_table(raw, "sinks") if "sinks" in raw else None, folder, errors)
    errors.extend(sink_problems(sinks, exclusions))
    if machine is None or kafka is None or ingress is None or streams is None:
        return None
    if alerts is None or tracing is None or console is None:
        return None
    errors.extend(f"[alerts] {text}" for text in alerts.problems())
    errors.extend(f"[console] {text}" for text in console.problems())
    data_dir = _data_dir(raw, machine, folder)
    token_key_file = data_dir / TOKEN_KEY_FILE
    if ingress.token_key_file:
        token_key_file = folder / ingress.token_key_file
    state_token_file = data_dir / STATE_TOKEN_FILE
    if streams.token_file:
        state_token_file = folder / streams.token_file
    config = Config(
        file=path,
        data_dir=data_dir,
        machine=machine,
        kafka=with_login(kafka, folder, errors),
        ingress=_in_folder(ingress, folder, ("tls_cert_file", "tls_key_file")),
        streams=streams,
        domains=domains,
        credentials=credentials,
        access_files=_access_files(path, settings, token_key_file),
        token_key_file=token_key_file,
        state_token_file=state_token_file,
        exclusions=exclusions,
        sinks=sinks,
        alerts=with_secrets(alerts, folder, errors),
        tracing=with_headers(tracing, folder, errors),
        console=_in_folder(console, folder, ("users_file", "session_key_file")),
    )
    errors.extend(_contradictions(config))
    return config


def _in_folder(settings: TableT, folder: Path, keys: Sequence[str]) -> TableT:
    """Return settings whose files are given relative to a folder; what is not given stays so."""
    files = {key: getattr(settings, key) for key in keys}
    paths = {key: str(folder / file) for key, file in files.items() if file}
    return msgspec.structs.replace(settings, **paths)


def _data_dir(raw: Mapping[str, object], machine: MachineSettings, folder: Path) -> Path:
    given_in_file = isinstance(raw.get("data_dir"), str)
    return ((folder if given_in_file else Path()) / machine.data_dir).absolute()


def _access_files(
    path: Path | None, credentials: Mapping[str, CredentialSettings], token_key_file: Path
) -> Sequence[Path]:
    folder = Path() if path is None else path.parent
    written = [] if path is None else [path, folder / CREDENTIALS_FILE]
    secrets = [folder / credential.secret_file for credential in credentials.values()]
    return [*written, *secrets, token_key_file]


def _credentials(
    settings: Mapping[str, CredentialSettings],
    domains: Mapping[str, object],
    folder: Path,
    errors: list[str],
) -> Sequence[Credential]:
    credentials = []
    for name, credential in settings.items():
        path = ("credentials", name)
        errors.extend(
            f"{key_name((*path, 'domains'))}: there is no project space {domain!r}; "
            f"add a table {key_name(('domains', domain, '')).rstrip()}"
            for domain in credential.domains
            if domain not in domains
        )
        if not credential.domains:
            errors.append(f"{key_name((*path, 'domains'))}: is empty; name a project space")
        if credential.kind in NAMED_KINDS and not credential.username:
            errors.append(f"{key_name((*path, 'username'))}: missing; {credential.kind} needs one")
        if credential.kind in ("basic", "digest") and ":" in credential.username:
            errors.append(f"{key_name((*path, 'username'))}: has a colon; take one without")
        file = folder / credential.secret_file
        read = Credential(
            name=name,
            domains=credential.domains,
            kind=credential.kind,
            username=credential.username,
            secret=read_secret(file, (*path, "secret_file"), errors),
            header=credential.header,
        )
        try:
            policy((), [read])
        except ValueError as error:
            errors.append(f"{key_name((*path, 'secret_file'))}: {file}: {error}")
        credentials.append(read)
    errors.extend(_shared_logins(credentials))
    return credentials


def _shared_logins(credentials: Sequence[Credential]) -> Iterator[str]:
    """Yield what is wrong with logins for tokens that stand for different project spaces.

    A token names one credential, and HQ's 401 for the other one's project space is final. Whether
    two passwords that a person chose are the same cannot be seen.
    """
    first_of: dict[tuple[str, str, str], Credential] = {}
    for credential in credentials:
        if credential.kind in TOKEN_KINDS:
            chosen = credential.secret.startswith("scrypt:")
            login = (credential.kind, credential.username, "" if chosen else credential.secret)
            first = first_of.setdefault(login, credential)
            if set(first.domains) != set(credential.domains):
                yield (
                    f"{key_name(('credentials', credential.name, 'username'))}: is that of "
                    f"[credentials.{first.name}] too, for other project spaces; name all of them "
                    "in one credential, or take another user name"
                )


def _contradictions(config: Config) -> list[str]:
    """Return what is wrong between keys that are each right."""
    errors = []
    if config.domains and config.ingress.unknown_domains == "accept":
        errors.append(
            '[ingress] unknown_domains: "accept" is for a configuration without [domains.NAME]; '
            "remove it, or remove the domains"
        )
    for process in config.machine.processes:
        try:
            Address.parse(process)
        except ValueError as error:
            errors.append(f"processes: {error}")
    for path, text in (
        (("ingress", "bind"), config.ingress.bind),
        (("streams", "bind"), config.streams.bind),
        (("broker_bind",), config.machine.broker_bind),
        (("console_bind",), config.machine.console_bind),
        (("metrics_bind",), config.machine.metrics_bind),
    ):
        try:
            address = Address.parse(text)
        except ValueError as error:
            errors.append(f"{key_name(path)}: {error}")
            continue
        if not address.loopback and path in _open_binds(config):
            errors.append(
                f"{key_name(path)}: {address} can be reached from other machines without "
                f"authentication; {_OPEN_REMEDY[path]}"
            )
    return errors


_ALLOW: Final = "set [ingress] allow_unauthenticated = true if that is meant"
_OPEN_REMEDY: Final = {
    ("ingress", "bind"): f"give every [domains.NAME] a [credentials.NAME], or {_ALLOW}",
    ("streams", "bind"): (
        "bind 127.0.0.1, or name a file with a token that all workers have in [streams] token_file"
    ),
    ("console_bind",): (
        "bind 127.0.0.1, or make a file of users by casewire console password NAME --file FILE and "
        "name it in [console] users_file"
    ),
    ("broker_bind",): (
        f"bind 127.0.0.1, or use a cluster of yours by {variable(('kafka', 'bootstrap_servers'))}"
    ),
}


def _open_binds(config: Config) -> set[tuple[str, ...]]:
    """Return the binds that ask for no credentials although nobody said that this is meant."""
    unprotected: set[tuple[str, ...]] = {("broker_bind",)}
    if not config.streams.token_file:
        unprotected.add(("streams", "bind"))
    if config.ingress.allow_unauthenticated:
        return unprotected
    if not config.console.knows_users:
        unprotected.add(("console_bind",))
    protected = {domain for credential in config.credentials for domain in credential.domains}
    closed = bool(config.domains) or config.ingress.unknown_domains == "refuse"
    if not (closed and protected >= set(config.domains)):
        unprotected.add(("ingress", "bind"))
    return unprotected
