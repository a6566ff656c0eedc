"""What an event's path costs in one process, in CPU time and without a broker.

`python -m benchmarks.streams.path` prints microseconds an event; `--profile STEP` shows where the
time of one step goes. A step is run several times and the least is taken: on a busy machine cold
caches cost CPU time too.
"""

import cProfile
import pstats
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final

import click
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from casewire.simulation.render import encoded
from schemas.envelope import Address, EventIds, captured_headers
from schemas.times import from_microseconds
from streams.app import SEND_BYTES, spare_the_collector
from streams.decode import decode
from streams.ledger import Ledger
from streams.records import Out, Record
from streams.state import STAGE, Judged, case_judge

FIXTURES: Final = Path(__file__).parents[2] / "tests" / "fixtures" / "hq"
FORMS: Final = (
    "form_xml_with_case.xml",
    "form_xml_covid_registration.xml",
    "case_ledger_form.xml",
    "v1_case_in_repeats.xml",
    "form_json_full.json",
)
START_MICROSECONDS: Final = 1_795_000_000_000_000
#: Events among which one that is late or comes again finds its place.
DISORDER: Final = 50
RECORDS_A_BATCH: Final = 500
RUNS: Final = 5


@dataclass(frozen=True, slots=True)
class Made:
    """A record as the consumer gives it."""

    value: bytes | None
    key: bytes | None
    headers: Sequence[tuple[str, bytes]]
    topic: str
    offset: int
    partition: int = 0


def case_bodies(events: int, cases: int, seed: int = 1) -> Iterator[bytes]:
    """Yield snapshots of cases, 1 KB of JSON each, in the order in which HQ made them."""
    rng = random.Random(seed)  # noqa: S311 - reproducible, not secret
    forms: list[list[str]] = [[] for _ in range(cases)]
    for number in range(events):
        case = rng.randrange(cases)
        forms[case].append(f"{rng.getrandbits(128):032x}")
        yield encoded(_case(case, forms[case], START_MICROSECONDS + number * 1000, number))


def _case(number: int, forms: Sequence[str], microseconds: int, change: int) -> dict[str, Any]:
    modified = from_microseconds(microseconds)
    return {
        "domain": "demo",
        "case_id": f"{number:08x}-0000-4000-8000-{number:012x}",
        "user_id": "06414101dc45bcfdc963b8cb1a1ebdfd",
        "closed": False,
        "xform_ids": list(forms),
        "date_closed": None,
        "date_modified": modified,
        "server_date_modified": modified,
        "properties": {
            "case_name": f"Person {number}",
            "case_type": "patient",
            "date_opened": "2026-03-19T14:31:34.133",
            "external_id": str(number),
            "owner_id": "20cc9dda-b90a-4af3-aa3d-fc67184e73ef",
            "last_change": str(change),
            **{f"question_{name}": f"answer {name * 7919}" for name in range(10)},
        },
        "indices": {
            "parent": {
                "case_type": "household",
                "case_id": "eb1a8c23-6d6d-4b61-894c-ae1c437d8dac",
                "relationship": "child",
            }
        },
        "attachments": {},
    }


def disordered(bodies: Sequence[bytes], share: float = 0.05, seed: int = 1) -> list[bytes]:
    """Return the bodies with a share of them twice, and a share of them late."""
    rng = random.Random(seed)  # noqa: S311 - as above
    placed = []
    for number, body in enumerate(bodies):
        late = rng.uniform(0, DISORDER) if rng.random() < share else 0
        placed.append((number + late, body))
        if rng.random() < share:
            placed.append((number + rng.uniform(0, DISORDER), body))
    return [body for _, body in sorted(placed, key=lambda pair: pair[0])]


def captured(bodies: Sequence[bytes], content_type: str) -> list[Made]:
    """Return bodies as the ingress captures them, with the headers that HQ sends."""
    clock = count(START_MICROSECONDS * 1000 + 3_600_000_000_000, 1_000_000)
    ids = EventIds(clock.__next__)
    address = Address(domain="demo", label="", method="POST", path="/api/v1/in/demo", query="")
    records = []
    for offset, body in enumerate(bodies):
        event_id, event_time = ids.next()
        request = [
            ("host", b"casewire.example.org"),
            ("user-agent", b"python-requests/2.32.3"),
            ("accept-encoding", b"gzip, deflate"),
            ("accept", b"*/*"),
            ("connection", b"keep-alive"),
            ("content-type", content_type.encode()),
            ("server-modified-on", b"2026-11-18T10:00:00.000000Z"),
            ("content-length", str(len(body)).encode()),
        ]
        headers = captured_headers(event_id, event_time, address, request)
        records.append(Made(body, event_id.encode(), headers, "casewire.captured", offset))
    return records


