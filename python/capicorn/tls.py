"""The ssl.SSLContext that a configuration asks for. CPython's ssl module does the cryptography."""

from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from capicorn.config import Config


class TLSConfigError(Exception):
    """A certificate, key or other TLS setting that cannot be used; the message names the setting and the reason."""


def _default_context(config: Config) -> ssl.SSLContext:
    certfile = config.ssl_certfile
    if not certfile:
        raise TLSConfigError("TLS needs a certificate: --ssl-certfile is missing")
    password = config.ssl_keyfile_password
    context = ssl.SSLContext(config.ssl_version)
    try:
        # an empty password would make OpenSSL ask on the terminal
        context.load_cert_chain(certfile, config.ssl_keyfile or None, password if password is not None else lambda: "")
    except ssl.SSLError as exc:
        hint = "" if password else "; a key with a password needs --ssl-keyfile-password"
        raise TLSConfigError(f"cannot use --ssl-certfile {certfile!s} with its key: {exc}{hint}") from exc
    except OSError as exc:
        files = " and ".join(str(f) for f in (certfile, config.ssl_keyfile) if f)
        raise TLSConfigError(f"cannot read {files}: {exc.strerror or exc}") from exc
    context.verify_mode = ssl.VerifyMode(config.ssl_cert_reqs)
    if config.ssl_ca_certs:
        try:
            context.load_verify_locations(config.ssl_ca_certs)
        except (ssl.SSLError, OSError) as exc:
            raise TLSConfigError(f"cannot use --ssl-ca-certs {config.ssl_ca_certs!s}: {exc}") from exc
    if config.ssl_ciphers:
        try:
            context.set_ciphers(config.ssl_ciphers)
        except ssl.SSLError as exc:
            raise TLSConfigError(f"cannot use --ssl-ciphers {config.ssl_ciphers!r}: {exc}") from exc
    context.set_alpn_protocols(["http/1.1"])
    if config.ssl_version == ssl.PROTOCOL_TLS_SERVER:
        # OpenSSL makes two with each handshake; who resumes uses one and gets another
        context.num_tickets = 1
    return context


def make_context(config: Config) -> ssl.SSLContext | None:
    """The context of `config`, new with each call, so that renewed certificates are read; None without TLS. Raises
    TLSConfigError, or what `ssl_context_factory` raises."""
    if not config.is_ssl:
        return None
    if config.ssl_context_factory is None:
        return _default_context(config)
    context = config.ssl_context_factory(config, lambda: _default_context(config))
    if not isinstance(context, ssl.SSLContext):
        raise TypeError(f"`ssl_context_factory` must return an `ssl.SSLContext`, got {type(context).__name__}")
    return context


def _name(certificate: dict[str, Any]) -> str | None:
    """RFC 4514: the subject, last part first."""
    keys = {"commonName": "CN", "countryName": "C", "localityName": "L", "stateOrProvinceName": "ST",
            "organizationName": "O", "organizationalUnitName": "OU"}  # fmt: skip
    parts = [(keys.get(k, k), v) for rdn in certificate.get("subject", ()) for k, v in rdn]
    escaped = [f"{k}={''.join(chr(92) + c if c in ',+<>;=' + chr(34) + chr(92) else c for c in v)}" for k, v in parts]
    return ",".join(reversed(escaped)) or None


_VERSIONS = {"TLSv1": 0x0301, "TLSv1.1": 0x0302, "TLSv1.2": 0x0303, "TLSv1.3": 0x0304}
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


class TLSInfo:
    """What the ASGI tls extension says of a connection; called with its ssl.SSLObject: `server_cert` (PEM; None when
    the context is the user's own), `client_cert_chain` (list of PEM, the client's own first), `client_cert_name` (RFC
    4514), `client_cert_error` (always None: a certificate that is not good ends the handshake), `tls_version` (0x0304
    for TLS 1.3), `cipher_suite` (IANA's number)."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._certificates: WeakKeyDictionary[ssl.SSLContext, str | None] = WeakKeyDictionary()
        self._suites: WeakKeyDictionary[ssl.SSLContext, dict[str, int]] = WeakKeyDictionary()

    def add(self, context: ssl.SSLContext) -> None:
        """A context that was made now, from the certificate that is in the file now."""
        self._certificates[context] = _first_certificate(self._config.ssl_certfile)

    def __call__(self, connection: ssl.SSLObject) -> dict[str, Any]:
        der = connection.getpeercert(binary_form=True)
        return {
            "server_cert": self._certificates.get(connection.context),
            "client_cert_chain": _chain(connection, der) if der else [],
            "client_cert_name": _name(connection.getpeercert() or {}) if der else None,
            "client_cert_error": None,
            "tls_version": _VERSIONS.get(connection.version() or ""),
            "cipher_suite": self._suite(connection),
        }

    def _suite(self, connection: ssl.SSLObject) -> int | None:
        cipher, context = connection.cipher(), connection.context
        if cipher is None:
            return None
        suites = self._suites.get(context)
        if suites is None or cipher[0] not in suites:  # the ciphers of a user's context may change
            # OpenSSL's numbers: above IANA's 16 bits stands the protocol
            suites = {known["name"]: known["id"] & 0xFFFF for known in context.get_ciphers()}
            self._suites[context] = suites
        return suites.get(cipher[0])


def _chain(connection: ssl.SSLObject, own: bytes) -> list[str]:
    """PEM of what the client sent. Before CPython 3.13 only the object inside knows more than the first."""
    found: list[bytes] = []
    if hasattr(connection, "get_unverified_chain"):
        found = connection.get_unverified_chain()
    elif (inner := getattr(connection, "_sslobj", None)) is not None and hasattr(inner, "get_unverified_chain"):
        found = [certificate.public_bytes(2) for certificate in inner.get_unverified_chain() or ()]  # 2: as DER
    return [ssl.DER_cert_to_PEM_cert(der) for der in found or [own]]


def _first_certificate(path: str | os.PathLike[str] | None) -> str | None:
    """The server's own, as text; None when there is no such file or it is not to be found in it."""
    try:
        with open(path or "", encoding="latin-1") as file:
            text = file.read()
    except OSError:
        return None
    begin = text.find(_BEGIN)
    end = text.find(_END, begin)
    return text[begin : end + len(_END)] + "\n" if 0 <= begin < end else None
