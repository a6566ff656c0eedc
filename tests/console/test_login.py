"""Who is let in, who is not, and what a browser may do with the pages."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import orjson
import pytest
from hypothesis import given, strategies as st
from starlette.routing import Route

from casewire.cli import run
from casewire.config import load_config
from casewire.console.app import ROUTES
from casewire.console.gate import safe_next
from casewire.console.people import BURST
from casewire.console.sessions import Session, csrf_token, read_session, sign_session
from casewire.console.users import read_users, remove_user, set_password
from ingress.tokens import Keys
from schemas.errors import ConfigError
from tests.console.rig import PASSWORD, Asker, asking, configured

pytestmark = pytest.mark.anyio

KEYS = Keys.of(b"k" * 32)
FORGED = "forged" * 10
MUTE = {"group": "x", "action": "mute", "span": "2 hours"}


@pytest.fixture
async def asker(tmp_path: Path) -> AsyncIterator[Asker]:
    async with asking(configured(tmp_path)) as asker:
        yield asker


def audit(asker: Asker) -> list[dict[str, str]]:
    file = asker.backend.audit.file
    lines = file.read_bytes().splitlines() if file.exists() else []
    return [orjson.loads(line) for line in lines]


async def test_nothing_is_shown_to_who_has_not_logged_in(asker: Asker) -> None:
    for path in ("/", "/dead-letters", "/cases/demo/c1", "/alerts", "/connect", "/nowhere"):
        answer, _ = await asker.get(path)
        assert answer.status == 303
        assert answer.headers["location"].startswith("/login")
    answer, _ = await asker.post("/alerts", MUTE)
    assert (answer.status, answer.headers["location"]) == (303, "/login")


async def test_a_login_leads_to_the_page_that_was_asked_for_and_a_logout_out(asker: Asker) -> None:
    answer, _ = await asker.get("/find?of=form")
    assert answer.headers["location"] == "/login?next=%2Ffind%3Fof%3Dform"
    answer = await asker.log_in(next="/find?of=form")
    assert (answer.status, answer.headers["location"]) == (303, "/find?of=form")
    (cookie,) = [each for each in answer.headers.getall("set-cookie") if "console-session" in each]
    for part in ("HttpOnly", "SameSite=strict", "Path=/"):
        assert part in cookie
    assert "Secure" not in cookie
    _, text = await asker.get("/find")
    assert "anna" in text
    stolen = asker.client.cookie_jar.filter_cookies(asker.client._build_url(asker.base))
    answer, _ = await asker.post("/logout", {"csrf": await asker.token("/find")})
    assert answer.headers["location"] == "/login"
    asker.client.cookie_jar.update_cookies(stolen)
    answer, _ = await asker.get("/find")
    assert answer.status == 303
    assert [each["action"] for each in audit(asker)] == ["log in", "log out"]


@pytest.mark.parametrize(
    ("user", "password"), [("anna", "wrong"), ("anna", ""), ("bea", PASSWORD), ("", PASSWORD)]
)
async def test_a_wrong_password_lets_nobody_in(asker: Asker, user: str, password: str) -> None:
    answer = await asker.log_in(user, password)
    assert answer.status == 401
    assert (await asker.get("/find"))[0].status == 303
    assert [(each["user"], each["action"]) for each in audit(asker)] == [("", "wrong password")]


async def test_guessing_is_slow(asker: Asker) -> None:
    answers = [(await asker.log_in(password="wrong")).status for _ in range(BURST + 1)]
    assert answers == [401] * BURST + [429]
    answer = await asker.log_in()
    assert (answer.status, answer.headers["retry-after"]) == (429, "30")


async def test_a_right_password_costs_no_try(asker: Asker) -> None:
    for _ in range(BURST + 1):
        assert (await asker.log_in()).status == 303
        await asker.post("/logout", {"csrf": await asker.token("/find")})


async def test_a_session_ends_with_its_password_its_user_and_its_time(
    asker: Asker, tmp_path: Path
) -> None:
    file = tmp_path / "users"
    await asker.log_in()
    assert (await asker.get("/find"))[0].status == 200
    set_password(file, "anna", "another long password")
    assert (await asker.get("/find"))[0].status == 303
    set_password(file, "bea", PASSWORD)
    await asker.log_in("bea")
    assert (await asker.get("/find"))[0].status == 200
    remove_user(file, "bea")
    assert (await asker.get("/find"))[0].status == 303
    await asker.log_in(password="another long password")
    assert (await asker.get("/find"))[0].status == 200
    hours = asker.backend.config.console.session_hours
    now = asker.backend.door.clock()
    asker.backend.door.clock = lambda: now + hours * 3600 + 1
    assert (await asker.get("/find"))[0].status == 303


def forms_taken() -> Iterator[str]:
    """Yield an address of each page that takes a form."""
    for route in ROUTES:
        if isinstance(route, Route) and "POST" in (route.methods or ()):
            path = route.path.replace("{letter_id:path}", "x").replace("{id:path}", "c1")
            yield path.replace("{domain}", "demo").replace("{name}", "sqlite")


async def test_every_form_needs_the_token_of_its_session(asker: Asker) -> None:
    await asker.log_in()
    for path in forms_taken():
        forms: list[dict[str, str]] = [{}, {"csrf": ""}, {"csrf": FORGED}]
        for form in forms:
            answer, text = await asker.post(path, {"action": "replay", **form})
            assert answer.status == 403, path
            assert "nothing was done" in text
        answer, _ = await asker.post(path, {}, {"content-type": "text/plain"})
        assert answer.status == 415
    assert [each["action"] for each in audit(asker)] == ["log in"]


async def test_a_token_of_one_session_is_none_of_another(asker: Asker) -> None:
    before = await asker.token()
    await asker.log_in()
    first = await asker.token("/find")
    assert first != before
    await asker.post("/logout", {"csrf": first})
    await asker.log_in()
    assert (await asker.post("/logout", {"csrf": first}))[0].status == 403


async def test_a_form_of_any_size_is_not_read_from_who_is_not_known(asker: Asker) -> None:
    answer, _ = await asker.post("/login", {"csrf": await asker.token(), "user": "x" * 100_000})
    assert answer.status == 413


async def test_pages_allow_a_browser_nothing_but_what_they_need(asker: Asker) -> None:
    await asker.log_in()
    for path in ("/find", "/nowhere", "/login", "/static/nothing"):
        answer, text = await asker.get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
        assert "server" not in answer.headers
        assert "<style" not in text
        assert "style=" not in text
    answer, _ = await asker.get("/static/console.css")
    assert "immutable" in answer.headers["cache-control"]


async def test_by_https_cookies_are_for_https_alone(tmp_path: Path) -> None:
    config = configured(tmp_path, trusted_proxies="127.0.0.1")
    async with asking(config) as asker:
        https = {"x-forwarded-proto": "https", "x-forwarded-for": "198.51.100.7"}
        answer, _ = await asker.get("/login", https)
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith("__Host-casewire-console-visit=")
        assert "Secure" in cookie
        answer, _ = await asker.get("/login")
        assert "Secure" not in answer.headers["set-cookie"]


async def test_a_proxy_that_is_believed_says_who_is_there(tmp_path: Path) -> None:
    config = configured(
        tmp_path, users_file="", trusted_user_header="X-Auth-User", trusted_proxies="127.0.0.1"
    )
    async with asking(config) as asker:
        anna = {"x-auth-user": "anna@example.org"}
        answer, text = await asker.get("/find", anna)
        assert answer.status == 200
        assert "anna@example.org" in text
        assert (await asker.get("/find"))[0].status == 303
        _, text = await asker.get("/login")
        assert "password" not in text
        # Cross-site forms are refused here too: the proxy's own cookie would let them pass.
        answer, _ = await asker.post("/alerts", MUTE, anna)
        assert answer.status == 403


async def test_anybody_else_who_sends_that_header_is_nobody(tmp_path: Path) -> None:
    config = configured(
        tmp_path, users_file="", trusted_user_header="X-Auth-User", trusted_proxies="192.0.2.1"
    )
    async with asking(config) as asker:
        answer, _ = await asker.get("/find", {"x-auth-user": "anna"})
        assert answer.status == 303


async def test_without_users_the_token_in_the_data_directory_lets_in(tmp_path: Path) -> None:
    config = configured(tmp_path, users_file="")
    async with asking(config) as asker:
        file = tmp_path / "var" / "console.token"
        assert file.stat().st_mode & 0o777 == 0o600
        assert (await asker.log_in(password="wrong")).status == 401
        answer = await asker.log_in(user="", password=file.read_text().strip())
        assert answer.status == 303
        _, text = await asker.get("/find")
        assert "operator" in text


async def test_what_cannot_be_written_down_is_not_done(asker: Asker) -> None:
    await asker.log_in()
    csrf = await asker.token("/find")
    asker.backend.audit.file.unlink()
    asker.backend.audit.file.mkdir()
    answer, text = await asker.post(
        "/cases/demo/c1", {"csrf": csrf, "action": "reveal", "name": "*"}
    )
    assert answer.status == 503
    assert "nothing is done that is not written down" in text


async def test_a_console_in_which_nothing_can_be_done_is_not_ready(asker: Asker) -> None:
    backend = asker.backend
    assert backend.problem() is None, "although no broker answers"
    backend.audit.file.unlink(missing_ok=True)
    backend.audit.file.mkdir()
    assert "nothing is done that is not written down" in (backend.problem() or "")
    backend.audit.file.rmdir()
    assert backend.door.people is not None
    backend.door.people.file.write_text("")
    assert "names nobody" in (backend.problem() or "")


async def test_who_is_no_operator_may_look_and_nothing_else(tmp_path: Path) -> None:
    async with asking(configured(tmp_path, operators="boss")) as asker:
        await asker.log_in()
        csrf = await asker.token("/find")
        for path in {*forms_taken()} - {"/login", "/logout"}:
            answer, text = await asker.post(path, {"csrf": csrf, "action": "replay"})
            assert answer.status == 403, path
            assert "[console] operators" in text
        assert [line["action"] for line in audit(asker)] == ["log in"]
        _, text = await asker.get("/cases/demo/c1")
        assert "anna, may look" in text
        assert "Replay" not in text
        answer, _ = await asker.post("/logout", {"csrf": csrf})
        assert answer.headers["location"] == "/login"


async def test_an_operator_may_act(tmp_path: Path) -> None:
    async with asking(configured(tmp_path, operators="boss,anna")) as asker:
        await asker.log_in()
        _, text = await asker.get("/cases/demo/c1")
        assert "Replay" in text
        assert "may look" not in text


async def test_a_broker_that_is_away_is_a_sentence(asker: Asker) -> None:
    await asker.log_in()
    answer, text = await asker.get("/dead-letters")
    assert answer.status == 503
    assert "No Kafka broker answers" in text
    assert "Traceback" not in text


@given(st.text(max_size=60))
def test_a_login_never_leads_to_another_site(target: str) -> None:
    safe = safe_next(target)
    assert safe.startswith("/")
    assert not safe.startswith(("//", "/\\"))


@given(st.binary(max_size=40), st.integers(0, 200))
def test_a_session_is_what_was_signed_or_nothing(noise: bytes, place: int) -> None:
    assert KEYS.signing is not None
    session = Session("id", "anna", 1000, "b")
    signed = sign_session(KEYS.signing, session)
    assert read_session(KEYS, signed, 999) == session
    assert read_session(KEYS, signed, 1000) is None
    assert read_session(Keys.of(b"other" * 8), signed, 1) is None
    text = noise.decode("latin-1")
    assert read_session(KEYS, text, 1) is None
    changed = signed[: place % len(signed)] + text + signed[place % len(signed) :]
    assert text == "" or read_session(KEYS, changed, 1) is None
    assert csrf_token(KEYS.signing, "a") != csrf_token(KEYS.signing, "b")


def test_the_command_makes_changes_and_removes_users(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, secret = tmp_path / "secrets" / "users", tmp_path / "secret"
    secret.write_text(f"{PASSWORD}\n")
    command = ["console", "password", "anna", "--file", str(file)]
    assert run([*command, "--password-file", str(secret)], {}) == 0
    assert file.stat().st_mode & 0o777 == 0o600
    assert PASSWORD not in file.read_text()
    first = read_users(file)["anna"]
    env = {"CASEWIRE_CONSOLE__USERS_FILE": str(file)}
    assert run(["console", "password", "anna", "--password-file", str(secret)], env) == 0
    assert read_users(file)["anna"] != first
    secret.write_text("short")
    assert run([*command, "--password-file", str(secret)], {}) == 1
    assert "too short" in capsys.readouterr().err
    assert run([*command, "--remove"], {}) == 0
    assert run([*command, "--remove"], {}) == 1
    assert "names nobody" in capsys.readouterr().err
    assert run(["console", "password", "anna"], {}) == 1
    assert "users_file is not set" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names nobody"),
        ("anna:plain\n", "holds no password"),
        ("an na:scrypt:14:8:5:00:00\n", "is no user name"),
        ("anna:scrypt:14:8:5:00:00\n", "holds no password"),
    ],
)
def test_a_file_of_users_that_is_wrong_is_said(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "users").write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_users(tmp_path / "users")


def test_beyond_loopback_it_must_be_known_who_may_log_in() -> None:
    beyond = {"CASEWIRE_CONSOLE_BIND": "0.0.0.0:8081"}
    with pytest.raises(ConfigError, match="casewire console password NAME"):
        load_config(None, beyond)
    with pytest.raises(ConfigError, match="trusted_proxies"):
        load_config(None, {"CASEWIRE_CONSOLE__TRUSTED_USER_HEADER": "X-User"})
    with pytest.raises(ConfigError, match="nobody has a name yet"):
        load_config(None, {"CASEWIRE_CONSOLE__OPERATORS": "anna"})
    known = load_config(None, {**beyond, "CASEWIRE_CONSOLE__USERS_FILE": "users"})
    assert known.console_token_file is None
