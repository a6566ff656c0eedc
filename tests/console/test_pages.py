"""The pages in a real Chromium, on a real broker, by all the roles."""

from collections.abc import Sequence
from typing import Final

import anyio
import orjson
import pytest
from playwright.async_api import Locator, expect

from schemas.values import Json
from tests.console.conftest import Looker, forward, forward_case
from tests.end_to_end.system import System
from tests.end_to_end.test_samples import case, post
from tests.schemas.captures import JSON, fixture

pytestmark = [pytest.mark.anyio, pytest.mark.kafka]

FORM: Final = "f469597c-7587-4029-ba9d-215ce7660674"
LIGHT: Final[dict[str, Json]] = {"color_scheme": "light"}
DARK: Final[dict[str, Json]] = {"color_scheme": "dark"}
WITHOUT_SCRIPTS: Final[dict[str, Json]] = {"java_script_enabled": False}


async def with_letters(system: System, domain: str) -> Sequence[str]:
    """Forward a case, a form and what cannot be read; return the addresses of all pages."""
    await forward_case(system, domain, "c1", village="Sample Village")
    sample = fixture("form_json_connect_forwarded.json")
    await post(system.address(domain), sample.body, [("content-type", JSON)])
    event = await forward(system, domain, b'{"case_id": "c2"')
    return [
        "/", "/dead-letters", "/find", "/find?id=c1", "/sinks", "/sinks/files", "/alerts",
        "/connect", f"/cases/{domain}/c1", f"/cases/{domain}/nobody", f"/forms/{domain}/{FORM}",
        f"/dead-letters?domain={domain}&stage=decode&cause=malformed_json",
        f"/dead-letters/group?domain={domain}&stage=decode&cause=malformed_json&path=",
        f"/dead-letters/letters/{event}/decode/0",
    ]  # fmt: skip


@pytest.mark.parametrize("looking", [LIGHT, DARK], indirect=True)
async def test_every_page_is_sound_for_all_who_look_and_listen(looking: Looker) -> None:
    for path in await with_letters(looking.system, "sound"):
        await looking.open(path)
        await expect(looking.page.get_by_role("heading", level=1)).to_have_count(1)
        assert await looking.violations() == [], path
        await looking.page.set_viewport_size({"width": 390, "height": 800})
        too_wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert await looking.page.evaluate(too_wide) == 0, path
        await looking.page.set_viewport_size({"width": 1280, "height": 800})


@pytest.mark.parametrize("looking", [WITHOUT_SCRIPTS], indirect=True)
async def test_a_letter_is_repaired_and_replayed_without_javascript(looking: Looker) -> None:
    page, system = looking.page, looking.system
    bad = orjson.dumps(orjson.loads(case("repaired", domain="repair")) | {"case_id": ""})
    event = await forward(system, "repair", bad)
    await looking.open("/dead-letters")
    await page.get_by_role("row", name="repair").get_by_role("link").click()
    await page.get_by_role("link", name=event).click()
    await expect(page.get_by_text("The id is missing or blank")).to_be_visible()
    await expect(page.get_by_text("Synthetic One")).to_have_count(0)
    await looking.press("Show the record")
    await expect(page.get_by_label("Body", exact=True).first).to_contain_text("Synthetic One")
    await page.get_by_text("Repair it first").click()
    await page.get_by_label("JSON Patch").fill('{"op": "replace"}')
    await looking.press("Replay")
    await expect(page.get_by_role("alert")).to_contain_text("is no JSON Patch")
    looking.forgive("400")
    await expect(page.get_by_label("JSON Patch")).to_have_value('{"op": "replace"}')
    patch = '[{"op": "replace", "path": "/case_id", "value": "repaired"}]'
    await page.get_by_label("JSON Patch").fill(patch)
    await page.get_by_label("Why (kept beside it)").first.fill("agreed by telephone")
    await looking.press("Replay")
    await expect(page.get_by_text("Sent to be processed again: 1.")).to_be_visible()
    await page.get_by_role("link", name="Back").click()
    await expect(page.get_by_text("agreed by telephone")).to_be_visible()
    await expect(page.get_by_text("anna (console)")).to_be_visible()
    await system.caught_up()
    await looking.open("/find")
    await page.get_by_label("Project space").fill("repair")
    await page.get_by_label("Id", exact=True).fill("repaired")
    await looking.press("Find")
    await expect(page.get_by_role("heading", name="Properties")).to_be_visible()
    letter = f"{event}/decode/0"
    done = [line for line in looking.audited() if line.get("letter") == letter]
    assert [line["action"] for line in done] == ["reveal a dead letter", "replay dead letters"]
    assert "telephone" not in str(done)


