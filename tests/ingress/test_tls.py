"""TLS on the listener, and certificates that change while it runs."""

import asyncio
import os
import ssl
import subprocess
from pathlib import Path

import pytest

from ingress.server import Certificate
from ingress.settings import IngressSettings
from schemas.errors import ConfigError
from tests.ingress.conftest import StartRig
from tests.ingress.rig import WAIT_SECONDS

pytestmark = pytest.mark.anyio

REQUEST = b"POST /api/v1/in/demo HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\n1"


def write_certificate(folder: Path, name: str) -> None:
    """Write cert.pem and key.pem for a common name."""
    made = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    files = ("-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem"))
    command = ("openssl", *made.split(), "-subj", f"/CN={name}", *files)
    subprocess.run(command, check=True, capture_output=True)


def tls_settings(folder: Path) -> IngressSettings:
    return IngressSettings(
        tls_cert_file=str(folder / "cert.pem"), tls_key_file=str(folder / "key.pem")
    )


def trusting_anyone() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port, ssl=trusting_anyone())


async def request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    writer.write(REQUEST)
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), WAIT_SECONDS)
    await reader.readexactly(65)
    return head


def certificate(writer: asyncio.StreamWriter) -> bytes:
    sent: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    return sent


async def test_new_connections_get_a_new_certificate_and_old_ones_go_on(
    start: StartRig, tmp_path: Path
) -> None:
    write_certificate(tmp_path, "first")
    rig = await start(tls_settings(tmp_path))
    reader, writer = await connect(rig.port)
    first = certificate(writer)
    assert (await request(reader, writer)).startswith(b"HTTP/1.1 200 ")
    write_certificate(tmp_path, "second")
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            _, other = await connect(rig.port)
            other.close()
            if certificate(other) != first:
                break
            await asyncio.sleep(0.05)
    assert (await request(reader, writer)).startswith(b"HTTP/1.1 200 ")
    writer.close()
    assert len(await rig.captured()) == 2


async def test_what_is_no_tls_is_cut_off_and_harms_nobody(start: StartRig, tmp_path: Path) -> None:
    write_certificate(tmp_path, "first")
    rig = await start(tls_settings(tmp_path))
    assert not (await rig.raw(REQUEST)).startswith(b"HTTP")
    reader, writer = await connect(rig.port)
    assert (await request(reader, writer)).startswith(b"HTTP/1.1 200 ")
    writer.close()
    assert len(await rig.captured()) == 1


def test_a_pair_that_does_not_fit_is_not_taken(tmp_path: Path) -> None:
    write_certificate(tmp_path, "first")
    tls = Certificate.of(tls_settings(tmp_path))
    assert tls is not None
    key = (tmp_path / "key.pem").read_bytes()
    write_certificate(tmp_path, "second")
    second = (tmp_path / "key.pem").read_bytes()
    (tmp_path / "key.pem").write_bytes(key)
    assert tls.read_if_changed() is False
    (tmp_path / "key.pem").write_bytes(second)
    os.utime(tmp_path / "key.pem", (1, 1))
    assert tls.read_if_changed() is True
    assert tls.read_if_changed() is False


@pytest.mark.parametrize(
    "settings",
    [
        IngressSettings(tls_cert_file="cert.pem"),
        IngressSettings(tls_key_file="key.pem"),
        IngressSettings(tls_cert_file="/nowhere/cert.pem", tls_key_file="/nowhere/key.pem"),
        IngressSettings(tls_cert_file=__file__, tls_key_file=__file__),
    ],
)
def test_a_certificate_that_cannot_be_used_is_told(settings: IngressSettings) -> None:
    with pytest.raises(ConfigError, match="tls_cert_file"):
        Certificate.of(settings)
