"""A viewer that is not there, or refuses: what a caller is told. What works is in test_local."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator

import pytest

from ipython_builder.errors import Unavailable
from ipython_builder.workspace import Workspace


class Refuses(http.server.BaseHTTPRequestHandler):
    """A server that is not a viewer."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refuses)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}/"
    running.shutdown()
    running.server_close()


def test_nobody_listens() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        with pytest.raises(Unavailable, match="does not answer") as told:
            Workspace(f"http://127.0.0.1:{port}", "geheim")
    assert told.value.exit_code == 69
    assert "geheim" not in str(told.value)
    assert "HTTPConnection" not in told.value.message, "no repr of a library's objects"


def test_the_password_is_refused(server: str) -> None:
    with pytest.raises(Unavailable, match="refuses the password") as told:
        Workspace(server, "geheim")
    assert "geheim" not in str(told.value)


def test_a_proxy_does_not_see_what_stays_on_this_machine(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with pytest.raises(Unavailable, match="refuses the password"):
        Workspace(server, "x")
