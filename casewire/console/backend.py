"""What all pages work with, and how they are made."""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final

import jinja2
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from casewire.config import Config
from casewire.console import wording
from casewire.console.audit import Audit
from casewire.console.figures import Figures
from casewire.console.gate import CSRF_FIELD, Door, visitor_of
from casewire.console.metrics import ACTIONS, Action
from casewire.console.processes import Processes
from casewire.console.works import Job, Works
from schemas.errors import ConfigError
from schemas.settings import KafkaSettings

STATIC_FOLDER: Final = Path(__file__).parent / "static"
_ALL_ADDRESSES: Final = {
    "/": "Overview",
    "/dead-letters": "Dead letters",
    "/find": "Find",
    "/sinks": "Sinks",
    "/alerts": "Alerts",
    "/connect": "Connect",
}


def _environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("casewire.console"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "capital": wording.capital,
        "count": wording.count,
        "moment": wording.moment,
        "path": wording.path,
        "rate": wording.rate,
        "seconds": wording.span,
    }
    made.globals["letters_link"] = wording.letters_link
    return made


_TEMPLATES: Final = _environment()


@dataclass(frozen=True, slots=True)
class Backend:
    """The configuration, and what lives as long as the console does."""

    config: Config
    door: Door
    audit: Audit
    works: Works
    figures: Figures
    processes: Processes

    @property
    def kafka(self) -> KafkaSettings:
        return self.config.cluster

    def problem(self) -> str | None:
        """Return why nobody can log in or act here; None if they can.

        A broker that is away is none: that it is away is what the pages tell.
        """
        try:
            if self.door.people is not None:
                self.door.people.stored()
        except ConfigError as error:
            return str(error)
        return self.audit.problem()


def backend_of(request: Request) -> Backend:
    backend: Backend = request.app.state.backend
    return backend


def page(
    request: Request, template: str, status: int = HTTPStatus.OK, /, **values: object
) -> Response:
    """Return a page for who asks."""
    visitor = visitor_of(request)
    here = request.url.path
    nav = [
        (path, name, here == path or (path != "/" and here.startswith(f"{path}/")))
        for path, name in _ALL_ADDRESSES.items()
    ]
    field = Markup('<input type="hidden" name="{}" value="{}">').format(CSRF_FIELD, visitor.csrf)
    common: Mapping[str, object] = {
        "visitor": visitor,
        "csrf": lambda: field,
        "nav": nav if visitor.user else (),
        "version": wording.ASSETS,
    }
    return HTMLResponse(_TEMPLATES.get_template(template).render({**common, **values}), status)


def seen(path: str) -> Response:
    """Return the answer to a form that was taken: where to look now."""
    return RedirectResponse(path, HTTPStatus.SEE_OTHER)


async def begin(request: Request, title: str, back: str, job: Job) -> Response:
    """Begin a work, and go to the page that tells of it."""
    work = await backend_of(request).works.start(title, back, job)
    return seen(f"/works/{work.id}")


async def note(request: Request, action: Action, **about: str | int) -> None:
    """Write down that who asks does something. Raises UnavailableError: then it must not be."""
    await backend_of(request).audit.note(visitor_of(request).user, action, **about)
    ACTIONS.labels(action).inc()


def decider(request: Request) -> str:
    """Return who decides, as it is kept beside what was decided."""
    return f"{visitor_of(request).user} (console)"
