"""A broker that asks who comes (SASL, TLS, rights), and an issuer of tokens for it."""

import time
from base64 import b64encode, urlsafe_b64encode
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import anyio
import orjson
from aiohttp import web
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import CreateAclsRequest, DescribeAclsRequest

from kafka_clients.rights import Right
from schemas.settings import KafkaSettings
from tests.hq.certificates import Certificate, make_certificate
from tests.servers import LocalKafka, Node, free_port, node

#: May do everything, by each mechanism.
ADMIN: Final = "admin"
PASSWORD: Final = "right-password"
#: Operations as Kafka's protocol counts them.
CODES: Final = {
    "Read": 3, "Write": 4, "Create": 5, "Describe": 8, "DescribeConfigs": 10, "AlterConfigs": 11,
}  # fmt: skip
_MODULES: Final = "org.apache.kafka.common.security"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditedNode(Node):
    """A broker that logs what it does not allow."""

    def _java(self, java: str, heap_mb: int) -> list[str]:
        logged = "-Dorg.slf4j.simpleLogger.log.kafka.authorizer.logger=info"
        return [*Node._java(self, java, heap_mb), logged]


@dataclass(frozen=True, slots=True)
class SecureBroker:
    """`server` lets the tests' own tools in without a word; `sasl` and `tls` are for clients.

    Who comes by TLS alone must show a certificate.
    """

    server: LocalKafka
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

    async def give(self, user: str, rights: Sequence[Right]) -> None:
        """Give a user rights."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.server.bootstrap_servers)
        await admin.start()
        try:
            for right in rights:
                name = right.name.removesuffix("*")
                kind, pattern = {"topic": 2, "group": 3}[right.resource], 3 + (name != right.name)
                acl = (kind, name, pattern, f"User:{user}", "*", CODES[right.operation], 3)
                answer = await admin._send_request(CreateAclsRequest(*acl))
                assert [code for code, _ in answer.creation_responses] == [0]
                # The authorizer hears of it a little later.
                while not (await admin._send_request(DescribeAclsRequest(*acl))).resources:  # noqa: ASYNC110
                    await anyio.sleep(0.01)
        finally:
            await admin.close()

    def refusals(self, prefix: str) -> Sequence[str]:
        """Return what was not allowed on topics and groups of a prefix."""
        lines = self.server.broker.log_file.read_text().splitlines()
        return [line for line in lines if "is Denied" in line and prefix.rstrip(".") in line]

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
    server = LocalKafka(
        AuditedNode(
            data_dir=plain.data_dir,
            host=plain.host,
            port=plain.port,
            heap_mb=plain.heap_mb,
            controller_port=plain.controller_port,
            cluster=plain.cluster,
            more=more,
            scram=scram,
        )
    )
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
