"""The claim of a captured record whose body lies in pieces on `casewire.bodies` (contract §4)."""

import re
from dataclasses import dataclass
from typing import Final, Self

from schemas.errors import InvalidEventError

CLAIM: Final = "casewire-claim"
PIECE: Final = "casewire-piece"

_CLAIM: Final = re.compile(r"([1-9][0-9]{0,5});([1-9][0-9]{0,11});([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Claim:
    """How many pieces and bytes the body has, and its SHA-256 in hex."""

    pieces: int
    size: int
    sha256: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raise InvalidEventError if it is no claim."""
        match = _CLAIM.fullmatch(text)
        if match is None:
            raise InvalidEventError(
                "invalid_field", "the claim of the body is malformed", path=f"headers.{CLAIM}"
            )
        return cls(int(match[1]), int(match[2]), match[3])

    def __str__(self) -> str:
        return f"{self.pieces};{self.size};{self.sha256}"
