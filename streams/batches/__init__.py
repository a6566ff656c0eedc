"""Record batches through Faust: one Faust event per fetched batch of one partition.

Faust pays its machinery once an event. Here an event carries all records that one fetch brought of
one partition, so the price is paid once a batch; agents, tables, changelogs, rebalancing and
recovery stay Faust's (docs/design.md has the figures and what Faust's own patterns lose).

    app = faust.App("casewire-streams", Table=BatchTable, ...)
    use_batches(app)
    cases = app.topic("casewire.cases", schema=BatchSchema())
    latest = app.topic("casewire.case-state", schema=BatchSchema(), compacting=True)
    table = app.Table("case-state", key_type=bytes, value_type=bytes, changelog_topic=latest)

    @app.agent(cases, supervisor_strategy=mode.CrashingSupervisor)
    async def keep(stream):
        async for batch in stream.noack():
            changes = table.changes(batch)
            for record in batch.records:
                changes.put(record.key, newest(changes.get(record.key), record), headers)
            await changes.send()
            await batch.done(ahead=4)

What is promised (at least once):
- an offset is committed when its batch and all before it of that partition are acknowledged;
- a batch is acknowledged when the broker has acknowledged everything sent for it, in order;
- the local store is written after the changelog, so it is never ahead of it;
- a failed send ends the process with nothing acknowledged: a restart does the batch again;
- a record goes to its key's own partition (murmur2), or the process stops.

The rooms: `batch` (what an agent gets, and its acknowledgement), `consumer` (fetches, delivers,
commits), `raw` (makes records of fetched bytes), `producer` (sends record batches), `table` (the
state, written behind its changelog), `guard` (writes over what others wrote), `tail` (ends a
recovery whose changelog ends in nothing), `assignor` (who gets which partitions), `transport` (has
Faust use all this).

Leans on private names of Faust and aiokafka: their versions are pinned exactly, and
tests/streams/test_batches.py and test_raw.py fail when an upgrade changes what is leant on.
"""