def typed(records: Sequence[Record]) -> list[Made]:
    """Return the case events that are made of captured records."""
    outs = [decode(record).out for record in records]
    return [
        Made(out.value, out.key, list(out.headers), "casewire.cases", offset)
        for offset, out in enumerate(outs)
    ]


@dataclass(slots=True)
class Judging:
    """The judge of case events with a dict for its table, as often as it is run anew."""

    events: Sequence[Made]
    ends: list[tuple[Made, Judged]] = field(default_factory=list)

    def run(self) -> None:
        judge = case_judge(writer="host/1/abcdef01", window_microseconds=10_000_000)
        held: dict[bytes | None, bytes | None] = {}
        self.ends = []
        for record in self.events:
            judged = judge(record, held.get(record.key))
            if judged.publish is not None:
                held[record.key] = judged.publish.value
            self.ends.append((record, judged))

    def published(self) -> list[Out]:
        return [judged.publish for _, judged in self.ends if judged.publish is not None]

    def tell(self) -> None:
        """Make the ledger's records, a batch at a time."""
        for start in range(0, len(self.ends), RECORDS_A_BATCH):
            ledger = Ledger(STAGE, written="applied")
            for record, judged in self.ends[start : start + RECORDS_A_BATCH]:
                ledger.add(record, judged.outcome)
            ledger.records()


def packed(records: Sequence[Out]) -> list[bytes]:
    """Return record batches as the producer makes them."""
    batches = []
    for start in range(0, len(records), RECORDS_A_BATCH):
        builder = DefaultRecordBatchBuilder(
            magic=2,
            compression_type=DefaultRecordBatch.CODEC_ZSTD,
            is_transactional=False,
            producer_id=1,
            producer_epoch=0,
            base_sequence=0,
            batch_size=SEND_BYTES,
        )
        for number, (key, value, headers) in enumerate(records[start : start + RECORDS_A_BATCH]):
            builder.append(number, None, key, value, headers)
        batches.append(bytes(builder.build()))
    return batches


def unpack(batches: Sequence[bytes]) -> None:
    """Read record batches as the consumer does."""
    for batch in batches:
        records = MemoryRecords(batch)
        while records.has_next():
            for record in records.next_batch():
                record.headers  # noqa: B018 - it is what is timed


@dataclass(frozen=True, slots=True)
class Step:
    """Something to time: `run` handles so many events."""

    events: int
    run: Callable[[], object]

    def microseconds(self) -> float:
        """Return the CPU time of an event."""
        times = []
        for _ in range(RUNS):
            start = time.process_time()
            self.run()
            times.append(time.process_time() - start)
        return min(times) * 1e6 / self.events


def _decode_all(records: Sequence[Record]) -> None:
    for record in records:
        decode(record)


def steps(events: int) -> Mapping[str, Step]:
    """Return the steps by name."""
    cases = captured(disordered(list(case_bodies(events, events // 5))), "application/json")
    judging = Judging(typed(cases))
    judging.run()
    published = judging.published()
    batches = packed(published)
    found = {"decode a case, JSON": Step(len(cases), partial(_decode_all, cases))}
    for name in FORMS:
        sample = captured([(FIXTURES / name).read_bytes()] * 1000, "text/xml")
        found[f"decode {name}"] = Step(len(sample), partial(_decode_all, sample))
    return found | {
        "judge": Step(len(judging.ends), judging.run),
        "ledger": Step(len(judging.ends), judging.tell),
        "pack": Step(len(published), partial(packed, published)),
        "unpack": Step(len(published), partial(unpack, batches)),
    }


@click.command()
@click.option("--events", default=100_000, show_default=True, help="Snapshots of cases.")
@click.option("--profile", "profiled", metavar="STEP", help="Show where this step's time goes.")
def main(events: int, profiled: str | None) -> None:
    """Print what each step of an event's path costs."""
    found = steps(events)
    spare_the_collector()
    if profiled is not None:
        profile = cProfile.Profile()
        profile.runcall(found[profiled].run)
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)
        return
    for name, step in found.items():
        cost = step.microseconds()
        click.echo(f"{name:42} {cost:7.1f} us  {1e6 / cost:9,.0f} a second")


if __name__ == "__main__":
    main()
