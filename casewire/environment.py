"""Which environment variable gives which key of the configuration (contract §2)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from casewire.tables import FromEnvironment, Path, nearest

PREFIX: Final = "CASEWIRE_"
CONFIG: Final = "CASEWIRE_CONFIG"

#: Variables that do not follow the rule `CASEWIRE_` and the path joined by `__`.
FIXED: Final[Mapping[str, Path]] = {
    "KAFKA_BOOTSTRAP_SERVERS": ("kafka", "bootstrap_servers"),
    "CASEWIRE_INGRESS_BIND": ("ingress", "bind"),
    "CASEWIRE_STREAMS_BIND": ("streams", "bind"),
}


def variable(path: Path) -> str:
    """Return the name of the variable that gives a key."""
    fixed = {known: name for name, known in FIXED.items()}
    return fixed.get(path) or PREFIX + "__".join(_shouted(part) for part in path)


def read_environment(
    env: Mapping[str, str],
    plain: Iterable[Path],
    named: Mapping[str, Sequence[str]],
    names: Mapping[str, Iterable[str]],
    errors: list[str],
) -> dict[Path, FromEnvironment]:
    """Return the values that `env` gives, by path.

    `plain` are the paths of all keys without a name in them; `named` maps a table of named tables
    (`sinks`) to the keys of one of them; `names` the names that the file has there. A variable
    that is unknown adds a text to `errors`.
    """
    known = {variable(path): path for path in plain} | dict(FIXED)
    found = {}
    for name, text in env.items():
        if name != CONFIG and (name in known or name.startswith(PREFIX)):
            path = known.get(name) or _named_path(name, named, names)
            if path is None:
                candidates = [*known, CONFIG, *_named_variables(name, named)]
                errors.append(
                    f"{name}: unknown environment variable; "
                    f"did you mean {nearest(name, candidates)}?"
                )
            else:
                found[path] = FromEnvironment(name, text)
    return found


def _named_path(
    variable_name: str, named: Mapping[str, Sequence[str]], names: Mapping[str, Iterable[str]]
) -> Path | None:
    parts = variable_name.removeprefix(PREFIX).lower().split("__")
    if len(parts) != 3 or parts[2] not in named.get(parts[0], ()) or not parts[1]:
        return None
    table, name, key = parts
    # A variable's name has neither dots nor hyphens, a project space's has no underscore.
    same = [given for given in names.get(table, ()) if _shouted(given) == _shouted(name)]
    return table, same[0] if same else name.replace("_", "-"), key


def _named_variables(wrong: str, named: Mapping[str, Sequence[str]]) -> list[str]:
    parts = wrong.removeprefix(PREFIX).split("__")
    name = parts[1] if len(parts) > 1 and parts[1] else "NAME"
    return [
        f"{PREFIX}{_shouted(table)}__{name}__{_shouted(key)}"
        for table, keys in named.items()
        for key in keys
    ]


def _shouted(part: str) -> str:
    return part.upper().replace("-", "_").replace(".", "_")
