"""Where the exchange listens, and how it ends."""

import os
import signal
import socket
import ssl
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest

from tieline.api.serve import address_of, bound, is_loopback
from tieline.model.error import TielineError

HERE = Path(__file__).parent


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.8.8"])
def test_loopback_is_nobody_elses(host):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])
def test_an_address_beyond_this_machine_needs_tls_or_an_explicit_word(host):
    with pytest.raises(TielineError, match="unprotected") as refused:
        bound(host, 0)
    assert refused.value.code == "invalid_request"
    assert any("--tls-cert" in hint for hint in refused.value.hints)


def test_with_an_explicit_word_it_binds_anywhere():
    for allowed in ({"has_tls": True}, {"is_plain_allowed": True}):
        listener = bound("0.0.0.0", 0, **allowed)
        try:
            assert address_of(listener, has_tls=allowed.get("has_tls", False)).startswith(
                "https://0.0.0.0:" if "has_tls" in allowed else "http://0.0.0.0:"
            )
        finally:
            listener.close()


def test_a_taken_port_is_a_conflict_with_a_way_out():
    listener = bound("127.0.0.1", 0)
    try:
        with pytest.raises(TielineError) as refused:
            bound("127.0.0.1", listener.getsockname()[1])
        assert refused.value.code == "conflict"
        assert refused.value.hints == ("tieline up --port 0",)
    finally:
        listener.close()


def test_sigterm_ends_a_process_with_open_streams_cleanly_and_without_a_word_on_stdout(tmp_path):
    process = subprocess.Popen(
        [sys.executable, str(HERE / "api_process.py"), str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    try:
        url = process.stderr.readline().strip()
        headers = {"Authorization": "Bearer tl-admin-secret"}
        with httpx.stream("GET", f"{url}/v1/events/stream", headers=headers, timeout=20) as answer:
            assert answer.status_code == 200
            process.send_signal(signal.SIGTERM)
            assert b"exchange_created" in answer.read()  # it ends by itself, after what was there
        out, err = process.communicate(timeout=10)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0, err
    assert out == ""
    assert f"signals ({int(signal.SIGTERM)},)" in err


def test_a_connection_that_says_nothing_is_closed(fresh, monkeypatch):
    monkeypatch.setattr("tieline.api.serve.HEAD_S", 0.2)
    world = fresh()
    host, port = world.listener.getsockname()[:2]
    with socket.create_connection((host, port), timeout=10) as silent:
        assert silent.recv(10) == b""
    with socket.create_connection((host, port), timeout=10) as slow:
        slow.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
        assert slow.recv(10) == b""
    with httpx.Client(base_url=world.url, timeout=10) as client:
        assert client.get("/healthz").status_code == 200


def test_tls_is_served_with_the_given_certificate(tmp_path):
    certificate, key = self_signed(tmp_path)
    process = subprocess.Popen(
        [sys.executable, str(HERE / "api_process.py"), str(tmp_path), str(certificate), str(key)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    try:
        url = process.stderr.readline().strip()
        assert url.startswith("https://")
        trusting = ssl.create_default_context(cafile=str(certificate))
        with httpx.Client(base_url=url, verify=trusting, timeout=20) as client:
            assert client.get("/v1/exchange").status_code == 200
        with pytest.raises(httpx.ConnectError), httpx.Client(base_url=url, timeout=20) as client:
            client.get("/v1/exchange")
    finally:
        process.terminate()
        process.communicate(timeout=10)


def self_signed(folder):
    """A certificate for 127.0.0.1 that vouches for itself, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "exchange")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "cert.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths
