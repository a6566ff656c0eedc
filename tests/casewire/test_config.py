from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from casewire.config import Config, load_config
from casewire.tables import key_name
from schemas.errors import ConfigError
from sinks.sql_settings import SqlSettings

DOMAIN = '[domains.demo]\n[credentials.hq]\ndomains = ["demo"]\nkind = "basic"\nusername = "hq"\n'


def load(tmp_path: Path, toml: str, env: Mapping[str, str] | None = None) -> Config:
    file = tmp_path / "casewire.toml"
    file.write_text(toml, encoding="utf-8")
    return load_config(file, env or {})


def complaints(tmp_path: Path, toml: str, env: Mapping[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, toml, env)
    return str(raised.value)


def test_without_a_file_everything_has_a_default() -> None:
    config = load_config(None, {"HOME": "/root", "PATH": "/bin"})
    assert config.own_broker
    assert config.cluster.bootstrap_servers == "127.0.0.1:9092"
    assert config.sinks == {"sqlite": SqlSettings()}
    assert config.data_dir == Path("var").absolute()


def test_every_documented_variable_sets_its_key() -> None:
    config = load_config(
        None,
        {
            "KAFKA_BOOTSTRAP_SERVERS": "kafka:9092",
            "CASEWIRE_DATA_DIR": "/data",
            "CASEWIRE_BROKER_BIND": "127.0.0.1:1",
            "CASEWIRE_INGRESS_BIND": "127.0.0.1:2",
            "CASEWIRE_CONSOLE_BIND": "127.0.0.1:3",
            "CASEWIRE_STREAMS_BIND": "127.0.0.1:4",
            "CASEWIRE_METRICS_BIND": "127.0.0.1:5",
            "CASEWIRE_CONFIG": "elsewhere.toml",
            "CASEWIRE_INGRESS__MAX_BODY_BYTES": "1000",
            "CASEWIRE_INGRESS__STORED_QUERY_PARAMETERS": "app_id, device",
            "CASEWIRE_INGRESS__ALLOW_UNAUTHENTICATED": "true",
            "CASEWIRE_SINKS__WARE_HOUSE__TYPE": "sql",
            "CASEWIRE_SINKS__WARE_HOUSE__URL": "postgresql://db/casewire",
        },
    )
    assert not config.own_broker
    assert config.cluster.bootstrap_servers == "kafka:9092"
    assert config.data_dir == Path("/data")
    assert config.machine.broker_bind == "127.0.0.1:1"
    assert config.ingress.bind == "127.0.0.1:2"
    assert config.machine.console_bind == "127.0.0.1:3"
    assert config.streams.bind == "127.0.0.1:4"
    assert config.machine.metrics_bind == "127.0.0.1:5"
    assert config.ingress.max_body_bytes == 1000
    assert list(config.ingress.stored_query_parameters) == ["app_id", "device"]
    assert config.ingress.allow_unauthenticated
    assert config.sinks == {"ware-house": SqlSettings(url="postgresql://db/casewire")}


def test_the_environment_wins_over_the_file_and_finds_names_with_hyphens(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        '[kafka]\npartitions = 3\n[sinks.my-db]\ntype = "sql"\n',
        {"CASEWIRE_KAFKA__PARTITIONS": "5", "CASEWIRE_SINKS__MY_DB__BATCH_ROWS": "7"},
    )
    assert config.kafka.partitions == 5
    assert config.sinks == {"my-db": SqlSettings(batch_rows=7)}


def test_paths_of_the_file_are_relative_to_it_and_secrets_are_not_shown(tmp_path: Path) -> None:
    (tmp_path / "hq.secret").write_text("s3cret\n", encoding="utf-8")
    (tmp_path / "url").write_text("postgresql://casewire:pass@db/x\n", encoding="utf-8")
    config = load(
        tmp_path,
        'data_dir = "data"\n'
        + DOMAIN
        + 'secret_file = "hq.secret"\n[sinks.db]\ntype = "sql"\nurl_file = "url"\n',
    )
    (credential,) = config.credentials
    assert credential.secret == "s3cret"
    assert "s3cret" not in repr(config)
    assert config.data_dir == tmp_path / "data"
    assert config.sinks == {"db": SqlSettings(url="postgresql://casewire:pass@db/x")}


def test_credentials_may_stand_in_a_file_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "hq.secret").write_text("s3cret", encoding="utf-8")
    (tmp_path / "credentials.toml").write_text(
        '[credentials.hq]\ndomains = ["demo"]\nkind = "api-key"\nsecret_file = "hq.secret"\n',
        encoding="utf-8",
    )
    (credential,) = load(tmp_path, "[domains.demo]").credentials
    assert (credential.name, credential.kind) == ("hq", "api-key")


