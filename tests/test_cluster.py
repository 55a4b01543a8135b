"""The link of a cluster: a pure function whose answer never changes silently, and that ipyparallel takes."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import subprocess
import sys
from pathlib import Path

import ipyparallel
import pytest
import zmq
import zmq.utils.z85
from hypothesis import given
from hypothesis import strategies as st

from ipython_builder import cluster, ports
from ipython_builder.cluster import Link
from ipython_builder.errors import UsageError

KEY = bytes(range(32))
LINK = Link("x7k2q", KEY, host="ipcontroller-x7k2q", bind="0.0.0.0", curve=True)


def test_golden_vector() -> None:
    """An image of last year and a controller of today must find each other."""
    public = "e^rs%i:{rIC5Z*I5v&tc0RPrcohb-2J9:)?I/(=P"
    common = {
        "ssh": "",
        "interface": "tcp://ipcontroller-x7k2q",
        "location": "ipcontroller-x7k2q",
        "key": "77eaa3007bbbe316505e8eaa44074e403c7fc180e97904d589c5d68317842970",
        "curve_serverkey": public,
        "pack": "json",
        "unpack": "json",
        "signature_scheme": "hmac-sha256",
    }
    assert cluster.engine_info(LINK) == common | {
        "registration": 10000, "control": 10001, "mux": 10002, "task": 10003, "iopub": 10004,
        "hb_ping": 10005, "hb_pong": 10006, "broadcast": [10007, 10008],
    }  # fmt: skip
    assert cluster.client_info(LINK) == common | {
        "registration": 10000, "control": 10009, "mux": 10010, "task": 10011, "iopub": 10012,
        "notification": 10013, "broadcast": 10014, "task_scheme": "leastload",
    }  # fmt: skip
    assert cluster.curve_keys(LINK) == (public, "4Hl9W>$5ESsb+{Lr4UgmgEA%[Nf84WSBgXL5/G{#")


def test_the_key_is_derived_as_rfc_5869_says() -> None:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    peer = HKDF(hashes.SHA256(), 32, salt=None, info=b"ipython-cluster session:x7k2q").derive(KEY)
    assert cluster.session_key(LINK) == peer.hex()


def test_files_are_json_and_only_the_controllers_has_the_secret_key() -> None:
    files = {name: json.loads(text) for name, text in cluster.connection_files(LINK).items()}
    secret = cluster.curve_keys(LINK)[1]
    assert files["controller.json"]["curve_secretkey"] == secret
    assert files["controller.json"]["engine"]["interface"] == "tcp://0.0.0.0"
    assert files["ipcontroller-engine.json"] == cluster.engine_info(LINK)
    assert files["ipcontroller-client.json"] == cluster.client_info(LINK)
    for name in ("ipcontroller-engine.json", "ipcontroller-client.json"):
        assert secret not in json.dumps(files[name])
    assert KEY.hex() not in json.dumps(files)


def test_without_curve_there_is_no_curve_key() -> None:
    plain = Link("x7k2q", KEY)
    assert cluster.engine_info(plain)["curve_serverkey"] is None
    assert cluster.controller_info(plain)["curve_secretkey"] is None


labels = st.from_regex(cluster.LABEL, fullmatch=True)
keys = st.binary(min_size=32, max_size=32)
links = st.builds(
    Link,
    label=labels,
    key=keys,
    host=st.sampled_from(["127.0.0.1", "ipcontroller-a", "::1"]),
    first_port=st.integers(1024, 29985),
    curve=st.booleans(),
)


@given(links)
def test_every_link_has_fifteen_ports_of_its_block(link: Link) -> None:
    engine, client = cluster.engine_info(link), cluster.client_info(link)
    used = [engine[name] for name in cluster.ENGINE_CHANNELS if name != "broadcast"] + engine["broadcast"]
    used += [client[name] for name in cluster.CLIENT_CHANNELS]
    assert sorted(used) == list(link.ports)
    assert len(link.ports) == cluster.PORT_COUNT == 15
    assert client["registration"] == engine["registration"] == link.first_port
    shared = ("key", "pack", "unpack", "signature_scheme", "curve_serverkey", "registration", "interface")
    assert {name: engine[name] for name in shared} == {name: client[name] for name in shared}


@given(links)
def test_the_same_link_gives_the_same_files_and_shows_no_key(link: Link) -> None:
    again = Link(link.label, bytes(link.key), link.host, link.first_port, link.bind, link.curve)
    assert cluster.connection_files(link) == cluster.connection_files(again)
    assert link.key.hex() not in repr(link)
    assert repr(link.key) not in repr(link)


@given(labels, labels, keys, keys)
def test_another_label_or_key_is_another_cluster(one: str, other: str, key: bytes, second: bytes) -> None:
    if one != other:
        assert cluster.session_key(Link(one, key)) != cluster.session_key(Link(other, key))
        assert cluster.curve_keys(Link(one, key)) != cluster.curve_keys(Link(other, key))
    if key != second:
        assert cluster.session_key(Link(one, key)) != cluster.session_key(Link(one, second))


@given(st.binary(max_size=64).map(lambda data: data[: len(data) // 4 * 4]))
def test_z85_is_zmqs(data: bytes) -> None:
    assert cluster.z85(data) == zmq.utils.z85.encode(data).decode()


@given(keys)
def test_the_public_key_is_the_one_zmq_derives(key: bytes) -> None:
    public, secret = cluster.curve_keys(Link("a", key))
    assert zmq.curve_public(secret.encode()).decode() == public


# -- keys ----------------------------------------------------------------------------------------


@given(keys)
def test_hex_digits_are_the_key_itself(key: bytes) -> None:
    assert cluster.read_key(key.hex().encode() + b"\n") == key
    assert cluster.read_key(key.hex().upper().encode()) == key


def test_any_other_secret_of_32_bytes_is_hashed_to_a_key() -> None:
    pem = b"-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIA\n-----END PRIVATE KEY-----\n"
    first = hmac.new(b"\0" * 32, pem.strip(), hashlib.sha256).digest()
    expected = hmac.new(first, b"ipython-cluster cluster-key\x01", hashlib.sha256).digest()
    assert cluster.read_key(pem) == expected
    golden = "ecc845f0b0196c79562d6ffdb9ef05675001305c7b37c4fe5bebd2f90abb9b4f"
    assert cluster.read_key(b"a" * 40).hex() == golden
    assert cluster.read_key(b"z" * 64) != b"z" * 64


@pytest.mark.parametrize("content", [b"", b"\n", b"hunter2", b"a" * 31, b" " * 40, b"ab" * 15 + b"\n\n\n"])
def test_a_short_key_is_no_key(content: bytes) -> None:
    with pytest.raises(UsageError) as caught:
        cluster.read_key(content)
    assert "32" in caught.value.message
    assert "token_hex(32)" in (caught.value.hint or "")
    assert b"hunter2".decode() not in caught.value.message


def test_a_new_key_is_read_as_it_is_and_never_twice() -> None:
    made = {cluster.new_key() for _ in range(50)}
    assert len(made) == 50
    assert all(cluster.read_key(key.encode()) == bytes.fromhex(key) for key in made)


# -- labels --------------------------------------------------------------------------------------

GOOD = ["a", "0", "x7k2q", "my-thesis", "a--b", "1-2-3", "a" * 40]
BAD = [
    *("", "-", "a-", "-a", "A", "x7K2q", "a" * 41, "a" * 64, "a_b", "a.b", "a/b", "..", "../a", "a b", "a\n"),
    *("\na", "ä", "а", "a\0", "٣", "--all", "a;b", "$(id)"),
]


@pytest.mark.parametrize("label", GOOD)
def test_labels_that_can_stand_in_a_host_name(label: str) -> None:
    assert cluster.check_label(label) == label


@pytest.mark.parametrize("label", BAD)
def test_labels_that_cannot(label: str) -> None:
    with pytest.raises(UsageError) as caught:
        cluster.check_label(label, "user label")
    assert caught.value.exit_code == 2
    assert "user label" in caught.value.message
    assert caught.value.hint == f"use {cluster.LABEL_RULE}"


def test_random_labels_are_labels_and_differ() -> None:
    made = [cluster.random_label() for _ in range(200)]
    assert all(len(cluster.check_label(label)) == 5 and label[0].isalpha() for label in made)
    assert len(set(made)) > 190


# -- with the real thing -------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("curve", [False, True], ids=["plain", "curve"])
def test_controller_engine_and_client_meet_by_derived_files_alone(tmp_path: Path, curve: bool) -> None:
    """No process tells another one anything: each has files that were written before it started."""
    first = ports.block([])
    link = Link("meet", KEY, first_port=first, curve=curve)
    security = tmp_path / "profile_default" / "security"
    security.mkdir(parents=True)
    for name, text in cluster.connection_files(link).items():
        (security / name).write_text(text)
    (tmp_path / "other").mkdir()
    stranger = tmp_path / "other" / "client.json"
    stranger.write_text(cluster.connection_files(Link("meet", b"?" * 32, first_port=first, curve=curve))[
        "ipcontroller-client.json"])  # fmt: skip
    environ = os.environ | {"IPYTHONDIR": str(tmp_path), "IPYTHON_NOTEBOOK_DIR": str(tmp_path)}
    log = (tmp_path / "controller.log").open("w+")
    started = [
        subprocess.Popen(
            [sys.executable, "-P", "-m", *words],
            env=environ,
            cwd=tmp_path,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        for words in (["ipython_cluster.controller"], ["ipython_cluster.engine", "3"])
    ]
    try:
        with ipyparallel.Client(str(security / "ipcontroller-client.json"), timeout=120) as client:
            client.wait_for_engines(1, timeout=120)
            assert client.ids == [3]
            assert client[3].apply_sync(os.getpid) == started[1].pid
        # The same ports with a key that is not this cluster's: refused.
        with pytest.raises(TimeoutError):
            ipyparallel.Client(str(stranger), timeout=3)
        if not curve:  # with CURVE it does not even come to speak
            log.seek(0)
            assert "Invalid Signature" in log.read()
    finally:
        for process in started:
            os.killpg(process.pid, 9)
            process.wait()
        log.close()
