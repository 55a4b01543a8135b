"""What was secret while an image was made, or is while it runs, is in nothing that anybody else can see."""

from __future__ import annotations

import base64
import gzip
import ipaddress
import json
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from secrets import token_hex

import pytest

from tests import containers
from tests.conftest import Cli
from tests.engine import Engine
from tests.engines import Images
from tests.images import into
from tests.packages import simple_index
from tests.s2i_harness import real_s2i
from tests.workbench import git, notebook, wheel


class Closed(SimpleHTTPRequestHandler):
    """Files for who has the password."""

    allowed = ""

    def do_GET(self) -> None:
        if self.headers.get("Authorization") != self.allowed:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="index"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        return


@contextmanager
def closed_index(folder: Path, password: str) -> Iterator[int]:
    """The port of an index that asks for a password; containers reach it at their network's gateway."""
    said = base64.b64encode(f"me:{password}".encode()).decode()
    handler = type("Handler", (Closed,), {"allowed": f"Basic {said}"})
    with ThreadingHTTPServer(("0.0.0.0", 0), partial(handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def everything(image: Path) -> Iterator[bytes]:
    """All that a saved image consists of, unpacked: layers, configuration, history."""
    with tarfile.open(image) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isfile() else None
            if file is None:
                continue
            raw = file.read()
            yield gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw


HOOK = """#!/bin/sh
env | sort; env > seen
"""  # what a hook sees ends in the log and in the image


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "notebooks"
    notebook(root / "a.ipynb", "import tinyone")
    (root / "requirements.txt").write_text("tinyone\n")
    for name in ("pre-build", "post-build"):
        hook = root / ".ipython-builder" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(HOOK)
        hook.chmod(0o755)
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "x")
    return root


def gateway(engine: Engine) -> str:
    """This machine, as a container on the engine's usual network reaches it."""
    if engine.name == "podman":
        return str(engine.inspect("podman", "network")["subnets"][0]["gateway"])
    (config,) = engine.inspect("bridge", "network")["IPAM"]["Config"]
    return str(config.get("Gateway") or ipaddress.ip_network(config["Subnet"])[1])


@pytest.mark.parametrize("way", ["podman", "s2i"])
def test_nothing_secret_is_in_an_image(
    cli: Cli,
    builder_image: Images,
    repository: Path,
    tmp_path: Path,
    way: str,
    request: pytest.FixtureRequest,
) -> None:
    engine: Engine = request.getfixturevalue("podman" if way == "podman" else "docker")
    path = engine.environ["PATH"]
    if way == "s2i":
        program = real_s2i()
        if program is None:
            pytest.skip("s2i is not on PATH and not in $S2I")
        path = f"{Path(program).parent}:{path}"
        into(request.getfixturevalue("podman"), engine, builder_image.builder)
    password, key, user = (token_hex(32) for _ in range(3))
    index = simple_index(tmp_path / "index", wheel(tmp_path, "tinyone", "1.0", tinyone="answer = 41\n"))
    image = engine.tag("secrets")
    with closed_index(index, password) as port:
        env = engine.env | {
            "PATH": path,
            "IPYTHON_BUILDER_EXTRA_INDEX_URLS": f"http://me:{password}@{gateway(engine)}:{port}/simple",
            "IPYTHON_CLUSTER_KEY": key,
            "IPYTHON_USER_PASSWORD": user,
        }
        words = ["--engine", way, "--builder", builder_image.builder]
        said = cli("build", repository, image, *words, env=env, check=True)
    log = said.stdout + said.stderr
    assert "IPYTHON_NOTEBOOK_DIR=" in log, "the hooks' output is shown"
    file = tmp_path / "image.tar"
    save = ("--quiet", "--format", "docker-archive") if way == "podman" else ()
    engine("save", *save, "--output", str(file), image)
    found = b"".join(everything(file))
    assert b"answer = 41" in found, "what is searched is there"
    assert b"IPYTHON_NOTEBOOK_DIR=" in found
    history = engine("history", "--no-trunc", image).stdout
    known = found + (log + history + json.dumps(engine.inspect(image))).encode()
    encoded = base64.b64encode(f"me:{password}".encode())
    secret = {"password": password.encode(), "encoded": encoded, "key": key.encode(), "user": user.encode()}
    assert [name for name, text in secret.items() if text in known] == []
    assert b"BEGIN CERTIFICATE" not in (log + history).encode()


def test_a_hook_does_not_reach_what_is_mounted(
    cli: Cli, podman: Engine, builder_image: Images, repository: Path, tmp_path: Path
) -> None:
    (repository / "requirements.txt").unlink()
    hook = repository / ".ipython-builder" / "pre-build"
    hook.with_name("post-build").unlink()  # it writes the same file
    hook.write_text("#!/bin/sh\ncat /run/secrets/ipython-builder/* > seen; exit 0\n")
    password = token_hex(32)
    image = podman.tag("hook")
    words = ["--engine", "podman", "--builder", builder_image.builder]
    env = podman.env | {"IPYTHON_BUILDER_INDEX_URL": f"http://me:{password}@127.0.0.1:9/simple"}
    cli("build", repository, image, *words, env=env, check=True)
    assert password not in podman.run(image, "cat", "/opt/app-root/src/seen").stdout


def test_nothing_secret_is_seen_of_a_container(podman: Engine, builder_image: Images) -> None:
    password = token_hex(16)
    with (
        containers.cluster(podman, builder_image.builder) as made,
        containers.secret(podman, f"{password}\n") as name,
    ):
        where = f"{name},target=/run/secrets/ipython-user-password,uid=0,gid=0,mode=0440"
        made.add("controller", "controller")
        made.add("engine", "engine")
        made.add("viewer", "viewer", "--secret", where)
        made.ready("controller", "engine", "viewer")
        for part in made.parts.values():
            argv = "cat /proc/[0-9]*/cmdline"
            seen = part.logs + json.dumps(part.inspect()) + part.exec("sh", "-c", argv).stdout
            files = part.exec("sh", "-c", "find /tmp -type f -perm /077").stdout
            environ = part.exec("sh", "-c", "cat /proc/[0-9]*/environ").stdout
            assert "ipython_cluster" in seen
            for secret in (made.key, password):
                assert secret not in seen
                assert secret not in environ
                # Who is of the same group in another container, or looks at a volume, reads no secret.
                for file in files.split():
                    assert secret not in part.exec("cat", file, check=False).stdout, file
