"""The connector `files`: in a folder, and on a real S3 server."""

import random
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from msgspec.structs import replace

from schemas.errors import ConfigError, Rejection, TargetError, TransientError
from schemas.values import Json
from sinks.base import Message, Sink
from sinks.files_rows import FORMATS
from sinks.files_settings import FilesSettings
from sinks.files_sink import make
from sinks.files_windows import file_of
from streams.delivery import Delivery
from tests.servers import S3Server
from tests.sinks import files_worker
from tests.sinks.http_target import forwarded, message

pytestmark = pytest.mark.anyio

SAMPLES = Path(__file__).parents[1] / "fixtures" / "hq"
DAY = 1_790_000_000_000 // 86_400_000 * 86_400_000


@dataclass(frozen=True, slots=True)
class Lake:
    """A place for files, and what lies in it by path."""

    settings: Mapping[str, Json]
    folder: Path

    def sink(self, **more: Json) -> Sink:
        given = FilesSettings(**{**self.settings, **more})
        assert not list(given.problems())
        return make(given, self.folder)

    def files(self) -> Mapping[str, Path]:
        found = [path for path in self.folder.rglob("*") if path.is_file()]
        return {str(path.relative_to(self.folder)): path for path in sorted(found)}

    def places(self) -> Mapping[str, Sequence[tuple[int, str]]]:
        """Return offset and event of each row of each file."""
        return {name: rows_of(path) for name, path in self.files().items()}


def rows_of(path: Path) -> Sequence[tuple[int, str]]:
    if path.suffix == ".parquet":
        table = pq.read_table(path, columns=["offset", "event_id"], partitioning=None)
        return [(row["offset"], row["event_id"]) for row in table.to_pylist()]
    rows = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    return [(row["offset"], row["event_id"]) for row in rows]


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    server = S3Server(tmp_path_factory.mktemp("s3") / "data")
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        # As many servers that are not Amazon's, it does not know the newest checksums.
        patch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
        patch.setenv("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required")
        try:
            yield server
        finally:
            server.kill()


@pytest.fixture
def folder(tmp_path: Path) -> Lake:
    return Lake({"url": str(tmp_path / "lake")}, tmp_path / "lake")


@pytest.fixture
def bucket(s3: S3Server) -> Lake:
    name = f"lake-{uuid.uuid4().hex[:10]}"
    s3.make_bucket(name)
    return Lake(s3_settings(s3, f"s3://{name}/commcare"), s3.data_dir / name / "commcare")


def s3_settings(s3: S3Server, url: str, secret: str = S3Server.secret) -> dict[str, Json]:
    keys = {"access_key": s3.user, "secret_key": secret}
    options = {"endpoint_override": s3.address, "scheme": "http", "region": "us-east-1"}
    return {"url": url, "options": options, "secrets": orjson.dumps(keys).decode()}


def event(offset: int, key: str = "a", timestamp: int = DAY) -> Message:
    return replace(message(key, offset), timestamp=timestamp)


def expected(events: Sequence[Message], form: str) -> Mapping[str, Sequence[tuple[int, str]]]:
    files: dict[str, list[tuple[int, str]]] = {}
    for each in sorted(events, key=lambda each: each.offset):
        row = (each.offset, dict(each.headers)["ce_id"].decode())
        files.setdefault(file_of(each, form), []).append(row)
    return files


