"""What is done to a dead letter's body before it is replayed."""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson
from jsonpatch import JsonPatch, JsonPatchException
from jsonpointer import JsonPointerException

from casewire.files import read_file
from schemas.dead_letter import Repair
from schemas.errors import ConfigError, InvalidEventError
from schemas.values import Json


@dataclass(frozen=True, slots=True)
class Mending:
    """A JSON Patch (RFC 6902) for JSON bodies, or a whole body; one of the two is None."""

    patch: Sequence[Json] | None
    body: bytes | None

    @property
    def kept(self) -> Repair:
        """What is kept of it beside the letter."""
        body = None if self.body is None else b64encode(self.body).decode()
        return Repair(patch=self.patch, body=body)

    def mended(self, body: bytes) -> bytes:
        """Return the repaired body. Raises InvalidEventError if the patch does not apply to it."""
        if self.body is not None:
            return self.body
        try:
            return orjson.dumps(JsonPatch(self.patch or ()).apply(orjson.loads(body)))
        except orjson.JSONDecodeError as error:
            raise InvalidEventError(
                "malformed_json", "a JSON Patch needs a JSON body; give the whole body by --body"
            ) from error
        except (JsonPatchException, JsonPointerException) as error:
            raise InvalidEventError(
                "mapping_failed", f"the patch does not apply to it ({type(error).__name__})"
            ) from error


def read_mending(patch: Path | None, body: Path | None) -> Mending | None:
    """Return what the files say, None if there are none. Raises ConfigError."""
    if patch is not None and body is not None:
        raise ConfigError("--patch and --body do not go together; leave out one of them")
    if body is not None:
        return Mending(None, read_file(body))
    return None if patch is None else patch_of(read_file(patch), str(patch))


def patch_of(text: bytes, name: str) -> Mending:
    """Return the repair that a JSON Patch is; `name` is what to call it. Raises ConfigError."""
    try:
        operations = orjson.loads(text)
        JsonPatch(operations)
    except (orjson.JSONDecodeError, JsonPatchException, JsonPointerException, TypeError) as error:
        raise ConfigError(
            f'{name} is no JSON Patch; write a list such as [{{"op": "replace", "path": "/a", '
            '"value": 1}] (RFC 6902)'
        ) from error
    return Mending(operations, None)
