"""A certificate authority of a test's own, and a certificate by it for 127.0.0.1."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True, slots=True)
class Certificate:
    """PEM files. Clients that trust `authority` trust `certificate`, which belongs to `key`."""

    authority: Path
    certificate: Path
    key: Path

    @property
    def ingress_keys(self) -> str:
        """The lines of `[ingress]` that make it speak TLS."""
        return f'tls_cert_file = "{self.certificate}"\ntls_key_file = "{self.key}"\n'


def make_certificate(folder: Path) -> Certificate:
    """Make both in that folder, with openssl."""
    authority, authority_key = folder / "ca.pem", folder / "ca.key"
    certificate, key, asked = folder / "server.pem", folder / "server.key", folder / "server.csr"
    names = folder / "names.cnf"
    names.write_text("subjectAltName=IP:127.0.0.1\n", encoding="ascii")
    _openssl(
        "req", "-x509", *_KEY, "-subj", "/CN=Test authority", "-days", "2",
        "-addext", "keyUsage=critical,keyCertSign,cRLSign",
        "-keyout", str(authority_key), "-out", str(authority),
    )  # fmt: skip
    _openssl(
        "req", "-new", *_KEY, "-subj", "/CN=127.0.0.1", "-keyout", str(key), "-out", str(asked)
    )
    _openssl(
        "x509", "-req", "-in", str(asked), "-CA", str(authority), "-CAkey", str(authority_key),
        "-CAcreateserial", "-days", "2", "-extfile", str(names), "-out", str(certificate),
    )  # fmt: skip
    return Certificate(authority, certificate, key)


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