@pytest.mark.parametrize("place", ["folder", "bucket"])
async def test_cases_and_forms_are_tables_with_columns_to_filter_by(
    place: str, request: pytest.FixtureRequest
) -> None:
    lake: Lake = request.getfixturevalue(place)
    case_body = (SAMPLES / "case_json_current_open.json").read_bytes()
    form_body = (SAMPLES / "form_json_edited.json").read_bytes()
    case, form = forwarded(case_body)[0], forwarded(form_body)[0]
    sink = lake.sink()
    delivered = await Delivery("lake", sink).deliver([case, form])
    await sink.close()
    assert delivered.ends == ["written", "written"]
    sent_case, sent_form = orjson.loads(case_body), orjson.loads(form_body)
    (row,) = read(lake, "case")
    assert row["case_id"] == sent_case["case_id"]
    assert row["case_type"] == sent_case["properties"]["case_type"]
    assert orjson.loads(row["properties"]) == sent_case["properties"]
    assert row["server_date_modified"].isoformat() == "2020-03-19T14:31:35.139959+00:00"
    assert (row["domain"], row["day"], row["closed"], row["gone"]) == (
        "demo",
        "1970-01-01",
        False,
        False,
    )
    assert row["event_id"] == dict(case.headers)["ce_id"].decode()
    (row,) = read(lake, "form")
    assert row["form_id"] == sent_form["id"]
    assert row["xmlns"] == sent_form["form"]["@xmlns"]
    assert row["username"] == sent_form["metadata"]["username"]
    assert row["edited_on"].isoformat() == "2016-11-30T09:00:00.123456+00:00"
    assert orjson.loads(row["other"])["edited_on_sent"] == sent_form["edited_on"]
    value = orjson.loads(form.value or b"")
    assert orjson.loads(row["form"]) == value["form"]
    assert orjson.loads(row["metadata"]) == value["metadata"]


def read(lake: Lake, kind: str) -> list[dict[str, Json]]:
    """Read as a data team does: the folders' names are columns too."""
    files = [str(path) for name, path in lake.files().items() if f"kind={kind}/" in name]
    hive = ds.partitioning(flavor="hive")
    data = ds.dataset(files, partitioning=hive, partition_base_dir=str(lake.folder))
    rows: list[dict[str, Json]] = data.to_table().to_pylist()
    return rows


async def test_json_lines_hold_the_whole_event(folder: Lake) -> None:
    body = (SAMPLES / "case_json_current_open.json").read_bytes()
    sink = folder.sink(format="jsonl")
    await Delivery("lake", sink).deliver([forwarded(body)[0]])
    await sink.close()
    ((name, path),) = folder.files().items()
    assert name == f"domain=demo/kind=case/day=1970-01-01/cases-0-{0:020}.jsonl"
    assert orjson.loads(path.read_bytes())["event"] == orjson.loads(body)


def test_a_files_name_follows_from_where_an_event_lies() -> None:
    first = event(9_999, timestamp=DAY + 86_399_999)
    names = [
        file_of(each, "parquet").rpartition("kind=case/")[2]
        for each in (
            first,
            event(10_000, timestamp=DAY),
            replace(first, timestamp=DAY + 86_400_000),
            replace(first, partition=7),
            replace(first, replayed=True),
        )
    ]
    assert names == [
        f"day=2026-09-21/cases-0-{0:020}.parquet",
        f"day=2026-09-21/cases-0-{10_000:020}.parquet",
        f"day=2026-09-22/cases-0-{0:020}.parquet",
        f"day=2026-09-21/cases-7-{0:020}.parquet",
        f"day=2026-09-21/replays-0-{0:020}.parquet",
    ]


offsets = st.integers(9_990, 10_010)


@pytest.mark.parametrize("form", FORMATS)
@given(batches=st.lists(st.lists(offsets, unique=True, min_size=1, max_size=8), max_size=8))
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_no_event_is_there_twice_however_often_it_comes(
    tmp_path: Path, form: str, batches: Sequence[Sequence[int]]
) -> None:
    """By several workers that know nothing of each other, and in any order."""
    root = tmp_path / uuid.uuid4().hex
    lake = Lake({"url": str(root), "format": form}, root)
    for batch in batches:
        sink = lake.sink()
        assert await sink.write([event(offset) for offset in sorted(batch)])
        await sink.close()
    seen = sorted({offset for batch in batches for offset in batch})
    assert lake.places() == expected([event(offset) for offset in seen], form)


@pytest.mark.parametrize("form", FORMATS)
async def test_workers_that_take_turns_on_s3_lose_nothing(bucket: Lake, form: str) -> None:
    first, second = bucket.sink(format=form), bucket.sink(format=form)
    events = [event(offset) for offset in range(60)]
    for start in range(0, 60, 10):
        await (second if start % 20 else first).write(events[start : start + 15])
    await first.close()
    await second.close()
    assert bucket.places() == expected(events, form)


@pytest.mark.parametrize("form", FORMATS)
async def test_a_topic_that_was_made_anew_overwrites_nothing(folder: Lake, form: str) -> None:
    sink = folder.sink(format=form)
    await sink.write([event(0, "a"), event(1, "a")])
    await sink.write([event(0, "b")])
    await sink.close()
    assert list(folder.places().values()) == [[(0, "a-0"), (0, "b-0"), (1, "a-1")]]


