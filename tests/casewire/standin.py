"""A process that stands in for a role: `python standin.py NAME RUN_DIR [BEHAVIOUR]`.

It tells its health and waits for SIGTERM. BEHAVIOUR: `crash` ends at once, `stubborn` ignores
SIGTERM, `unready` is never ready.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

from casewire.health import Health, serving_health
from tests.servers import free_port


async def main(name: str, run_dir: Path, behaviour: str) -> None:
    if behaviour == "crash":
        sys.exit("standin: the address is in use")
    stop = asyncio.Event()
    on_term = (lambda: None) if behaviour == "stubborn" else stop.set
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, on_term)
    health = Health(lambda: None, lambda: "it never is" if behaviour == "unready" else None)
    async with serving_health(health, role=name, bind=f"127.0.0.1:{free_port()}", run_dir=run_dir):
        with (run_dir / "story").open("a", encoding="utf-8") as story:
            story.write(f"start {name}\n")
            story.flush()
            await stop.wait()
            story.write(f"stop {name}\n")
    with (run_dir / "kafka").open("a", encoding="utf-8") as seen:
        seen.write(os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "none") + "\n")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), (sys.argv[3:] or [""])[0]))
