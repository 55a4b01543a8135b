"""Free ports, with sockets that really hold some."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ipython_builder import ports
from ipython_builder.cluster import FIRST_PORT, PORT_COUNT, VIEWER_PORT
from ipython_builder.errors import BuilderError, UsageError

LOOPBACK = "127.0.0.1"


def release() -> None:
    """Give up what this process keeps for itself, as its end would."""
    while ports._reserved:
        ports._reserved.pop().close()


@pytest.fixture(autouse=True)
def as_a_new_process() -> Iterator[None]:
    """Each test is a process that has chosen nothing yet."""
    release()
    yield
    release()


@contextmanager
def held(host: str, port: int) -> Iterator[int]:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as server:
        server.bind((host, port))
        server.listen()
        yield server.getsockname()[1]


def test_a_port_that_is_listened_on_is_not_free_and_is_again_afterwards() -> None:
    with held(LOOPBACK, 0) as port:
        assert not ports.free(LOOPBACK, port)
    assert ports.free(LOOPBACK, port)


def test_a_port_with_a_connection_in_time_wait_is_free() -> None:
    with held(LOOPBACK, 0) as port:
        pass
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((LOOPBACK, port))
        server.listen()
        client = socket.create_connection((LOOPBACK, port))
        accepted, _ = server.accept()
        accepted.close()  # who closes first keeps the port in TIME_WAIT
        client.recv(1)
        client.close()
    assert ports.free(LOOPBACK, port)


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid"])
def test_an_address_of_another_machine_is_refused_before_ports_are_tried(host: str) -> None:
    with pytest.raises(UsageError, match=host):
        ports.check_host(host)
    ports.check_host(LOOPBACK)


@pytest.mark.skipif(not socket.has_ipv6, reason="this Python has no IPv6")
def test_ipv6_addresses() -> None:
    try:
        with held("::1", 0) as port:
            assert not ports.free("::1", port)
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")


def test_a_block_is_free_and_in_its_range() -> None:
    first = ports.block([])
    assert first >= FIRST_PORT
    assert first + PORT_COUNT <= ports.LAST_PORT
    assert all(ports.free(LOOPBACK, port) for port in range(first, first + PORT_COUNT))


def test_blocks_that_were_given_away_never_overlap_with_a_new_one() -> None:
    given: list[int] = []
    for _ in range(40):
        given.append(ports.block(given))
    used = [port for first in given for port in range(first, first + PORT_COUNT)]
    assert len(set(used)) == len(used)


def test_one_port_in_use_spoils_its_block() -> None:
    starts = range(FIRST_PORT, ports.LAST_PORT - PORT_COUNT, PORT_COUNT + 1)
    first = ports.block([])
    others = [start for start in starts if start != first]
    for port in (first, first + 7, first + PORT_COUNT - 1):
        release()
        with held(LOOPBACK, port), pytest.raises(BuilderError, match="15 free ports in a row"):
            ports.block(others)
    assert ports.block(others) == first


def test_what_one_process_has_chosen_no_other_one_chooses() -> None:
    """Two `up` at the same moment: neither listens on anything yet."""
    first = ports.block([])
    viewer = ports.viewer(LOOPBACK, [])
    program = (
        "from ipython_builder import ports\n"
        f"others = [s for s in range({FIRST_PORT}, {ports.LAST_PORT - PORT_COUNT}, {PORT_COUNT + 1}) if s != {first}]\n"
        "try: print(ports.block(others))\n"
        "except Exception as error: print(error)\n"
        f"print(ports.viewer({LOOPBACK!r}, []))"
    )

    def other() -> list[str]:
        words = [sys.executable, "-P", "-c", program]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()

    block, its_viewer = other()
    assert block.startswith("no 15 free ports")
    assert int(its_viewer) != viewer
    release()
    assert other()[0] == str(first)


def test_no_block_left() -> None:
    with pytest.raises(BuilderError) as caught:
        ports.block(range(FIRST_PORT, ports.LAST_PORT))
    assert caught.value.exit_code == 1
    assert caught.value.hint


def test_the_viewers_port_is_the_first_that_is_free_and_nobody_elses() -> None:
    first = ports.viewer(LOOPBACK, [])
    assert first >= VIEWER_PORT
    second = ports.viewer(LOOPBACK, [first])
    assert second != first
    release()
    # Another process of this machine may have taken it meanwhile: then it is held just as well.
    with contextlib.suppress(OSError), held(LOOPBACK, first):
        assert ports.viewer(LOOPBACK, []) != first
    every = range(VIEWER_PORT, VIEWER_PORT + 1000)
    with pytest.raises(BuilderError, match="no free port for the viewer") as caught:
        ports.viewer(LOOPBACK, every)
    assert "--port" in (caught.value.hint or "")
