"""A container is told to stop before its role has begun."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.nightly


@pytest.mark.parametrize("role", ["ingress", "streams", "sink db", "alerts run", "console"])
def test_process_1_ends_by_sigterm_at_any_moment(role: str, tmp_path: Path) -> None:
    config = tmp_path / "casewire.toml"
    os.mkfifo(config)
    command = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-P", "-m", "casewire"]
    command += ["--config", str(config), *role.split()]
    # Whoever opens a pipe waits for the other side: then the process reads its configuration.
    with subprocess.Popen(command) as parent, config.open("wb"):
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
        try:
            os.kill(int(children.read_text(encoding="ascii")), signal.SIGTERM)
            assert parent.wait(20) == 128 + signal.SIGTERM
        finally:
            parent.kill()
