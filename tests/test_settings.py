import pytest

from schemas.settings import KafkaSettings


@pytest.mark.parametrize(
    ("prefix", "group"),
    [("casewire.", "casewire-streams"), ("pilot.", "pilot-streams"), ("", "casewire-streams")],
)
def test_installations_that_differ_by_prefix_differ_by_group(prefix: str, group: str) -> None:
    assert KafkaSettings(topic_prefix=prefix).group("streams") == group
