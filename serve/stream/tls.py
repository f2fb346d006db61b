"""TLS on the data plane, mutual: router and replica each prove that the cluster's authority knows them.

Peers call each other by address, which changes with every replica, so no host names are checked: whoever holds a
certificate of the configured authority is trusted. Use an authority of the cluster's own, and certificates that are
good for both ends (extended key usage: server and client authentication, or none).
"""

from __future__ import annotations

import ssl
from pathlib import Path

from common.settings import Settings, SettingsError


class TlsSettings(Settings, frozen=True, kw_only=True):
    """PEM files on every machine that runs a router or a replica; read when one starts."""

    certificate: str
    """Of this end, with the intermediate ones that lead to the authority."""
    key: str
    """The certificate's private key, not encrypted."""
    authority: str
    """Certificates of the authorities that are trusted."""


def server_context(settings: TlsSettings) -> ssl.SSLContext:
    """A replica's end. Raises SettingsError naming the file that cannot be used."""
    return _context(ssl.PROTOCOL_TLS_SERVER, settings)


def client_context(settings: TlsSettings) -> ssl.SSLContext:
    """A router's end. Raises SettingsError naming the file that cannot be used."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, settings)


def _context(protocol: int, settings: TlsSettings) -> ssl.SSLContext:
    for field in settings.__struct_fields__:
        path = getattr(settings, field)
        if not Path(path).is_file():
            raise SettingsError(f"tls.{field}: no such file: {path}")
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        # Without a password OpenSSL would ask for one at the terminal.
        context.load_cert_chain(settings.certificate, settings.key, password="")
    except ssl.SSLError as error:
        raise SettingsError(f"tls.certificate {settings.certificate}, tls.key {settings.key}: {error}") from None
    try:
        context.load_verify_locations(settings.authority)
    except ssl.SSLError as error:
        raise SettingsError(f"tls.authority {settings.authority}: {error}") from None
    return context
