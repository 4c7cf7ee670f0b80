"""The ssl.SSLContext that a configuration asks for. CPython's ssl module does the cryptography."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

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
