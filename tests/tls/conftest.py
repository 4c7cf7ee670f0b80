"""A certificate authority of the tests' own."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass
class Certificates:
    """Paths of PEM files. `cert` and `key` are the server's, for localhost and 127.0.0.1; `client` holds certificate and
    key of a client. All are signed by `ca`."""

    folder: Path

    def __getattr__(self, name: str) -> str:
        return str(self.folder / f"{name}.pem")


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=60)


def sign(folder: Path, name: str, subject: str, number: int, extension: str = "") -> None:
    """NAME.pem and NAME_key.pem."""
    openssl(folder, "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{name}_key.pem")
    openssl(folder, "req", "-new", "-key", f"{name}_key.pem", "-subj", subject, "-out", f"{name}.csr")
    # RFC 5280 4.2.1.1, on which clients from CPython 3.13 on insist
    identifiers = "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
    (folder / "ext").write_text((extension or "basicConstraints=CA:FALSE\n") + identifiers)
    openssl(
        folder, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca_key.pem", "-days", "30",
        "-set_serial", str(number), "-extfile", "ext", "-out", f"{name}.pem",
    )  # fmt: skip


def server_certificate(folder: Path, name: str, number: int) -> None:
    """One for localhost and 127.0.0.1, with this serial number."""
    sign(folder, name, "/CN=localhost", number, "subjectAltName=DNS:localhost,IP:127.0.0.1\n")


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed, which makes the certificates")
    folder = tmp_path_factory.mktemp("tls")
    openssl(folder, "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "ca_key.pem")
    openssl(
        folder, "req", "-x509", "-new", "-key", "ca_key.pem", "-subj", "/CN=Test CA", "-days", "30", "-out", "ca.pem",
        "-addext", "keyUsage=critical,keyCertSign,cRLSign",
    )  # fmt: skip
    server_certificate(folder, "cert", 11)
    server_certificate(folder, "renewed", 12)
    (folder / "key.pem").write_bytes((folder / "cert_key.pem").read_bytes())
    openssl(folder, "ec", "-in", "key.pem", "-aes256", "-passout", "pass:secret", "-out", "locked.pem")
    sign(folder, "alice", "/C=DE/O=Example, Inc./CN=alice", 21)
    both = (folder / "alice.pem").read_bytes() + (folder / "alice_key.pem").read_bytes()
    (folder / "client.pem").write_bytes(both)
    (folder / "garbage.pem").write_text("nothing\n")
    return Certificates(folder)
