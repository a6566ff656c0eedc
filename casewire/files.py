"""Files that a person names on the command line."""

from pathlib import Path
from typing import Final

import click

from schemas.errors import ConfigError

FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)


def read_file(file: Path) -> bytes:
    """Return what a file holds. Raises ConfigError if it cannot be read."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file} cannot be read ({error.strerror}); correct that") from error
