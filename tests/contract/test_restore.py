"""Tables that somebody dropped are made again, and filled from what comes once more."""

import pytest

from schemas.errors import TargetError
from sinks.postgres import PostgresSink
from sinks.sqlite import SqliteSink
from tests.contract.rigs import (
    PARENT,
    PostgresRig,
    SqliteRig,
    StateSink,
    case_state,
    form_state,
    opened,
)

pytestmark = pytest.mark.anyio

Rig = SqliteRig | PostgresRig


def restoring(rig: Rig) -> StateSink:
    if isinstance(rig, SqliteRig):
        return StateSink(SqliteSink(rig.folder, restore=True))
    return StateSink(PostgresSink(rig.url, restore=True))


@pytest.mark.parametrize(
    "rig", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)], indirect=True
)
async def test_dropped_tables_and_columns_are_filled_while_the_sink_runs(
    rig: Rig, domain: str
) -> None:
    case = case_state(domain, version=5, indices=PARENT, properties={"age": "41", "x": "y"})
    form = form_state(domain, version=5, form={"visit": [{"drug": "a"}, {"drug": "b"}], "n": "1"})
    async with opened(rig.sink()) as sink:
        await sink.write([case, form])
        cases, forms = rig.rows(domain), rig.forms(domain)
        cascade = "" if isinstance(rig, SqliteRig) else " CASCADE"
        for kind in ("case", "repeat"):
            text = f"SELECT name FROM cw_names WHERE kind = '{kind}'"  # noqa: S608
            ((table,),) = rig.query(domain, text)
            rig.run(domain, f'DROP TABLE "{table}"{cascade}')
        with pytest.raises(TargetError):
            await sink.write([case_state(domain, "c2", version=9)])
        async with opened(restoring(rig)) as anew:
            assert await anew.write([case, form]) == ["written", "written"]
        assert (rig.rows(domain), rig.forms(domain)) == (cases, forms)
        assert await sink.write([case_state(domain, version=6)]) == ["written"]
        async with opened(restoring(rig)) as anew:
            assert await anew.write([case, form]) == ["stale", "written"]
    assert rig.query(domain, "SELECT count(*) FROM case_patient_typed") == [(1,)]
    assert rig.query(domain, "SELECT count(*) FROM patient_of_household") == [(0,)]
