"""The entry of the command `casewire`, and the one place that reads the process's environment."""

import os
import signal
import sys


def main() -> None:
    if os.getpid() == 1:
        signal.signal(signal.SIGTERM, _end)
    # Not at the top: it takes a while, in which SIGTERM may come.
    from casewire.cli import run  # noqa: PLC0415

    sys.exit(run(sys.argv[1:], os.environ))


def _end(number: int, _frame: object) -> None:
    """End, as other processes do by default: a container's first one is spared.

    The kernel gives it only the signals that it handles (pid_namespaces(7)), and a role does so
    only once it works.
    """
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
