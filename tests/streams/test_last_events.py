from prometheus_client import REGISTRY

from streams.last_events import MOST_DOMAINS, LastEvents


def last(domain: str) -> float | None:
    labels = {"domain": domain, "kind": "cases"}
    return REGISTRY.get_sample_value("casewire_last_event_timestamp_seconds", labels)


def test_the_latest_counts_whatever_the_order_of_the_partitions() -> None:
    events = LastEvents()
    events.came({("early", "cases"): 2000})
    events.came({("early", "cases"): 1000, ("late", "cases"): 3000})
    assert (last("early"), last("late")) == (2, 3)


def test_project_spaces_beyond_the_limit_share_a_label() -> None:
    events = LastEvents()
    events.came({(f"d{n}", "cases"): 1000 + n for n in range(MOST_DOMAINS + 5)})
    assert last(f"d{MOST_DOMAINS - 1}") is not None
    assert last(f"d{MOST_DOMAINS}") is None
    assert last("other") == (1000 + MOST_DOMAINS + 4) / 1000