def killed_now_and_then(root: Path, form: str, kills: int, seed: int) -> int:
    """Have a worker write all events; kill it that often. Returns how often it was at work."""
    moments = random.Random(seed)  # noqa: S311 - no secret
    for attempt in range(kills + 1):
        command = [sys.executable, "-m", "tests.sinks.files_worker", str(root), form, str(attempt)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as worker:
            assert worker.stdout is not None
            assert worker.stdout.readline() == b"writing\n"
            if attempt < kills:
                time.sleep(moments.uniform(0, 0.15))
                worker.kill()
            elif worker.stdout.readline() == b"done\n":
                return attempt + 1
    raise AssertionError("the worker failed")


def check_crashes(root: Path, form: str, kills: int, seed: int) -> None:
    assert killed_now_and_then(root, form, kills, seed) == kills + 1
    lake = Lake({}, root / "lake")
    finished = {
        name: rows for name, rows in lake.places().items() if not name.endswith("unfinished")
    }
    assert finished == expected(files_worker.events(), form)


def test_a_worker_that_is_killed_neither_loses_nor_doubles_a_row(tmp_path: Path) -> None:
    check_crashes(tmp_path, "parquet", kills=3, seed=1)


@pytest.mark.nightly
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("seed", range(3))
def test_a_worker_that_is_killed_often(tmp_path: Path, form: str, seed: int) -> None:
    check_crashes(tmp_path, form, kills=15, seed=seed)


async def test_s3_that_is_away_is_waited_for(bucket: Lake, s3: S3Server) -> None:
    sink = bucket.sink()
    await sink.open()
    s3.kill()
    try:
        with pytest.raises(TransientError, match="cannot be written to now"):
            await sink.write([event(0)])
    finally:
        s3.start()
    assert await sink.write([event(0)]) == ["written"]
    await sink.close()
    assert bucket.places() == expected([event(0)], "parquet")


async def test_what_the_operator_must_mend_stops_the_sink(s3: S3Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for wrong, text in (
        (s3_settings(s3, "s3://nowhere/x"), "is not there"),
        (s3_settings(s3, "s3://nowhere/x", secret="wrong"), "cannot be written to"),
        ({"url": str(tmp_path / "file")}, "cannot be written to"),
    ):
        sink = Lake(wrong, tmp_path).sink()
        with pytest.raises(TargetError, match=text) as told:
            await sink.open()
        await sink.close()
        assert "wrong" not in str(told.value)


async def test_whatever_fsspec_knows_can_be_written_to(tmp_path: Path) -> None:
    root = tmp_path / "by-fsspec"
    lake = Lake({"url": f"local://{root}"}, root)
    sink = lake.sink()
    await sink.open()
    await sink.write([event(0)])
    await sink.write([event(1)])
    await sink.close()
    assert lake.places() == expected([event(0), event(1)], "parquet")


@pytest.mark.parametrize(("url", "options"), [("nothing://x", {}), ("s3://x", {"colour": "red"})])
def test_a_storage_that_cannot_be_one_is_a_sentence(
    url: str, options: dict[str, Json], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="cannot be written to with these options"):
        make(FilesSettings(url=url, options=options), tmp_path)


def test_what_cannot_work_is_said_before_anything_starts() -> None:
    (problem,) = FilesSettings(every=False).problems()
    assert problem.startswith("every: files keep each event")
    for secrets in ("hidden", '["hidden"]'):
        (problem,) = FilesSettings(secrets=secrets).problems()
        assert problem.startswith("secrets: is no JSON object")
        assert "hidden" not in problem


async def test_a_project_space_that_is_no_folder_is_a_dead_letter(folder: Lake) -> None:
    bad = [
        replace(event(n), key=f"{domain}/a") for n, domain in enumerate(["..", "A/b", "", "x y"])
    ]
    sink = folder.sink()
    *refused, good = await sink.write([*bad, event(9)])
    await sink.close()
    assert all(isinstance(each, Rejection) for each in refused)
    assert good == "written"
    assert len(folder.files()) == 1
