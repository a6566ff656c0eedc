"""A sink that can say which versions its target holds says so (sinks/base.py, Versioned)."""

import pytest

from sinks.base import Versioned
from tests.contract.rigs import Rig, case_state, form_state, messages, opened

pytestmark = pytest.mark.anyio


async def test_a_sink_tells_the_versions_that_it_holds(rig: Rig, domain: str) -> None:
    asked = messages(case_state(domain, "new"), case_state(domain, "c1", version=9))
    async with opened(rig.sink()) as sink:
        assert isinstance(sink.sink, Versioned)
        assert await sink.sink.versions(asked) == [None, None]
        await sink.write([case_state(domain, "c1", version=7)])
        assert await sink.sink.versions(asked) == [None, 7]
        await sink.write([case_state(domain, "c1", version=8, deleted=True)])
        assert await sink.sink.versions(asked) == [None, 8]


async def test_a_form_has_a_version_of_its_own(rig: Rig, domain: str) -> None:
    asked = messages(case_state(domain, "same"), form_state(domain, "same"))
    async with opened(rig.sink()) as sink:
        assert isinstance(sink.sink, Versioned)
        await sink.write([form_state(domain, "same", version=7)])
        assert await sink.sink.versions(asked) == [None, 7]


async def test_to_be_asked_changes_nothing(rig: Rig, domain: str) -> None:
    async with opened(rig.sink()) as sink:
        assert isinstance(sink.sink, Versioned)
        await sink.sink.versions(messages(case_state(domain)))
        await sink.write([case_state(domain, "other")])
    assert rig.guards(domain).keys() == {"other"}
