"""The command `casewire`: its table of commands, and what it does with an error."""

import importlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click

from casewire import config, environment
from schemas.errors import CasewireError

ERROR_LOG: Final = "errors.log"


@dataclass(frozen=True, slots=True)
class Launch:
    """What a command is started with; commands get it by `click.pass_obj`."""

    env: Mapping[str, str]
    file: Path | None = None

    def config(self) -> config.Config:
        """Read the configuration. Raises ConfigError."""
        return config.load_config(self.file, self.env)


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a command is, as `module:name`, and its line in `casewire --help`."""

    place: str
    help: str

    def load(self) -> click.Command:
        module, name = self.place.split(":")
        command = getattr(importlib.import_module(module), name)
        if not isinstance(command, click.Command):
            raise TypeError(f"{self.place} is no command")
        return command


#: A command's module is imported when it is used, so that every command starts quickly.
COMMANDS: Final[Mapping[str, Entry]] = {
    "up": Entry("casewire.up:up", "Run everything on one machine."),
    "init": Entry("casewire.init:init", "Write a starter configuration and a first secret."),
    "auth": Entry("casewire.auth:auth", "Make, change and list credentials."),
    "domains": Entry(
        "casewire.domains_command:domains", "List the project spaces that may forward."
    ),
    "ingress": Entry("casewire.ingress_command:ingress", "Take what CommCare HQ forwards."),
    "streams": Entry("casewire.workers:streams", "Decode events and keep latest states."),
    "sink": Entry("casewire.workers:sink", "Write to one sink of the configuration."),
    "alerts": Entry("casewire.alerts.command:alerts", "Tell people what went wrong, and mute it."),
    "console": Entry("casewire.console.command:console", "Show what goes on in a browser."),
    "topics": Entry("casewire.topics_command:topics", "Create or check the topics."),
    "broker": Entry("casewire.broker_command:broker", "Move from one broker to a cluster."),
    "send": Entry("casewire.send:send", "Post files as CommCare HQ would."),
    "tail": Entry("casewire.tail:tail", "Print events as they come."),
    "case": Entry("casewire.case_command:case", "Tell a case's state, now or then, or its story."),
    "dead-letters": Entry(
        "casewire.dead_letters_command:dead_letters", "List, show, replay, discard what failed."
    ),
    "replay": Entry(
        "casewire.replay_command:replay", "Have events processed again, or sent to a sink again."
    ),
    "deliveries": Entry(
        "casewire.deliveries_command:deliveries", "Tell what became of a case at each sink."
    ),
    "simulate": Entry("casewire.simulate:simulate", "Send a made-up project's history."),
    "routes": Entry("casewire.routes:routes", "Try which sinks an event would go to."),
    "sinks": Entry("casewire.sinks_command:sinks", "Say what each type of sinks can be told."),
    "top": Entry("casewire.top:top", "Watch rates, lag, dead letters and alerts."),
    "doctor": Entry("casewire.doctor.command:doctor", "Say what is wrong and what to do."),
}


class Commands(click.Group):
    """A group whose commands are those of COMMANDS."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(cmd_name)
        return None if entry is None else entry.load()

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in COMMANDS.items()])


@click.command(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: casewire --config casewire.toml up",
)
@click.option(
    "--config",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The configuration; else CASEWIRE_CONFIG, else casewire.toml of this folder, if any.",
)
@click.version_option(package_name="casewire")
@click.pass_context
def casewire(context: click.Context, file: Path | None) -> None:
    """Receive what CommCare HQ forwards, keep each case's latest state, write it to sinks."""
    launch = context.ensure_object(Launch)
    context.obj = Launch(launch.env, file or configured_file(launch.env, Path()))


def configured_file(env: Mapping[str, str], folder: Path) -> Path | None:
    """Return the configuration file that the environment names, or the one in `folder`."""
    if named := env.get(environment.CONFIG):
        return Path(named)
    file = folder / config.FILE
    return file if file.exists() else None


def run(arguments: Sequence[str], env: Mapping[str, str]) -> int:
    """Run a command; return the exit status: 0 success, 1 failure, 2 wrong usage."""
    try:
        status = casewire.main(
            list(arguments), prog_name="casewire", obj=Launch(env), standalone_mode=False
        )
    except click.UsageError as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return _failed("stopped", None)
    except (click.ClickException, CasewireError) as error:
        text = error.format_message() if isinstance(error, click.ClickException) else str(error)
        return _failed(text, error)
    except Exception as error:  # noqa: BLE001  # the last place that can turn it into a sentence
        return _failed(_unexpected(error, env), error)
    # click returns the status of `context.exit(status)`, or what the command returned.
    return status if isinstance(status, int) else 0


def _failed(text: str, error: Exception | None) -> int:
    from casewire.logs import tell_end  # noqa: PLC0415 - what ends well needs none of it

    if error is not None and tell_end(error, text):
        return 1
    for line in text.splitlines():
        click.echo(f"casewire: {line}", err=True)
    return 1


def _unexpected(error: Exception, env: Mapping[str, str]) -> str:
    from casewire.logs import traceback_of  # noqa: PLC0415 - as above

    try:
        folder = config.load_config(configured_file(env, Path()), env).run_dir
    except CasewireError:
        folder = Path(tempfile.gettempdir())
    if not folder.is_dir():
        folder = Path(tempfile.gettempdir())
    log = folder / ERROR_LOG
    with log.open("a", encoding="utf-8") as file:
        file.write(f"{datetime.now(UTC).isoformat()}\n{traceback_of(error)}\n")
    return (
        f"an unexpected {type(error).__name__} stopped this command; report it with what {log} says"
    )
