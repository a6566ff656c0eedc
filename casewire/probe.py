"""`python -m casewire.probe RUN_DIR`: the container's health check.

A process of its own every few seconds, so it imports next to nothing (80 ms of CPU time; the
command `casewire` takes 300).
"""

import http.client
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import orjson

_SECONDS: Final = 5


def unready(run_dir: Path) -> Sequence[str]:
    """Return why what runs here is not ready: a line for each such process, none if all are.

    Asks every process that announced itself in `run_dir` (casewire.health) and still runs.
    """
    processes = [orjson.loads(file.read_bytes()) for file in sorted(run_dir.glob("*-*.json"))]
    running = [each for each in processes if Path(f"/proc/{each['pid']}").exists()]
    if not running:
        return ["nothing runs here, or it does not tell its health yet"]
    reasons = [(each["role"], _asked(each["address"])) for each in running]
    return [f"{role}: {reason}" for role, reason in reasons if reason is not None]


def _asked(address: str) -> str | None:
    connection = http.client.HTTPConnection(address, timeout=_SECONDS)
    try:
        connection.request("GET", "/health/ready")
        answer = connection.getresponse()
        said = answer.read().decode(errors="replace").strip()
    except OSError as error:
        return f"{address} does not answer ({type(error).__name__})"
    finally:
        connection.close()
    return None if answer.status == 200 else said


if __name__ == "__main__":
    sys.exit("\n".join(unready(Path(sys.argv[1]))) or 0)
