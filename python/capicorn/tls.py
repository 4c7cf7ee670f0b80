"""The ssl.SSLContext that a configuration asks for. CPython's ssl module does the cryptography."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

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


def make_info(config: Config) -> Callable[[ssl.SSLObject], dict[str, Any]]:
    """What the ASGI tls extension says of a connection, as a function of its ssl.SSLObject: `server_cert` (PEM),
    `client_cert_chain` (list of PEM), `client_cert_name` (RFC 4514), `client_cert_error`, `tls_version` (0x0304 for
    TLS 1.3), `cipher_suite` (None: the ssl module does not tell its number)."""
    try:
        with open(config.ssl_certfile or "", encoding="ascii") as file:
            text = file.read()
    except (OSError, ValueError):
        text = ""
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    server = text[text.index(begin) : text.index(end) + len(end)] + "\n" if begin in text and end in text else None
    versions = {"TLSv1": 0x0301, "TLSv1.1": 0x0302, "TLSv1.2": 0x0303, "TLSv1.3": 0x0304}

    def info(connection: ssl.SSLObject) -> dict[str, Any]:
        der = connection.getpeercert(binary_form=True)
        return {
            "server_cert": server,
            "client_cert_chain": [ssl.DER_cert_to_PEM_cert(der)] if der else [],
            "client_cert_name": _name(connection.getpeercert() or {}) if der else None,
            "client_cert_error": None,
            "tls_version": versions.get(connection.version() or ""),
            "cipher_suite": None,
        }

    return info
