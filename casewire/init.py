"""`casewire init`: a starter configuration, a first secret, and what to enter in CommCare HQ."""

import os
import re
from pathlib import Path
from typing import Final

import click

from casewire.config import FILE
from casewire.connecting import (
    CONNECTION_PLACE,
    FORWARDERS,
    FORWARDING_PLACE,
    Line,
    address,
    aligned_lines,
    login,
)
from ingress.auth import Credential
from ingress.secrets_store import new_secret, sha256_text
from schemas.envelope import DOMAIN_PATTERN
from schemas.errors import ConfigError

USERNAME: Final = "commcare-hq"

_TEMPLATE: Final = """\
# The configuration of Casewire. Lines that begin with # show a key with its default;
# docs/settings.md has all of them.
# Every key can be given by environment too: CASEWIRE_INGRESS__MAX_BODY_BYTES=1000000.

# Broker data, table stores, spool and databases of a single machine.
# data_dir = "var"

[kafka]
# An existing cluster. Without it `casewire up` starts a broker of its own.
# bootstrap_servers = "kafka-1:9092,kafka-2:9092"
# topic_prefix = "casewire."
# partitions = 8
# replication = 1
# How to log in there, and more: docs/kafka.md.
# security_protocol = "SASL_SSL"
# sasl_mechanism = "SCRAM-SHA-512"
# sasl_username = "casewire"
# sasl_password_file = "secrets/kafka-password"
# ca_file = "secrets/kafka-ca.pem"

[ingress]
# CommCare HQ reaches only a public https address: put a reverse proxy in front of this one.
# bind = "127.0.0.1:8080"
# max_body_bytes = 52428800

[streams]
# Snapshots of one case that are closer than this may come in either order.
# doubt_window_seconds = 10
# From this share of failures on a worker stops instead of making dead letters; 1 is no limit.
# dead_letter_limit = 0.9
# Where a worker tells states. The token that it asks for is in DATA_DIR/state-api.token, made at
# the first start; workers on several machines need one file with the same token.
# bind = "127.0.0.1:8082"
# token_file = "secrets/state-api"
# tables = "memory"   # "rocksdb": on disk, for more cases than fit in memory

# One table for each project space that may forward.
[domains."{domain}"]

# How CommCare HQ proves that it is CommCare HQ. Several may be valid for one domain.
[credentials."{credential}"]
domains = ["{domain}"]
kind = "basic"
username = "{username}"
secret_file = "{secret_file}"

# Where latest states go. Without a url it is an SQLite file a domain in the data directory;
# url = "postgresql://…" writes to PostgreSQL, url_file names a file that holds that address.
[sinks.sqlite]
type = "sql"

# Who is told when something goes wrong; without it `casewire alerts list` tells those who ask.
[alerts]
# mail_to = ["you@example.org"]
# mail_from = "casewire@example.org"
# smtp_host = "smtp.example.org"
# smtp_port = 587
# smtp_username = "casewire"
# smtp_password_file = "secrets/smtp"
# Slack, Teams, a webhook and many more: an address of Apprise's a line.
# urls_file = "secrets/alert-urls"
# interval_minutes = 15   # no trouble is told of more often
# silence_hours = 6       # so many hours without an event, when some usually come; 0: never told

# Who may use the web console. Without users: who can read DATA_DIR/console.token.
[console]
# users_file = "secrets/console-users"   # casewire console password NAME makes it
# operators = ["anna"]   # who may see values and act; others may look
# ingress_url = "https://commcare.example.org"   # for its guide of what to enter in CommCare HQ
"""

_INSTRUCTIONS: Final = """\
Wrote {file}, and in {secret_file} what tells the right secret from a wrong one.

In CommCare HQ, {connection_place} > Add Connection Settings:
{connection}

Then, in {forwarding_place}, add these forwarders with that connection:
{forwarders}

YOUR-HOST is the public https address whose proxy passes requests to the ingress.
Cases that exist already are not forwarded until they change.
"""


@click.command(epilog="Example: casewire init --domain my-project")
@click.option("--domain", required=True, help="The project space, as in HQ's address /a/DOMAIN/.")
def init(domain: str) -> None:
    """Write a starter casewire.toml and a first secret; print what to enter in CommCare HQ.

    Nothing that exists is overwritten.
    """
    click.echo(write_starter(Path(), domain, new_secret()))


def write_starter(folder: Path, domain: str, secret: str) -> str:
    """Write the two files; return what to tell the person. Raises ConfigError."""
    if not re.fullmatch(DOMAIN_PATTERN, domain):
        raise ConfigError(
            f"{domain!r} is no project space; give the name in HQ's address /a/NAME/, "
            "lower-case letters, digits, dots and hyphens"
        )
    credential = re.sub(r"[^a-z0-9]+", "-", domain).strip("-") or "hq"
    secret_file = f"secrets/{credential}"
    file = folder / FILE
    _refuse_to_overwrite(file)
    _refuse_to_overwrite(folder / secret_file)
    (folder / "secrets").mkdir(mode=0o700, exist_ok=True)
    _write_new(folder / secret_file, f"{sha256_text(secret)}\n", 0o600)
    content = _TEMPLATE.format(
        domain=domain, credential=credential, username=USERNAME, secret_file=secret_file
    )
    _write_new(file, content, 0o644)
    hq = Credential(
        name=credential, domains=[domain], kind="basic", username=USERNAME, secret=secret
    )
    lines = [Line("Name", "Casewire"), address(domain), *login(hq, f"{secret}   (shown this once)")]
    return _INSTRUCTIONS.format(
        file=file,
        secret_file=secret_file,
        connection_place=CONNECTION_PLACE,
        connection=aligned_lines(lines),
        forwarding_place=FORWARDING_PLACE,
        forwarders=aligned_lines(FORWARDERS),
    )


def _refuse_to_overwrite(file: Path) -> None:
    if file.exists():
        raise ConfigError(f"{file} is there already; move it away, or go to another folder")


def _write_new(file: Path, content: str, mode: int) -> None:
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except OSError as error:
        raise ConfigError(f"{file} cannot be written ({error.strerror}); correct that") from error
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(content)