async def test_a_whole_body_and_a_discard_close_letters(looking: Looker) -> None:
    page, system = looking.page, looking.system
    first = await forward(system, "close", b"{1")
    await forward(system, "close", b"{2")
    await looking.open(f"/dead-letters/letters/{first}/decode/0")
    await page.get_by_text("Repair it first").click()
    await page.get_by_label("Or a whole body instead").fill(case("whole", domain="close").decode())
    await looking.press("Replay")
    await expect(page.get_by_text("Sent to be processed again: 1.")).to_be_visible()
    await system.caught_up()
    await looking.open("/cases/close/whole")
    await expect(page.get_by_role("heading", name="Properties")).to_be_visible()
    group = "/dead-letters/group?domain=close&stage=decode&cause=malformed_json&path="
    await looking.open(group)
    await looking.press("Discard all 1")
    why = page.get_by_label("Why (kept beside each)").last
    assert await why.evaluate("field => !field.validity.valid"), "it must be said why"
    await why.fill("a test of ours")
    await looking.press("Discard all 1")
    await expect(page.get_by_text("Discarded: 1.")).to_be_visible()
    await looking.open(group)
    await expect(page.get_by_text("None of them is open.")).to_be_visible()
    await expect(page.get_by_text("discarded")).to_be_visible()


async def test_letters_of_a_cause_are_replayed_together(looking: Looker) -> None:
    page, system = looking.page, looking.system
    for name in ("x", "y"):
        await forward(system, "many", case(name, domain="many", server_date_modified="no time"))
    await looking.open(
        "/dead-letters/group?domain=many&stage=decode&cause=invalid_field&path=server_date_modified"
    )
    await page.get_by_text("Repair them first").click()
    await page.get_by_label("JSON Patch for each body").fill(
        '[{"op": "replace", "path": "/server_date_modified", "value": "2026-01-01T00:00:00Z"}]'
    )
    await looking.press("Replay all 2")
    await expect(page.get_by_text("Sent to be processed again: 2.")).to_be_visible()
    await system.caught_up()
    for name in ("x", "y"):
        await looking.open(f"/cases/many/{name}")
        await expect(page.get_by_role("heading", name="History")).to_be_visible()


async def test_values_are_shown_when_somebody_asks_and_that_is_written_down(
    looking: Looker,
) -> None:
    page = looking.page
    await forward_case(looking.system, "hidden", "c1", village="Sample Village")
    await looking.open("/cases/hidden/c1")
    content = await page.content()
    assert "Synthetic One" not in content
    assert "Sample Village" not in content
    await expect(page.get_by_role("cell", name="patient")).to_be_visible()
    await looking.press("Show village")
    await expect(page.get_by_role("cell", name="Sample Village")).to_be_visible()
    assert "Synthetic One" not in await page.content()
    await looking.press("Show all values")
    await expect(page.get_by_role("cell", name="Synthetic One")).to_be_visible()
    await looking.press("Show the values in it")
    await expect(page.locator(".changes")).to_contain_text("Sample Village")
    await looking.open("/cases/hidden/c1")
    assert "Synthetic One" not in await page.content()
    asked = [line for line in looking.audited() if line.get("domain") == "hidden"]
    assert [(line["action"], line["user"], line["values"]) for line in asked] == [
        ("reveal a case", "anna", "village"),
        ("reveal a case", "anna", "*"),
        ("reveal a case", "anna", "history"),
    ]
    assert "Sample" not in str(asked)


