"""`casewire console`: the operators' web pages, and who may log in there."""

import asyncio
from pathlib import Path
from typing import Final

import click

from casewire.addresses import Address
from casewire.cli import Launch
from casewire.config import Config
from casewire.console.app import create_app
from casewire.console.audit import FILE as AUDIT_FILE, Audit
from casewire.console.backend import Backend
from casewire.console.figures import Figures
from casewire.console.gate import Door
from casewire.console.people import People
from casewire.console.processes import Processes
from casewire.console.users import remove_user, set_password
from casewire.console.works import Works
from casewire.data_dir import open_data_dir
from casewire.files import FILE
from casewire.health import Health, serving, serving_health
from casewire.logs import set_up_logs
from casewire.sink_config import sources
from casewire.starting import told_to_stop
from ingress.tokens import make_key_file, read_keys
from schemas.errors import ConfigError, UnavailableError

KEY_FILE: Final = "console.key"


@click.group(invoke_without_command=True, epilog="Example: casewire console")
@click.pass_context
def console(context: click.Context) -> None:
    """Show what goes on, and act on it, in a browser, until stopped.

    The pages are at CASEWIRE_CONSOLE_BIND, behind a login: see docs/console.md.
    """
    if context.invoked_subcommand is not None:
        return
    config = context.ensure_object(Launch).config()
    set_up_logs("console", config.machine.log_level)
    open_data_dir(config.data_dir)
    asyncio.run(_run(config))


@console.command(epilog="Example: casewire console password anna --file secrets/console-users")
@click.argument("name")
@click.option(
    "--file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file of users; else [console] users_file.",
)
@click.option("--password-file", type=FILE, help="A file with the password; else it is asked for.")
@click.option("--remove", is_flag=True, help="Remove the user instead.")
@click.pass_obj
def password(
    launch: Launch, /, name: str, *, file: Path | None, password_file: Path | None, remove: bool
) -> None:
    """Let NAME log in to the console with a password, or change it.

    A running console takes it at once; sessions with the old one end.
    """
    users = file or _users_file(launch)
    if remove:
        remove_user(users, name)
        click.echo(f"{name} can log in no more")
        return
    set_password(users, name, _password(password_file))
    click.echo(f"{name} can log in, as {users} says")


def _users_file(launch: Launch) -> Path:
    configured = launch.config().console.users_file
    if not configured:
        raise ConfigError(
            "[console] users_file is not set; name a file there, or give it by --file"
        )
    return Path(configured)


def _password(file: Path | None) -> str:
    if file is None:
        given: str = click.prompt("Password", hide_input=True, confirmation_prompt=True)
        return given
    try:
        return file.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read as a password; write it as UTF-8") from error


def make_backend(config: Config) -> Backend:
    """Return what the pages work with. Raises ConfigError or UnavailableError."""
    settings = config.console
    key_file = Path(settings.session_key_file or config.data_dir / KEY_FILE)
    make_key_file(key_file, "[console] session_key_file")
    return Backend(
        config=config,
        door=Door(settings, _people(config), read_keys(key_file)),
        audit=Audit(config.data_dir / AUDIT_FILE),
        works=Works(),
        figures=Figures(config.cluster, sources(config.sinks)),
        processes=Processes(config),
    )


def _people(config: Config) -> People | None:
    """Return who may log in here; None if only a proxy says who is there."""
    if config.console.users_file:
        people = People(Path(config.console.users_file), by_token=False)
    elif (file := config.console_token_file) is not None:
        make_key_file(file, "CASEWIRE_DATA_DIR")
        people = People(file, by_token=True)
    else:
        return None
    people.stored()
    return people


async def _run(config: Config) -> None:
    backend = make_backend(config)
    bind = Address.parse(config.machine.console_bind)
    try:
        listener = bind.listening()
    except OSError as error:
        raise UnavailableError(
            f"the console cannot listen on {bind} ({error.strerror}); "
            "set CASEWIRE_CONSOLE_BIND to another address"
        ) from error
    stop = told_to_stop()
    async with (
        serving(create_app(backend), listener),
        serving_health(
            Health(live=lambda: None, ready=backend.problem),
            role="console",
            bind=config.machine.metrics_bind,
            run_dir=config.run_dir,
        ),
    ):
        await stop.wait()
    await backend.works.stop()
    await backend.figures.close()
