"""How HQ keeps cases: the life-cycle events of protocol.md §6.6 and the blocks of §7."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from casewire.simulation.model import Block, Case, Form, Index, Project, apply_block

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUSEHOLD = Index("household", "h1")


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


def block(update: Mapping[str, str] | None = None, *, minutes: float = 0) -> Block:
    return Block(case_id="c1", user_id="u1", date_modified=at(minutes), update=update or {})


def form(form_id: str, minutes: float, *blocks: Block) -> Form:
    return Form(
        id=form_id,
        name="form",
        user_id="u1",
        username="worker1",
        app_id=None,
        received_on=at(minutes),
        edited_on=None,
        started_on=at(minutes),
        ended_on=at(minutes),
        device_offset=0,
        blocks=blocks,
    )


CREATION = form(
    "f1",
    0,
    replace(
        block({"note": "first"}),
        create={"case_type": "person", "case_name": "Fern Sample", "owner_id": "o1"},
        index={"parent": HOUSEHOLD},
    ),
)


@pytest.fixture
def project() -> Project:
    project = Project()
    project.submit(CREATION)
    return project


def test_a_case_has_the_time_at_which_its_last_form_was_received(project: Project) -> None:
    (case,) = project.submit(form("f2", 5, block({"note": "second"}, minutes=-1000)))
    assert case.server_modified_on == at(5)
    assert case.date_modified == at(0), "the device's time only moves forward"
    assert (case.xform_ids, case.properties) == (("f1", "f2"), {"note": "second"})


def test_the_time_goes_back_if_forms_are_processed_in_the_other_order(project: Project) -> None:
    project.submit(form("f2", 5, block()))
    (case,) = project.submit(form("f3", 4, block()))
    assert case.server_modified_on == at(4)


def test_archiving_a_form_takes_back_what_it_said(project: Project) -> None:
    project.submit(form("f2", 5, block({"weight": "12", "note": "second"})))
    (case,) = project.archive("f2", at(9))
    assert case.properties == {"note": "first"}
    assert (case.xform_ids, case.server_modified_on) == (("f1",), at(9))
    (back,) = project.unarchive("f2", at(10))
    assert back.properties == {"note": "second", "weight": "12"}
    assert back.xform_ids == ("f1", "f2")


def test_archiving_the_closing_form_opens_the_case_again(project: Project) -> None:
    (closed,) = project.submit(form("f2", 5, replace(block(minutes=5), close=True)))
    assert (closed.closed, closed.date_closed) == (True, at(5))
    (case,) = project.archive("f2", at(9))
    assert (case.closed, case.date_closed) == (False, None)


def test_a_case_of_which_every_form_is_archived_is_gone(project: Project) -> None:
    (case,) = project.archive("f1", at(9))
    assert case.gone
    assert case == Case(case_id="c1", server_modified_on=at(9), date_modified=at(9))


def test_without_its_creation_a_case_lives_on_without_type_and_name(project: Project) -> None:
    project.submit(form("f2", 5, block({"note": "second"}, minutes=5)))
    (case,) = project.archive("f1", at(9))
    assert not case.gone
    assert (case.case_type, case.name, case.owner_id) == ("", "", "u1")
    assert case.date_opened == at(5)


def test_an_edited_form_says_something_else_at_its_place(project: Project) -> None:
    project.submit(form("f2", 5, block({"note": "second"})))
    (case,) = project.edit(replace(CREATION, edited_on=at(9), blocks=(block({"weight": "1"}),)))
    assert case.properties == {"weight": "1", "note": "second"}
    assert (case.xform_ids, case.server_modified_on) == (("f1", "f2"), at(9))


def test_a_removed_index_stays_without_its_case(project: Project) -> None:
    removal = replace(block(), index={"parent": replace(HOUSEHOLD, case_id="")})
    (case,) = project.submit(form("f2", 5, removal))
    assert case.indices == {"parent": Index("household", "")}


CASE = apply_block(Case(case_id="c1", server_modified_on=START), CREATION.blocks[0])


def test_an_index_that_is_not_there_cannot_be_removed() -> None:
    removal = replace(block(), index={"other": Index("household", "")})
    assert apply_block(CASE, removal).indices == {"parent": HOUSEHOLD}


def test_a_blank_value_clears_a_property_but_no_known_one() -> None:
    case = apply_block(CASE, block({"note": "", "case_name": "", "case_type": "patient"}))
    assert case.properties == {"note": ""}
    assert (case.name, case.case_type) == ("Fern Sample", "patient")


def test_several_blocks_for_one_case_are_one_form_of_it(project: Project) -> None:
    closing = replace(block(), close=True)
    saved = project.submit(form("f2", 5, block({"note": "a"}), block({"note": "b"}), closing))
    assert [(case.xform_ids, case.properties["note"], case.closed) for case in saved] == [
        (("f1", "f2"), "b", True)
    ]
