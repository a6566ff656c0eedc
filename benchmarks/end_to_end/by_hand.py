"""What one writes by hand to have HQ's cases in PostgreSQL: Flask, a pool, a guarded upsert.

The row is there when the request is answered. It keeps what Casewire's row has: a column a
property, the newest snapshot wins, an older one changes nothing. It runs in an environment of its
own, without Casewire.
"""

import os

import orjson
from flask import Flask, request
from psycopg_pool import ConnectionPool

OWN = ("domain", "case_id", "closed", "date_modified", "server_date_modified", "user_id")
PROPERTIES = tuple(os.environ["BY_HAND_PROPERTIES"].split(","))
COLUMNS = (*OWN, *PROPERTIES)

UPSERT = (
    f"INSERT INTO by_hand ({', '.join(COLUMNS)}) VALUES ({', '.join(['%s'] * len(COLUMNS))}) "  # noqa: S608 - our own names
    "ON CONFLICT (domain, case_id) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in COLUMNS[2:])
    + " WHERE excluded.server_date_modified >= by_hand.server_date_modified"
)

app = Flask(__name__)
pool = ConnectionPool(os.environ["BY_HAND_URL"], min_size=4, max_size=4, open=True)


@app.post("/api/v1/in/<domain>")  # type: ignore[untyped-decorator]
def receive(domain: str) -> tuple[str, int]:
    case = orjson.loads(request.get_data())
    row = [case[name] for name in OWN]
    row += [case["properties"].get(name) for name in PROPERTIES]
    with pool.connection() as connection:
        connection.execute(UPSERT, row)
    return "stored", 200