async def test_who_is_no_operator_sees_all_but_values(looking: Looker) -> None:
    page = looking.page
    paths = await with_letters(looking.system, "looked-at")
    await looking.press("Log out")
    await looking.log_in("ben")
    for path in paths[5:]:  # those before have no buttons
        await looking.open(path)
        await expect(page.get_by_role("heading", level=1)).to_have_count(1)
        buttons = page.locator("main").get_by_role("button")
        assert set(await buttons.all_text_contents()) <= {"Find"}, path
        assert "Sample Village" not in await page.content()
        assert await looking.violations() == [], path


async def test_a_form_shows_its_answers_when_somebody_asks(looking: Looker) -> None:
    await with_letters(looking.system, "answers")
    await looking.open("/find")
    await looking.page.get_by_label("a form").check()
    await looking.page.get_by_label("Id", exact=True).fill(f"answers/{FORM}")
    await looking.press("Find")
    await expect(looking.page.get_by_role("heading", name="Answers")).to_be_visible()
    assert "deviceID" not in await looking.page.content()
    await looking.press("Show the answers")
    await expect(looking.page.get_by_label("Answers", exact=True).last).to_contain_text("deviceID")
    asked = [line for line in looking.audited() if line.get("domain") == "answers"]
    assert [(line["action"], line["form"]) for line in asked] == [("reveal a form", FORM)]


async def test_a_case_and_a_project_space_are_written_again(looking: Looker) -> None:
    page, system = looking.page, looking.system
    await forward_case(system, "again", "c1")
    await looking.open("/cases/again/c1")
    deliveries = page.get_by_role("region", name="Deliveries to files")
    await expect(deliveries.get_by_role("cell", name="written")).to_have_count(1)
    await page.get_by_label("Where to").select_option("files")
    await looking.press("Dry run")
    title = page.get_by_role("heading", level=1)
    await expect(title).to_have_text("Dry run of a replay of again/c1 into files")
    await expect(page.get_by_text("1 would change nothing: the same is there.")).to_be_visible()
    await page.get_by_role("link", name="Back").click()
    await page.get_by_label("Where to").select_option("files")
    await looking.press("Replay")
    await expect(page.get_by_text("Events sent to be processed again: 1.")).to_be_visible()
    await system.caught_up()
    await looking.open("/cases/again/c1")
    await expect(deliveries.get_by_role("cell", name="written (replay)")).to_have_count(1)
    await looking.press("Replay")
    await expect(page.get_by_text("Events sent to be processed again: 1.")).to_be_visible()
    await looking.open("/sinks")
    await page.get_by_role("link", name="files").click()
    await page.get_by_role("combobox", name="Project space").fill("again")
    await looking.press("Replay")
    await expect(page.get_by_text("Events sent to be processed again: 1.")).to_be_visible()
    asked = [line for line in looking.audited() if line.get("domain") == "again"]
    assert [(line["action"], line.get("sink")) for line in asked] == [
        ("replay", "files"), ("replay", None), ("replay", "files"),
    ]  # fmt: skip


async def test_an_alert_is_muted_and_unmuted(looking: Looker) -> None:
    page = looking.page
    await forward(looking.system, "mute", b"{")
    group = "mute/decode/malformed_json/cases"
    await (await appears(looking, "/alerts", f"Mute {group}")).click()
    await expect(page.get_by_role("status")).to_contain_text("Muted")
    await (await appears(looking, "/alerts", f"Unmute {group}")).click()
    await expect(page.get_by_role("status")).to_contain_text("No longer muted")
    await appears(looking, "/alerts", f"Mute {group}")
    asked = [line["action"] for line in looking.audited() if line.get("group") == group]
    assert asked == ["mute", "unmute"]
    card = page.get_by_role("listitem").filter(has_text=group)
    await expect(card).to_contain_text("mute: cases fail at decode: malformed_json")
    await expect(card).to_contain_text("nobody is: see [alerts]")
    await card.get_by_role("link", name="See the dead letters").click()
    only = "Only project space mute, stage decode, cause malformed_json."
    await expect(page.get_by_text(only)).to_be_visible()
    await expect(page.get_by_role("row")).to_have_count(2)


