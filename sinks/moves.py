"""SQL for a path of a form's that turns out to be a repeat, the same in every database (pure)."""

from collections.abc import Callable, Sequence

from sinks.catalog import Move
from sinks.names import quoted

_KEYS = "cw_domain, cw_form_id, cw_path, cw_ordinal, cw_parent_path"


def move_texts(
    move: Move, table: Callable[[str], str], first_parts: Callable[[int], str]
) -> Sequence[str]:
    """Return the statements that move single objects to where those of lists are.

    `table` gives a table's name as SQL text, `first_parts` an expression for that many parts of
    the column `cw_path`.
    """
    source, target = table(move.source), table(move.target)
    place = f"cw_path || '{_literal(move.steps)}'"
    parent = "cw_path"
    if not move.outer_depth:
        place, parent = f"'{_literal(move.steps[1:])}'", "''"
    texts = []
    if move.columns:
        held = " OR ".join(f"{quoted(column)} IS NOT NULL" for column in move.columns)
        new = "".join(f", {quoted(column)}" for column in move.columns.values())
        old = "".join(f", {quoted(column)}" for column in move.columns)
        empty = ", ".join(f"{quoted(column)} = NULL" for column in move.columns)
        texts.append(
            f"INSERT INTO {target} ({_KEYS}{new}) "  # noqa: S608
            f"SELECT cw_domain, cw_form_id, {place}, 1, {parent}{old} FROM {source} WHERE {held}"
        )
        texts.append(f"UPDATE {source} SET {empty} WHERE {held}")  # noqa: S608
    texts += [
        f"INSERT INTO {target} ({_KEYS}) "  # noqa: S608
        f"SELECT DISTINCT cw_domain, cw_form_id, {first_parts(move.depth)}, 1, "
        f"{first_parts(move.outer_depth)} FROM {table(inner)} WHERE true ON CONFLICT DO NOTHING"
        for inner in move.inner
    ]
    texts += [
        f"UPDATE {table(inner)} SET cw_parent_path = {first_parts(move.depth)}"  # noqa: S608
        for inner in move.adopted
    ]
    return texts


def _literal(text: str) -> str:
    return text.replace("'", "''")
