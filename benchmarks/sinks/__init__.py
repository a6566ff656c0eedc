"""The sinks, measured beside other ways to PostgreSQL: `python -m benchmarks.sinks`."""
