"""TLS on the data plane: texts are the same, and only holders of the authority's certificates get in."""

from __future__ import annotations

import gc
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import remote
import trustme
import uvloop
from cryptography.hazmat.primitives import serialization

from common.settings import SettingsError
from serve.errors import ReplicaLost
from serve.stream.streams import StreamPool
from serve.stream.tls import TlsSettings, client_context, server_context


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def issue(authority: trustme.CA, tmp_path: Path) -> Callable[[str], TlsSettings]:
    """Certificate files of a new peer, whose name is no address."""
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")

    def issue(name: str, by: trustme.CA = authority) -> TlsSettings:
        leaf = by.issue_cert(f"{name}.invalid")
        certificate, key = tmp_path / f"{name}.pem", tmp_path / f"{name}.key"
        leaf.private_key_pem.write_to_path(key)
        certificate.write_bytes(b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
        return TlsSettings(certificate=str(certificate), key=str(key), authority=str(tmp_path / "ca.pem"))

    return issue


async def _equal_over_tls(issue: Callable[[str], TlsSettings]) -> None:
    async with remote.replica(tls=server_context(issue("replica"))) as verifier:
        pool = StreamPool(tls=client_context(issue("router")))
        text = await remote.write(verifier, pool)
        (stream,) = pool._channels
        assert stream._transport is not None
        assert stream._transport.get_extra_info("cipher")[1] == "TLSv1.3"
        pool.close()
    assert text == remote.expected()


async def test_a_text_over_tls_equals_the_reference(issue: Callable[[str], TlsSettings]) -> None:
    await _equal_over_tls(issue)


def test_a_text_over_tls_equals_the_reference_on_uvloop(issue: Callable[[str], TlsSettings]) -> None:
    """Ray Serve runs replicas on uvloop, which has a TLS of its own."""
    uvloop.run(_equal_over_tls(issue))


def _no_certificate(issue: Callable[..., TlsSettings]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(issue("router").authority)
    return context


def _another_authority(issue: Callable[..., TlsSettings]) -> ssl.SSLContext:
    return client_context(issue("stranger", by=trustme.CA()))


def _older_version(issue: Callable[..., TlsSettings]) -> ssl.SSLContext:
    context = client_context(issue("router"))
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


def _plaintext(issue: Callable[..., TlsSettings]) -> None:
    return None


@pytest.mark.parametrize("stranger", [_no_certificate, _another_authority, _older_version, _plaintext])
async def test_a_stranger_is_refused_and_the_replica_serves_on(
    stranger: Callable[..., ssl.SSLContext | None], issue: Callable[[str], TlsSettings]
) -> None:
    async with remote.replica(tls=server_context(issue("replica"))) as verifier:
        for _ in range(3):
            pool = StreamPool(tls=stranger(issue))
            with pytest.raises(ReplicaLost):
                await remote.write(verifier, pool)
        friend = StreamPool(tls=client_context(issue("friend")))
        assert await remote.write(verifier, friend) == remote.expected()
        assert verifier.num_leases == 0
        gc.collect()
        assert len(verifier._connections) == 1  # refused ones are not kept
        friend.close()


async def test_a_replica_of_another_authority_or_without_tls_is_not_trusted(
    issue: Callable[..., TlsSettings],
) -> None:
    for context in (server_context(issue("fake", by=trustme.CA())), None):
        async with remote.replica(tls=context) as impostor:
            pool = StreamPool(tls=client_context(issue("router")))
            with pytest.raises(ReplicaLost):
                await remote.write(impostor, pool)
            pool.close()


@pytest.mark.parametrize("field", ["certificate", "key", "authority"])
@pytest.mark.parametrize("content", [None, "", "nonsense"])
def test_a_file_that_cannot_be_used_is_named(
    field: str, content: str | None, issue: Callable[[str], TlsSettings]
) -> None:
    settings = issue("replica")
    path = Path(getattr(settings, field))
    path.unlink()
    if content is not None:
        path.write_text(content)
    for make in (server_context, client_context):
        with pytest.raises(SettingsError, match=rf"tls\.{field}.*{path.name}"):
            make(settings)


def test_an_encrypted_key_is_refused_without_asking_for_a_password(issue: Callable[[str], TlsSettings]) -> None:
    settings = issue("replica")
    path = Path(settings.key)
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    encryption = serialization.BestAvailableEncryption(b"password")
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))
    with pytest.raises(SettingsError, match=r"tls\.key"):
        server_context(settings)
