import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from casewire.addresses import Address, require_free
from casewire.data_dir import locked, open_data_dir
from casewire.health import Running, running
from casewire.supervisor import (
    FIRST_DELAY,
    LONGEST_DELAY,
    STEADY_SECONDS,
    Keeper,
    Plan,
    Role,
    Surroundings,
    delay_after,
    health_probe,
    how_it_ended,
    keep_running,
)
from schemas.errors import UnavailableError
from tests.servers import free_port

pytestmark = pytest.mark.anyio

STANDIN = Path(__file__).parent / "standin.py"
ROOT = Path(__file__).parent.parent.parent


class Told(list[str]):
    """What a person was told; `wait_for` a part of it."""

    async def wait_for(self, part: str) -> str:
        async with asyncio.timeout(30):
            while True:
                for line in self:
                    if part in line:
                        return line
                await asyncio.sleep(0.02)


def role(run_dir: Path, name: str, behaviour: str = "", *, essential: bool = True) -> Role:
    return Role(
        name=name,
        command=(sys.executable, str(STANDIN), name, str(run_dir), behaviour),
        ready=health_probe(run_dir),
        essential=essential,
        ready_seconds=20 if behaviour != "unready" else 2,
        stop_seconds=20 if behaviour != "stubborn" else 0.3,
    )


async def nothing() -> None:
    pass


def plan(run_dir: Path, told: Told, stages: Sequence[Sequence[Role]]) -> Plan:
    run_dir.mkdir(exist_ok=True)
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    around = Surroundings(run_dir=run_dir, env=env, say=told.append)
    broker = role(run_dir, "broker")
    return Plan(around=around, broker=broker, prepare=nothing, stages=stages)


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  # a process tells by a file
            await asyncio.sleep(0.02)


def alive(run_dir: Path, name: str) -> Running | None:
    return next((process for process in running(run_dir) if process.role == name), None)