async def appears(looking: Looker, path: str, button: str) -> Locator:
    """Open a page again until it has a button, and return that: the alerts role takes a moment."""
    await looking.open(path)
    found = looking.page.get_by_role("button", name=button, exact=True)
    with anyio.fail_after(60):
        while not await found.count():
            await looking.page.reload()
    return found


async def test_figures_are_fetched_again_by_themselves_unless_paused(looking: Looker) -> None:
    page = looking.page
    await looking.open("/")
    await page.evaluate("window.same = true")
    kept = page.locator("dd").nth(1)
    before = await kept.text_content()
    await forward_case(looking.system, "fresh", "c1")
    await expect(kept).not_to_have_text(before or "")
    assert await page.evaluate("window.same"), "the page was not loaded anew"
    await expect(page.get_by_text("takes requests")).to_be_visible()
    processes = page.get_by_role("region", name="Table of processes")
    for role in ("ingress", "streams", "sink-files", "alerts", "console"):
        await expect(processes.get_by_role("row", name=role)).to_contain_text("ready")
    await looking.press("Pause updates")
    await expect(page.get_by_role("button", name="Resume updates")).to_be_visible()


async def test_everything_can_be_reached_and_done_by_keyboard(looking: Looker) -> None:
    page = looking.page
    await forward_case(looking.system, "keys", "c1", village="Sample Village")
    keyboard = page.keyboard
    await looking.press("Log out")
    await expect(page.get_by_label("User name")).to_be_focused()
    await keyboard.type("anna")
    await keyboard.press("Tab")
    await keyboard.type("wrong password")
    await keyboard.press("Enter")
    await expect(page.get_by_role("alert")).to_have_text("The user name or the password is wrong.")
    await expect(page.get_by_label("User name")).to_be_focused()
    await keyboard.type("anna")
    await keyboard.press("Tab")
    await keyboard.type("correct horse battery")
    await keyboard.press("Enter")
    await page.wait_for_url(looking.base + "/")
    await keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    await keyboard.press("Enter")
    await expect(page.locator("main")).to_be_focused()
    await page.reload()
    await tab_to(looking, "Find")
    await keyboard.press("Enter")
    await page.wait_for_url("**/find")
    await tab_to(looking, "domain")
    await keyboard.type("keys")
    await keyboard.press("Tab")
    await keyboard.type("c1")
    await keyboard.press("Enter")
    await page.wait_for_url("**/cases/keys/c1")
    await tab_to(looking, "Show village")
    await keyboard.press("Enter")
    await expect(page.get_by_role("cell", name="Sample Village")).to_be_visible()
    looking.forgive("401")


async def tab_to(looking: Looker, name: str) -> None:
    """Press Tab until the element of a text or an id has the focus, and is seen to have it."""
    focused = "document.activeElement.id || document.activeElement.textContent.trim()"
    for _ in range(60):
        await looking.page.keyboard.press("Tab")
        if await looking.page.evaluate(focused) == name:
            style = "getComputedStyle(document.activeElement).outlineStyle"
            assert await looking.page.evaluate(style) != "none"
            return
    pytest.fail(f"{name} was not reached")


async def test_what_is_not_there_is_said(looking: Looker) -> None:
    for path, said in (
        ("/sinks/nowhere", "did you mean files?"),
        ("/dead-letters/letters/nobody", "There is no dead letter nobody"),
        ("/works/nothing", "This console knows nothing of it"),
    ):
        await looking.open(path)
        await expect(looking.page.get_by_role("alert")).to_contain_text(said)
    looking.forgive("404")
