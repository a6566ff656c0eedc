"""Which sinks of this machine wait for their targets, as their metrics tell."""

import asyncio
import re
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Final

import aiohttp

from casewire.health import running

_OPEN: Final = re.compile(r'^casewire_sink_retrying\{sink="([^"]*)"\} 1(?:\.0)?$', re.MULTILINE)
_SECONDS: Final = 2


async def waiting_sinks(run_dir: Path) -> AbstractSet[str]:
    """Return the names of sinks whose batches wait. What does not answer is not told of."""
    addresses = [each.address for each in running(run_dir) if each.role.startswith("sink-")]
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_SECONDS)) as session:
        found = await asyncio.gather(*(_waiting(session, address) for address in addresses))
    return frozenset().union(*found)


async def _waiting(session: aiohttp.ClientSession, address: str) -> AbstractSet[str]:
    try:
        async with session.get(f"http://{address}/metrics") as answer:
            return frozenset(_OPEN.findall(await answer.text()))
    except (aiohttp.ClientError, TimeoutError):
        return frozenset()