async def test_everything_starts_and_stops_in_order_and_is_started_anew(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    told = Told()
    stages = [[role(run_dir, "ingress")], [role(run_dir, "streams")]]

    async def then() -> None:
        first = alive(run_dir, "streams")
        assert first is not None
        os.kill(first.pid, signal.SIGKILL)
        line = await told.wait_for("streams was ended by SIGKILL")
        assert str(run_dir / "streams.log") in line
        await until(lambda: alive(run_dir, "streams") not in (None, first))
        interrupt()

    await keep_running(plan(run_dir, told, stages), then)
    assert running(run_dir) == []
    story = (run_dir / "story").read_text().splitlines()
    assert story[0] == "start broker"
    assert set(story[1:3]) == {"start ingress", "start streams"}
    assert story[3:] == ["start streams", "stop ingress", "stop streams", "stop broker"]


async def test_an_essential_role_that_crashes_at_start_ends_the_start(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    stages = [[role(run_dir, "ingress", "crash")], [role(run_dir, "streams")]]
    with pytest.raises(UnavailableError) as raised:
        await keep_running(plan(run_dir, Told(), stages), nothing)
    assert str(raised.value).startswith("ingress ended with status 1 at start; its log")
    assert str(raised.value).endswith("\n  standin: the address is in use")
    assert running(run_dir) == []


async def test_a_sink_that_is_not_ready_keeps_nothing_else_from_working(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    told = Told()
    stages = [
        [role(run_dir, "ingress")],
        [role(run_dir, "sink-a", "unready", essential=False)],
    ]

    async def then() -> None:
        interrupt()

    await keep_running(plan(run_dir, told, stages), then)
    assert "sink-a is not ready yet (it never is); it goes on trying" in told


async def test_what_does_not_stop_in_time_is_killed(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    told = Told()

    async def then() -> None:
        interrupt()

    await keep_running(plan(run_dir, told, [[role(run_dir, "ingress", "stubborn")]]), then)
    assert "ingress did not stop within 0 s: killed" in told
    assert running(run_dir) == []


async def test_a_signal_during_the_start_stops_what_has_started(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"

    async def signalled_start(*_: object) -> None:
        interrupt()
        await asyncio.Event().wait()

    unstarted = plan(run_dir, Told(), [[role(run_dir, "ingress")]])
    prepare: Callable[[], Awaitable[None]] = signalled_start
    await keep_running(
        Plan(
            around=unstarted.around,
            broker=unstarted.broker,
            prepare=prepare,
            stages=unstarted.stages,
        ),
        nothing,
    )
    assert (run_dir / "story").read_text() == "start broker\nstop broker\n"


async def test_children_stop_when_their_parent_is_killed(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    code = (
        "import asyncio, os, sys\n"
        "from pathlib import Path\n"
        "from tests.casewire.test_supervisor import Told, nothing, plan, role\n"
        "from casewire.supervisor import keep_running\n"
        "run_dir = Path(sys.argv[1])\n"
        "asyncio.run(keep_running(plan(run_dir, Told(), [[role(run_dir, 'ingress')]]), nothing))\n"
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, str(run_dir), cwd=ROOT
    )
    await until(lambda: alive(run_dir, "ingress") is not None)
    parent.kill()
    await parent.wait()
    await until(lambda: not running(run_dir))
    assert "stop ingress" in (run_dir / "story").read_text()


def test_the_wait_before_a_new_start_grows_and_is_forgotten() -> None:
    assert delay_after(0, 1) == FIRST_DELAY
    assert delay_after(FIRST_DELAY, 1) == 2 * FIRST_DELAY
    assert delay_after(LONGEST_DELAY, 1) == LONGEST_DELAY
    assert delay_after(LONGEST_DELAY, STEADY_SECONDS) == FIRST_DELAY


def test_an_exit_status_is_told_in_words() -> None:
    assert how_it_ended(3) == "ended with status 3"
    assert how_it_ended(-9) == "was ended by SIGKILL"
    assert how_it_ended(-64) == "was ended by SIGRTMAX"
    assert how_it_ended(-99) == "was ended by signal 99"


def test_a_data_directory_has_one_master_and_a_format(tmp_path: Path) -> None:
    folder = tmp_path / "var"
    open_data_dir(folder)
    open_data_dir(folder)
    assert (folder / "format").read_text() == "1\n"
    with (
        locked(folder),
        pytest.raises(UnavailableError, match=f"process {os.getpid()}"),
        locked(folder),
    ):
        pass
    with locked(folder):
        pass
    (folder / "format").write_text("2\n")
    with pytest.raises(UnavailableError, match="format '2'"):
        open_data_dir(folder)
    with pytest.raises(UnavailableError, match="cannot be used"):
        open_data_dir(folder / "format" / "inside")


def test_an_address_in_use_is_one_sentence() -> None:
    address = Address("127.0.0.1", free_port())
    require_free(address, "CASEWIRE_INGRESS_BIND")
    with (
        address.listening(),
        pytest.raises(UnavailableError, match=r"in use.*CASEWIRE_INGRESS_BIND"),
    ):
        require_free(address, "CASEWIRE_INGRESS_BIND")


async def test_a_process_that_was_started_anew_is_asked_again_whether_it_is_ready(
    tmp_path: Path,
) -> None:
    asked: list[int] = []

    async def ready(pid: int) -> str | None:
        asked.append(pid)
        return None

    around = Surroundings(run_dir=tmp_path, env={"PATH": os.environ["PATH"]}, say=Told().append)
    keeper = Keeper(Role(name="broker", command=("sleep", "60"), ready=ready), around)
    keeper.start()
    await keeper.until_ready()
    os.kill(asked[0], signal.SIGKILL)
    await until(lambda: len(set(asked)) == 2)
    assert keeper.process is not None
    assert asked[-1] == keeper.process.pid
    await keeper.stop()
