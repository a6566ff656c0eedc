"""The entry of the command `casewire`, and the one place that reads the process's environment."""

import os
import sys

from casewire.cli import run


def main() -> None:
    sys.exit(run(sys.argv[1:], os.environ))


if __name__ == "__main__":
    main()
