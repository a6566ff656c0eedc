"""Where files lie: a folder, or an object storage by pyarrow's own clients or fsspec's."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import fsspec
import pyarrow as pa
from pyarrow import fs

from schemas.errors import ConfigError, TargetError, TransientError
from schemas.values import Json

#: What S3's errors are called in pyarrow's texts, when no repeat helps.
_REFUSALS: Final = (
    "ACCESS_DENIED",
    "INVALID_ACCESS_KEY_ID",
    "INVALID_CLIENT_TOKEN_ID",
    "NO_SUCH_BUCKET",
    "SIGNATURE_DOES_NOT_MATCH",
    "UNRECOGNIZED_CLIENT",
    "HTTP status 401",
    "HTTP status 403",
    "401 Unauthorized",
    "403 Forbidden",
)
_OPERATORS: Final = (FileExistsError, FileNotFoundError, NotADirectoryError, PermissionError)


class Store(Protocol):
    """Files by their path below a root. All raise TransientError or TargetError."""

    def check(self) -> None:
        """Find out whether the root is there and for us."""

    def read(self, path: str) -> bytes | None:
        """Return what a file holds, None if there is none."""

    def write(self, path: str, content: bytes) -> None:
        """Have a file hold this and nothing else, at once: whoever reads sees one or the other."""


def store_at(url: str, options: Mapping[str, Json]) -> Store:
    """Return the store of a URL, or of a folder. Raises ConfigError."""
    scheme, separator, root = url.partition("://")
    if not separator or scheme == "file":
        return Folder(Path(root or url))
    try:
        own = scheme in _OWN
        kind = _OWN[scheme] if own else partial(_by_fsspec, scheme)
        return Objects(kind(**options), url, folders=not own)
    except (ImportError, TypeError, ValueError, pa.ArrowException) as error:
        raise ConfigError(
            f"url: {scheme}:// cannot be written to with these options ({type(error).__name__}); "
            "correct `options`, or install what fsspec needs for it"
        ) from error


class Folder:
    """A folder of this machine. A file is complete on the disk before it has its name."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def check(self) -> None:
        with _translated_errors(str(self._root)):
            self._root.mkdir(parents=True, exist_ok=True)
            if not os.access(self._root, os.W_OK | os.X_OK):
                raise PermissionError

    def read(self, path: str) -> bytes | None:
        with _translated_errors(str(self._root)), suppress(FileNotFoundError):
            return (self._root / path).read_bytes()
        return None

    def write(self, path: str, content: bytes) -> None:
        target = self._root / path
        unfinished = target.with_name(f".{target.name}.unfinished")
        with _translated_errors(str(self._root)):
            target.parent.mkdir(parents=True, exist_ok=True)
            with unfinished.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(target)
            _sync_folders(target.parent, self._root)


class Objects:
    """An object storage: an object is there when all of it has been taken.

    `folders`: it is none, but something with folders that have to be made.
    """

    def __init__(self, filesystem: Any, url: str, *, folders: bool) -> None:
        self._filesystem = filesystem
        self._root = url.partition("://")[2].rstrip("/")
        self._place = url
        self._folders = folders

    def check(self) -> None:
        with _translated_errors(self._place):
            if self._folders:
                self._filesystem.create_dir(self._root, recursive=True)
            elif not self._has_bucket():
                raise TargetError(f"{self._place} is not there: have it made, or correct url")

    def read(self, path: str) -> bytes | None:
        with (
            _translated_errors(self._place),
            suppress(FileNotFoundError),
            self._filesystem.open_input_stream(self._at(path), compression=None) as file,
        ):
            return bytes(file.read())
        return None

    def write(self, path: str, content: bytes) -> None:
        target = self._at(path)
        with _translated_errors(self._place):
            if self._folders:
                self._filesystem.create_dir(target.rpartition("/")[0], recursive=True)
            with self._filesystem.open_output_stream(target, compression=None) as file:
                file.write(content)

    def _has_bucket(self) -> bool:
        bucket = self._root.partition("/")[0]
        return bool(self._filesystem.get_file_info(bucket).type != fs.FileType.NotFound)

    def _at(self, path: str) -> str:
        return f"{self._root}/{path}"


def _by_fsspec(scheme: str, **options: Json) -> Any:
    return fs.PyFileSystem(fs.FSSpecHandler(fsspec.filesystem(scheme, **options)))


_OWN: Final[Mapping[str, Callable[..., Any]]] = {
    "s3": partial(fs.S3FileSystem, connect_timeout=10, request_timeout=30, allow_delayed_open=True),
    "gs": fs.GcsFileSystem,
    "abfs": fs.AzureFileSystem,
    "abfss": fs.AzureFileSystem,
}


@contextmanager
def _translated_errors(place: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        refused = any(text in str(error) for text in _REFUSALS)
        if refused or isinstance(error, _OPERATORS):
            raise TargetError(
                f"{place} cannot be written to ({type(error).__name__}): check that it is there, "
                "and what the sink's user may do"
            ) from error
        raise TransientError(
            f"{place} cannot be written to now ({type(error).__name__})"
        ) from error


def _sync_folders(folder: Path, root: Path) -> None:
    """Have the disk know the names in a folder and in those above it, up to the root."""
    for each in (folder, *folder.parents):
        descriptor = os.open(each, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if each == root:
            return
