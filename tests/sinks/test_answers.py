from sinks.answers import Answers, Place, placed


def repeats(answers: Answers) -> dict[str, dict[str, dict[str, str]]]:
    return {
        path: {each.place.path: each.texts for each in found}
        for path, found in answers.repeats.items()
    }


def test_groups_are_flat_and_what_is_no_answer_is_left_out() -> None:
    form = {
        "#type": "data", "@xmlns": "http://example.org", "@version": "1",
        "meta": {"userID": "u1"},
        "name": "Ada", "none": None, "count": 3,
        "group": {"@xmlns": "x", "empty": "", "inner": {"weight": {"@unit": "kg", "#text": "5"}}},
        "label": {},
    }  # fmt: skip
    assert placed(form, ()) == Answers(
        {
            "name": "Ada", "count": "3", "label": "", "group/empty": "",
            "group/inner/weight/@unit": "kg", "group/inner/weight": "5",
        },
        {},
    )  # fmt: skip


def test_a_list_is_a_repeat_and_so_is_one_object_where_a_list_once_was() -> None:
    several = placed({"visit": [{"drug": "a"}, {"drug": "b"}]}, ())
    assert repeats(several) == {"visit": {"visit[1]": {"drug": "a"}, "visit[2]": {"drug": "b"}}}
    one = placed({"visit": {"drug": "a"}}, ["visit"])
    assert repeats(one) == {"visit": {"visit[1]": {"drug": "a"}}}
    assert one.texts == {}


def test_a_place_does_not_depend_on_what_is_known() -> None:
    form = {"home": {"visit": {"drug": [{"dose": "1"}, {"dose": "2"}]}}}
    for known in ([], ["home/visit"], ["home", "home/visit"]):
        places = [each.place.path for each in placed(form, known).repeats["home/visit/drug"]]
        assert places == ["home[1]/visit[1]/drug[1]", "home[1]/visit[1]/drug[2]"]
    inner = placed(form, ["home/visit"]).repeats["home/visit/drug"][1]
    assert inner.place == Place("home[1]/visit[1]/drug[2]", 2, "home[1]/visit[1]")


def test_answers_of_a_repeat_without_any_inside_are_its_text() -> None:
    assert repeats(placed({"code": ["x", "", {"@k": "1"}]}, ())) == {
        "code": {"code[1]": {"#text": "x"}, "code[2]": {"#text": ""}, "code[3]": {"@k": "1"}}
    }


def test_of_a_case_block_only_the_id_is_an_answer() -> None:
    block = {"@case_id": "c1", "@user_id": "u", "update": {"age": "4"}}
    old = {"case_id": "c2", "update": {"age": "4"}}
    assert placed({"case": block, "g": {"case": old}}, ()).texts == {
        "case/@case_id": "c1", "g/case/@case_id": "c2",
    }  # fmt: skip
    several = placed({"child": [{"case": block}, {"case": old}], "case": [block, old]}, ())
    assert repeats(several) == {
        "child": {"child[1]": {"case/@case_id": "c1"}, "child[2]": {"case/@case_id": "c2"}},
        "case": {"case[1]": {"@case_id": "c1"}, "case[2]": {"@case_id": "c2"}},
    }
    assert placed({"case": {"notes": "a question"}}, ()).texts == {"case/notes": "a question"}


def test_no_two_answers_share_a_path() -> None:
    form = {"a": {"b": "1"}, "a/b": "2", "": {"": "3"}, "~": "4", "~1": "5"}
    assert sorted(placed(form, ()).texts.values()) == ["1", "2", "3", "4", "5"]
