"""A broker that asks who comes (SASL, TLS, rights), and an issuer of tokens for it."""

import time
from base64 import b64encode, urlsafe_b64encode
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import orjson
from aiohttp import web

from schemas.settings import KafkaSettings
from tests.hq.certificates import Certificate, make_certificate
from tests.servers import KafkaServer, free_port, node

#: May do everything, by each mechanism.
ADMIN: Final = "admin"
PASSWORD: Final = "right-password"
_MODULES: Final = "org.apache.kafka.common.security"


@dataclass(frozen=True, slots=True)
class SecureBroker:
    """`server` lets the tests' own tools in without a word; `sasl` and `tls` are for clients.

    Who comes by TLS alone must show a certificate.
    """

    server: KafkaServer
    sasl: str
    tls: str
    certificate: Certificate

    def by_sasl(self, user: str = ADMIN, password: str = PASSWORD) -> KafkaSettings:
        return KafkaSettings(
            bootstrap_servers=self.sasl,
            security_protocol="SASL_SSL",
            sasl_username=user,
            sasl_password=password,
            ca_file=str(self.certificate.authority),
        )

    def by_token(self, issuer: "Issuer") -> KafkaSettings:
        return KafkaSettings(
            bootstrap_servers=self.sasl,
            security_protocol="SASL_SSL",
            sasl_mechanism="OAUTHBEARER",
            oauth_token_url=f"http://127.0.0.1:{issuer.port}/token",
            oauth_client_id=ADMIN,
            oauth_client_secret=PASSWORD,
            ca_file=str(self.certificate.authority),
        )

    def by_certificate(self) -> KafkaSettings:
        return KafkaSettings(
            bootstrap_servers=self.tls,
            security_protocol="SSL",
            ca_file=str(self.certificate.authority),
            cert_file=str(self.certificate.certificate),
            key_file=str(self.certificate.key),
        )


@contextmanager
def secure_broker(folder: Path, users: Sequence[str]) -> Iterator[SecureBroker]:
    """Run a broker that allows its users nothing, but `ADMIN` everything."""
    certificate = make_certificate(folder)
    both = folder / "both.pem"
    both.write_text(certificate.key.read_text() + certificate.certificate.read_text())
    sasl, tls = free_port(), free_port()
    plain = node(folder / "kafka", {})
    listeners = (
        f"PLAINTEXT://127.0.0.1:{plain.port},SASL_SSL://127.0.0.1:{sasl},SSL://127.0.0.1:{tls}"
    )
    mechanism = "listener.name.sasl_ssl"
    more = {
        "listeners": f"{listeners},CONTROLLER://127.0.0.1:{plain.controller_port}",
        "advertised.listeners": listeners,
        "listener.security.protocol.map": (
            "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,SSL:SSL"
        ),
        "inter.broker.listener.name": "PLAINTEXT",
        "sasl.enabled.mechanisms": "SCRAM-SHA-512,PLAIN,OAUTHBEARER",
        f"{mechanism}.scram-sha-512.sasl.jaas.config": (
            f"{_MODULES}.scram.ScramLoginModule required;"
        ),
        f"{mechanism}.plain.sasl.jaas.config": (
            f'{_MODULES}.plain.PlainLoginModule required user_{ADMIN}="{PASSWORD}";'
        ),
        f"{mechanism}.oauthbearer.sasl.jaas.config": (
            f"{_MODULES}.oauthbearer.OAuthBearerLoginModule required "
            'unsecuredLoginStringClaim_sub="nobody";'
        ),
        # A connection ends with the token that it was opened with.
        f"{mechanism}.oauthbearer.connections.max.reauth.ms": "3600000",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(both),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(certificate.authority),
        "listener.name.ssl.ssl.client.auth": "required",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": f"User:ANONYMOUS;User:{ADMIN};User:CN=127.0.0.1",
    }
    scram = dict.fromkeys([ADMIN, *users], PASSWORD)
    server = KafkaServer(replace(plain, more=more, scram=scram))
    server.start()
    try:
        yield SecureBroker(server, f"127.0.0.1:{sasl}", f"127.0.0.1:{tls}", certificate)
    finally:
        server.kill()


@dataclass(slots=True)
class Issuer:
    """OAuth 2's token end point, whose tokens (unsigned, RFC 7519 §6) live for `seconds`."""

    port: int = field(default_factory=free_port)
    seconds: float = 3600
    issued: int = 0

    async def answer(self, request: web.Request) -> web.Response:
        login = b64encode(f"{ADMIN}:{PASSWORD}".encode()).decode()
        form = await request.post()
        if request.headers.get("Authorization") != f"Basic {login}":
            return web.json_response({"error": "invalid_client"}, status=401)
        assert form["grant_type"] == "client_credentials"
        self.issued += 1
        now = time.time()
        claims = {"sub": ADMIN, "iat": now, "exp": now + self.seconds, "scope": form.get("scope")}
        return web.json_response(
            {"access_token": unsigned(claims), "token_type": "Bearer", "expires_in": self.seconds}
        )


def unsigned(claims: object) -> str:
    parts = [orjson.dumps(part) for part in ({"alg": "none"}, claims)]
    return ".".join([*(urlsafe_b64encode(part).decode().rstrip("=") for part in parts), ""])


@asynccontextmanager
async def issuing(issuer: Issuer) -> AsyncIterator[Issuer]:
    app = web.Application()
    app.router.add_post("/token", issuer.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", issuer.port).start()
    try:
        yield issuer
    finally:
        await runner.cleanup()
