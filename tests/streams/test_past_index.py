"""The index of past moments on disk."""

import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from streams.past.index import Entry, Index, entries_of

KEYS = st.sampled_from([b"demo/a", b"demo/b", b"demo/c"])
RECORDS = st.lists(
    st.tuples(KEYS, st.builds(Entry, st.integers(0, 9), st.integers(0, 1), st.integers(0, 99))),
    max_size=30,
)


@settings(deadline=None, max_examples=25)
@given(RECORDS, st.integers(0, 99))
def test_it_has_each_record_once_until_the_topic_drops_it(
    tmp_path_factory: pytest.TempPathFactory,
    records: list[tuple[bytes, Entry]],
    start: int,
) -> None:
    file = tmp_path_factory.mktemp("index") / "0.db"
    index = Index(file)
    index.add(records, {0: 50})
    index.add(records[::-1], {0: 30, 1: 7})
    assert index.positions() == {0: 50, 1: 7}
    for key in (b"demo/a", b"demo/b", b"demo/d"):
        about = sorted({entry for each, entry in records if each == key})
        assert entries_of(file, key) == about
    index.forget({0: start, 1: 0})
    index.close()
    kept = {e for k, e in records if k == b"demo/a" and (e.topic == 1 or e.offset >= start)}
    assert entries_of(file, b"demo/a") == sorted(kept)


def test_one_that_is_damaged_or_of_another_format_begins_anew(tmp_path: Path) -> None:
    file = tmp_path / "0.db"
    file.write_bytes(b"this is no database" * 500)
    index = Index(file)
    index.add([(b"k", Entry(1, 0, 1))], {0: 2})
    index.close()
    Index(file).close()
    assert entries_of(file, b"k") == [Entry(1, 0, 1)]
    connection = sqlite3.connect(file)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    again = Index(file)
    assert again.positions() == {}
    again.close()
    assert entries_of(file, b"k") == []
