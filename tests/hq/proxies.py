"""The proxies of docs/deploy as processes; only ports, certificate and folders are changed."""

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.hq.certificates import Certificate
from tests.servers import free_port

EXAMPLES = Path(__file__).parents[2] / "docs" / "deploy"
START_SECONDS = 20

#: What nginx.conf of a distribution says around a site; here as one process of this user.
_NGINX = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {site}
}}
"""


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy before the ingress at `upstream`, on a port for https and one for http."""

    folder: Path
    certificate: Certificate
    upstream: int
    port: int = field(default_factory=free_port)
    plain_port: int = field(default_factory=free_port)

    @property
    def origin(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def plain_origin(self) -> str:
        return f"http://127.0.0.1:{self.plain_port}"


def nginx(proxy: Proxy) -> Sequence[str]:
    """Write the configuration; return the command."""
    site = changed(
        "nginx.conf",
        {
            "server 127.0.0.1:8080": f"server 127.0.0.1:{proxy.upstream}",
            "listen 443 ssl": f"listen 127.0.0.1:{proxy.port} ssl",
            "listen 80 ": f"listen 127.0.0.1:{proxy.plain_port} ",
            "/etc/ssl/casewire/fullchain.pem": str(proxy.certificate.certificate),
            "/etc/ssl/casewire/key.pem": str(proxy.certificate.key),
        },
    )
    config = proxy.folder / "nginx.conf"
    config.write_text(_NGINX.format(folder=proxy.folder, site=site), encoding="utf-8")
    return ["nginx", "-e", "stderr", "-c", str(config)]


def caddy(proxy: Proxy) -> Sequence[str]:
    """Write the configuration; return the command."""
    certificate, key = proxy.certificate.certificate, proxy.certificate.key
    text = changed(
        "Caddyfile",
        {
            "\n{\n": "\n{\n\tadmin off\n",
            "\ncasewire.example.org {": f"\n{proxy.origin} {{\n\ttls {certificate} {key}",
            "http://casewire.example.org": proxy.plain_origin,
            "127.0.0.1:8080": f"127.0.0.1:{proxy.upstream}",
        },
    )
    config = proxy.folder / "Caddyfile"
    config.write_text(text, encoding="utf-8")
    return ["caddy", "run", "--config", str(config), "--adapter", "caddyfile"]


PROXIES: Mapping[str, Callable[[Proxy], Sequence[str]]] = {"nginx": nginx, "caddy": caddy}


def changed(example: str, changes: Mapping[str, str]) -> str:
    """Return an example with each of these texts, which must occur once, replaced."""
    text = (EXAMPLES / example).read_text(encoding="utf-8")
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def running_proxy(name: str, proxy: Proxy) -> contextlib.AbstractContextManager[Proxy]:
    """Run one of PROXIES until the end of the block."""
    return running(PROXIES[name], proxy)


@contextlib.contextmanager
def running(make: Callable[[Proxy], Sequence[str]], proxy: Proxy) -> Iterator[Proxy]:
    """Run a proxy until the end of the block."""
    proxy.folder.mkdir(parents=True)
    command = make(proxy)
    log = proxy.folder / "log"
    home = str(proxy.folder)
    env = {**os.environ, "XDG_DATA_HOME": home, "XDG_CONFIG_HOME": home}
    env["PATH"] += ":/usr/sbin"
    with log.open("wb") as file:
        process = subprocess.Popen(command, env=env, stdout=file, stderr=file)
    try:
        for port in (proxy.port, proxy.plain_port):
            _wait_until_it_listens(port, process, log)
        yield proxy
    finally:
        process.terminate()
        process.wait(20)


def _wait_until_it_listens(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