def bearer(name: str, domain: str) -> str:
    keys = f'kind = "bearer"\nusername = "hq"\nsecret_file = "full"\ndomains = ["{domain}"]\n'
    return f"[credentials.{name}]\n{keys}"


BAD: Mapping[str, tuple[str, Mapping[str, str], tuple[str, ...]]] = {
    "syntax": ("[kafka]\npartitions =\n", {}, ("casewire.toml is not TOML", "line 2")),
    "unknown table": ("[ingres]\n", {}, ("ingres: unknown table", "ingress?")),
    "not a table": ("kafka = 1\n", {}, ("write [kafka]",)),
    "unknown key": ("[ingress]\nbody = 1\n", {}, ("[ingress] body: unknown key",)),
    "all at once": (
        '[kafka]\npartitions = 0\n[ingress]\nmax_body_bytes = "1"\nbend = 1\n[streams]\nx = 1\n',
        {},
        ("[kafka] partitions:", "[ingress] max_body_bytes:", "[ingress] bend:", "[streams] x:"),
    ),
    "environment": (
        "",
        {"CASEWIRE_INGRESS__MAX_BODY_BYTES": "many"},
        ("[ingress] max_body_bytes:", "CASEWIRE_INGRESS__MAX_BODY_BYTES"),
    ),
    "unknown variable": (
        "",
        {"CASEWIRE_INGRES_BIND": "x", "CASEWIRE_SINKS__DB__URI": "x"},
        ("did you mean CASEWIRE_INGRESS_BIND?", "did you mean CASEWIRE_SINKS__DB__URL?"),
    ),
    "sink type": ("[sinks.db]\n", {}, ('[sinks.db] type: write one of "sql"',)),
    "sink url": (
        '[sinks.db]\ntype = "sql"\nurl = "mysql://x"\n',
        {},
        ("[sinks.db] url: is for",),
    ),
    "sink since": (
        '[sinks.db]\ntype = "sql"\nsince = "now"\n',
        {},
        ("[sinks.db] since: is no moment; write it with its zone, as 2026-11-22T12:00:00Z",),
    ),
    "two urls": (
        '[sinks.db]\ntype = "sql"\nurl = "sqlite:///x"\nurl_file = "nowhere"\n',
        {},
        ("[sinks.db] url: stands beside url_file", "[sinks.db] url_file:", "No such file"),
    ),
    "sink name": ('[sinks."My DB"]\ntype = "sql"\n', {}, ('[sinks."My DB"]: the name',)),
    "sink no table": ("[sinks]\ndb = 1\n", {}, ("[sinks.db]",)),
    "domain name": ("[domains.Demo]\n", {}, ("[domains.Demo]: the name must match",)),
    "secret missing": (
        DOMAIN + 'secret_file = "none"\n',
        {},
        ("[credentials.hq] secret_file:", "No such file", "write the secret into that file"),
    ),
    "secret empty": (
        DOMAIN + 'secret_file = "empty"\n',
        {},
        ("[credentials.hq] secret_file:", "is empty"),
    ),
    "one login for two project spaces": (
        "[domains.one]\n[domains.two]\n" + bearer("a", "one") + bearer("b", "two"),
        {},
        ("[credentials.b] username: is that of [credentials.a] too",),
    ),
    "required key": (DOMAIN, {}, ("[credentials.hq] secret_file: missing",)),
    "unknown domain": (
        '[credentials.hq]\ndomains = ["a.b"]\nkind = "basic"\nsecret_file = "full"\n',
        {},
        ("[credentials.hq] domains:", '[domains."a.b"]', "[credentials.hq] username: missing"),
    ),
    "no domain": (
        '[credentials.hq]\ndomains = []\nkind = "api-key"\nsecret_file = "full"\n',
        {},
        ("[credentials.hq] domains: is empty",),
    ),
    "accept unknown": (
        '[ingress]\nunknown_domains = "accept"\n[domains.demo]\n',
        {},
        ("[ingress] unknown_domains:",),
    ),
    "open to the world": (
        '[ingress]\nbind = "0.0.0.0:8080"\n',
        {},
        ("[ingress] bind: 0.0.0.0:8080", "allow_unauthenticated"),
    ),
    "open to the world for one domain": (
        DOMAIN + 'secret_file = "full"\n[domains.other]\n',
        {"CASEWIRE_INGRESS_BIND": "[::]:8080"},
        ("[ingress] bind: [::]:8080",),
    ),
    "broker open to the world": (
        'broker_bind = "10.0.0.1:9092"\n[ingress]\nallow_unauthenticated = true\n',
        {},
        ("broker_bind: 10.0.0.1:9092", "KAFKA_BOOTSTRAP_SERVERS"),
    ),
    "no address": ('metrics_bind = "9400"\n', {}, ("metrics_bind: '9400' is no address",)),
    "state api for all": (
        '[streams]\nbind = "0.0.0.0:8082"\n[ingress]\nallow_unauthenticated = true\n',
        {},
        ("[streams] bind: 0.0.0.0:8082", "[streams] token_file"),
    ),
    "no port": ('[streams]\nbind = "localhost:x"\n', {}, ("[streams] bind:", "no port")),
    "no brackets": ('[streams]\nbind = "::1:80"\n', {}, ("[streams] bind:", "brackets")),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_said_with_the_key_and_the_remedy(name: str, tmp_path: Path) -> None:
    toml, env, fragments = BAD[name]
    (tmp_path / "full").write_text("secret", encoding="utf-8")
    (tmp_path / "empty").write_text("\n", encoding="utf-8")
    text = complaints(tmp_path, toml, env)
    for fragment in fragments:
        assert fragment in text


def test_a_credentials_file_may_hold_nothing_else_and_nothing_twice(tmp_path: Path) -> None:
    (tmp_path / "full").write_text("secret", encoding="utf-8")
    (tmp_path / "credentials.toml").write_text(
        '[kafka]\n[credentials.hq]\ndomains = ["demo"]\nkind = "api-key"\nsecret_file = "full"\n',
        encoding="utf-8",
    )
    text = complaints(tmp_path, DOMAIN + 'secret_file = "full"\n')
    assert "kafka: only [credentials.NAME] may stand in" in text
    assert "[credentials.hq]: is in" in text


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml cannot be read"):
        load_config(tmp_path / "none.toml", {})


def test_the_state_api_may_be_bound_for_all_with_a_token_that_all_workers_have(
    tmp_path: Path,
) -> None:
    toml = '[streams]\nbind = "0.0.0.0:8082"\ntoken_file = "secrets/state"\n'
    assert load(tmp_path, toml).state_token_file == tmp_path / "secrets" / "state"


def test_a_bind_for_all_is_taken_when_every_domain_has_a_credential(tmp_path: Path) -> None:
    (tmp_path / "full").write_text("secret", encoding="utf-8")
    toml = DOMAIN + 'secret_file = "full"\n[ingress]\nbind = "0.0.0.0:8080"\n'
    assert load(tmp_path, toml).ingress.bind == "0.0.0.0:8080"


@given(
    key=st.text(st.sampled_from("abcxyz_-09"), min_size=1, max_size=20),
    table=st.sampled_from(["kafka", "ingress", "streams"]),
)
def test_any_unknown_key_is_named(
    tmp_path_factory: pytest.TempPathFactory, key: str, table: str
) -> None:
    text = complaints(tmp_path_factory.mktemp("config"), f"[{table}]\n{key} = 1\n")
    assert f"{key_name((table, key))}: unknown key" in text


@given(st.text(st.sampled_from("ABCXYZ_09"), max_size=30))
def test_any_unknown_variable_is_named(rest: str) -> None:
    with pytest.raises(ConfigError, match=f"^CASEWIRE_Q{rest}: unknown environment variable"):
        load_config(None, {f"CASEWIRE_Q{rest}": "1"})
