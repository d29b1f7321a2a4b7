"""Certificates for tests: an authority of our own, and what it vouches for, as PEM files.

    authority = certs.Authority(folder)
    own = authority.issue("localhost")        # own.certificate, own.key: paths; for DCMTK and for us
    certs.self_signed(folder, bits=1024)      # of no authority, and too weak
"""

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import trustme

from tests import peers


class Pem(NamedTuple):
    """A certificate and its key, each a PEM file."""

    certificate: Path
    key: Path


class Authority:
    """Issues certificates below `folder`; `path` is its own, to be trusted."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._authority = trustme.CA()
        self._issued = 0
        self.path = folder / "authority.pem"
        self._authority.cert_pem.write_to_path(str(self.path))

    def issue(self, *names: str, expired: bool = False, rsa: bool = False) -> Pem:
        """A certificate for host names and addresses."""
        self._issued += 1
        yesterday = datetime.now(UTC) - timedelta(days=1)
        issued = self._authority.issue_cert(
            *names,
            not_before=yesterday - timedelta(days=30) if expired else None,
            not_after=yesterday if expired else None,
            key_type=trustme.KeyType.RSA if rsa else trustme.KeyType.ECDSA,
        )
        made = Pem(self._folder / f"{self._issued}.crt", self._folder / f"{self._issued}.key")
        made.certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        made.key.write_bytes(issued.private_key_pem.bytes())
        return made


def encrypted(pem: Pem, password: str) -> Pem:
    """The same, with its key under a password."""
    key = pem.key.with_suffix(".locked")
    _openssl("pkcs8", "-topk8", "-in", str(pem.key), "-out", str(key), "-passout", f"pass:{password}")
    return Pem(pem.certificate, key)


def self_signed(folder: Path, *, bits: int = 2048) -> Pem:
    """A self-signed certificate with an RSA key."""
    made = Pem(folder / "alone.crt", folder / "alone.key")
    _openssl("req", "-x509", "-newkey", f"rsa:{bits}", "-nodes", "-subj", "/CN=localhost", "-days", "2",
             "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
             "-keyout", str(made.key), "-out", str(made.certificate))  # fmt: skip
    return made


def _openssl(*arguments: str) -> None:
    subprocess.run([peers.find_program("openssl"), *arguments], check=True, capture_output=True)
