"""Real repositories, a real git server on loopback, and what strangers might hand us."""

from __future__ import annotations

import base64
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ipython_builder import settings, source
from ipython_builder.errors import BuilderError, RepositoryError, Unavailable
from ipython_builder.events import Event, Reporter
from tests.conftest import require

HERE = Path(__file__).parent
REPOS = Path(os.environ.get("IPYTHON_BUILDER_TEST_REPOS") or HERE.parent / "../shared/repos")
LECTURES = REPOS / "scientific-python-lectures.bundle"
SECRET = "s3cr3t-T0ken-%41-ßpw"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "a" * 64 + "\nsize 12345\n"


@pytest.fixture(autouse=True)
def own_git_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody's ~/.gitconfig decides a test; commits have a fixed time."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home/.gitconfig").write_text(
        "[user]\nname=T\nemail=t@example.org\n[init]\ndefaultBranch=main\n"
    )
    for name in [name for name in os.environ if name.startswith(("GIT_", "SSH_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_AUTHOR_DATE", "2020-01-02T03:04:05Z")
    monkeypatch.setenv("GIT_COMMITTER_DATE", "2020-01-02T03:04:05Z")


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-c", "protocol.file.allow=always", *words], cwd=folder, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


def commit(folder: Path, **files: str) -> str:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "--allow-empty", "-m", "a commit")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """main with two commits, the first tagged v1.0, and a branch `work/plots` with a file of its own."""
    path = tmp_path / "repository"
    path.mkdir()
    git(path, "init", "-q")
    commit(path, a_DOT_txt="first", sub__b_DOT_txt="b")
    git(path, "tag", "-a", "v1.0", "-m", "one")
    git(path, "checkout", "-q", "-b", "work/plots")
    commit(path, plots_DOT_txt="plots")
    git(path, "checkout", "-q", "main")
    commit(path, a_DOT_txt="second")
    return path


def fetch(text: object, destination: Path, **how: str) -> source.Checkout:
    return source.fetch(source.parse(str(text), **how), destination, settings.load(), Reporter())


# ---- a git server ------------------------------------------------------------------------------------


@dataclass
class Server:
    url: str
    root: Path
    http: ThreadingHTTPServer
    user: str = ""
    password: str = ""
    delay: float = 0
    smart: bool = True
    requests: list[str] = field(default_factory=list)

    def with_credentials(self, quoted: str) -> str:
        return self.url.replace("://", f"://{quoted}@")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """git's own http-backend, or plain files (the "dumb" protocol); asks for a password if it has a user."""
    root = tmp_path / "served"
    root.mkdir()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            return

        def do_GET(self) -> None:
            state.requests.append(self.path)
            time.sleep(state.delay)
            wanted = base64.b64encode(f"{state.user}:{state.password}".encode()).decode()
            if state.user and self.headers.get("Authorization") != f"Basic {wanted}":
                self.answer(401, {"WWW-Authenticate": 'Basic realm="git"'}, b"no")
            elif state.smart and not self.path.startswith("/page"):
                self.backend()
            else:
                path = root / self.path.split("?")[0].lstrip("/")
                found = path.is_file()
                self.answer(200 if found else 404, {}, path.read_bytes() if found else b"")

        do_POST = do_GET

        def backend(self) -> None:
            path, _, query = self.path.partition("?")
            environ = {
                "PATH": os.environ["PATH"],
                "HOME": os.environ["HOME"],
                "GIT_PROJECT_ROOT": str(root),
                "GIT_HTTP_EXPORT_ALL": "1",
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "REQUEST_METHOD": self.command,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            }
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            done = subprocess.run(["git", "http-backend"], env=environ, input=body, capture_output=True)
            head, _, content = done.stdout.partition(b"\r\n\r\n")
            headers = dict(line.split(": ", 1) for line in head.decode().splitlines() if ": " in line)
            self.answer(int(headers.pop("Status", "200").split()[0]), headers, content)

        def answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state = Server(f"http://127.0.0.1:{http.server_port}", root, http)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield state
    http.shutdown()
    http.server_close()


def serve(server: Server, repository: Path, name: str = "r.git") -> str:
    git(server.root, "clone", "-q", "--bare", str(repository), name)
    git(server.root / name, "update-server-info")
    return f"{server.url}/{name}"


# ---- folders -----------------------------------------------------------------------------------------


def test_plain_folder_in_place(tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    (folder / "nb").mkdir(parents=True)
    checkout = fetch(folder, tmp_path / "unused", context_dir="nb")
    assert checkout == source.Checkout(folder, folder / "nb", str(folder), None, None, 0, True, ())
    assert not (tmp_path / "unused").exists()


def test_git_folder_in_place(repository: Path, tmp_path: Path) -> None:
    (repository / "new.txt").write_text("not committed")
    checkout = fetch(repository, tmp_path / "unused")
    assert (checkout.path, checkout.in_place) == (repository, True)
    assert (checkout.commit, checkout.epoch) == (git(repository, "rev-parse", "HEAD"), 1577934245)
    inside = fetch(repository / "sub", tmp_path / "unused")
    assert (inside.commit, inside.path) == (checkout.commit, repository / "sub")
    (repository / "stray").mkdir()
    assert fetch(repository / "stray", tmp_path / "unused").commit is None


def test_relative_folder_and_caller_in_a_hook(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    checkout = fetch("repository", tmp_path / "unused")
    assert (checkout.path, checkout.source) == (repository, "repository")
    assert checkout.commit
    cloned = fetch(repository, tmp_path / "c", ref="main")
    assert (cloned.commit, (tmp_path / "c/a.txt").read_text()) == (checkout.commit, "second")
    assert source.changes(cloned.path, checkout.commit) == []


def test_nothing_of_a_strangers_folder_runs(tmp_path: Path) -> None:
    """A folder out of an archive can bring a .git with commands in it, for a commit that it has not."""
    folder = tmp_path / "archive"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / ".git/refs/heads/main").write_text("1" * 40 + "\n")
    touch = f"touch {tmp_path}/ran"
    for key, value in {
        "core.repositoryFormatVersion": "1",
        "extensions.partialClone": "origin",
        "remote.origin.promisor": "true",
        "remote.origin.url": "ssh://h/r",
        "core.sshCommand": touch,
        "core.fsmonitor": touch,
        "log.showSignature": "true",
        "gpg.program": touch,
        "core.pager": touch,
    }.items():
        git(folder, "config", key, value)
    assert fetch(folder, tmp_path / "unused").commit is None
    assert not (tmp_path / "ran").exists()


def test_folder_at_a_ref_is_cloned(repository: Path, tmp_path: Path) -> None:
    checkout = fetch(repository, tmp_path / "c", ref="work/plots")
    assert (checkout.path / "plots.txt").is_file()
    assert (checkout.in_place, checkout.ref) == (False, "work/plots")
    with pytest.raises(RepositoryError, match="not a git") as caught:
        source.parse(str(repository / "sub"), ref="main")
    assert "--context-dir sub" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("missing", "hint"),
    [("repositroy", "did you mean .*repository"), ("q/r", "nothing"), ("g.org/u/r", "https://g")],
)
def test_missing_path(
    repository: Path, tmp_path: Path, missing: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RepositoryError) as caught:
        source.parse(missing)
    assert re.search(hint, caught.value.hint or "")


def test_missing_context_dir(repository: Path, tmp_path: Path) -> None:
    for text in (str(repository), repository.as_uri()):
        with pytest.raises(RepositoryError) as caught:
            fetch(text, tmp_path / "c", context_dir="sbu")
        assert "sub" in (caught.value.hint or "")
        assert sorted(p.name for p in tmp_path.iterdir()) == ["home", "repository"]


def test_a_bundle_and_a_folder_at_a_ref_are_known_by_their_whole_path(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.bundle").write_bytes(b"# v2 git bundle\n")
    monkeypatch.chdir(tmp_path)
    assert source.parse("a.bundle").text == str(tmp_path / "a.bundle")
    folder = os.path.relpath(repository, tmp_path)
    assert source.parse(folder, ref="main").text == str(repository)


def test_a_file_that_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "a.ipynb").write_text("{}")
    with pytest.raises(RepositoryError) as caught:
        source.parse(str(tmp_path / "a.ipynb"))
    assert str(tmp_path) in (caught.value.hint or "")


@pytest.mark.parametrize("target", ["/etc/passwd", "../../outside", "nowhere/../../../x", "chain"])
@pytest.mark.parametrize("cloned", [True, False])
def test_symlink_out_of_the_tree(repository: Path, tmp_path: Path, target: str, cloned: bool) -> None:
    os.symlink("/etc", repository / "chain")
    os.symlink(target, repository / "sub/way-out")
    if target != "chain":
        (repository / "chain").unlink()
    commit(repository)
    with pytest.raises(RepositoryError, match=r"way-out|chain"):
        fetch(repository.as_uri() if cloned else repository, tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_harmless_symlinks(repository: Path, tmp_path: Path) -> None:
    os.symlink("a.txt", repository / "inside")
    os.symlink("../a.txt", repository / "sub/inside")
    os.symlink("nowhere", repository / "dangling")
    os.symlink(".", repository / "sub/itself")
    commit(repository)
    assert fetch(repository.as_uri(), tmp_path / "c").path == tmp_path / "c"
    for name in (".venv", "venv", "node_modules", "deep/__pycache__"):
        (repository / name).mkdir(parents=True)
        os.symlink("/usr/bin/python3", repository / name / "python")
    os.symlink("/usr", repository / ".tool")
    assert fetch(repository, tmp_path / "unused").in_place
    # In a stranger's repository the same names excuse nothing.
    (repository / ".tool").unlink()
    git(repository, "add", "-f", "venv")
    commit(repository)
    with pytest.raises(RepositoryError, match="python"):
        fetch(repository.as_uri(), tmp_path / "d")


def test_lfs_pointers_are_named(repository: Path, tmp_path: Path) -> None:
    commit(repository, data_DOT_bin=POINTER, _DOT_gitattributes="*.bin filter=lfs\n", small_DOT_txt="version")
    # What `git lfs install` writes, on a machine from which git-lfs has gone again.
    with open(Path(os.environ["HOME"], ".gitconfig"), "a") as file:
        file.write(
            '[filter "lfs"]\nrequired = true\nsmudge = no-lfs smudge %f\nprocess = no-lfs filter-process\n'
        )
    for text in (repository, repository.as_uri()):
        checkout = fetch(text, tmp_path / "c")
        assert checkout.warnings == ("content that Git LFS keeps is missing: data.bin",)
    os.utime(checkout.path / "data.bin")  # so that git has to look into it
    assert source.changes(checkout.path, checkout.commit or "") == []


# ---- clones ------------------------------------------------------------------------------------------


def test_clone_from_a_server(server: Server, repository: Path, tmp_path: Path) -> None:
    checkout = fetch(serve(server, repository), tmp_path / "c", context_dir="sub")
    assert (checkout.path, checkout.root, checkout.in_place) == (tmp_path / "c", tmp_path / "c/sub", False)
    assert (checkout.commit, checkout.epoch) == (git(repository, "rev-parse", "main"), 1577934245)
    assert git(checkout.path, "rev-list", "--count", "--all") == "1"  # shallow
    assert not list((tmp_path / "c/.git/hooks").glob("*") if (tmp_path / "c/.git/hooks").exists() else [])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c", "home", "repository", "served"]


@pytest.mark.parametrize("smart", [True, False])
@pytest.mark.parametrize(
    "ref", ["v1.0", "work/plots", "refs/heads/work/plots", "refs/tags/v1.0", "full", "short"]
)
def test_refs(
    server: Server,
    repository: Path,
    tmp_path: Path,
    ref: str,
    smart: bool,
) -> None:
    server.smart = smart
    wanted = git(repository, "rev-parse", ref if "/" in ref or "." in ref else "main~1")
    wanted = git(repository, "rev-parse", f"{wanted}^{{commit}}")
    given = {"full": wanted, "short": wanted[:9]}.get(ref, ref)
    checkout = fetch(serve(server, repository), tmp_path / "c", ref=given)
    assert (checkout.commit, checkout.ref) == (wanted, given)
    assert git(checkout.path, "status", "--porcelain") == ""
    assert source.changes(checkout.path, wanted) == []


@pytest.mark.parametrize(
    "ref", ["mian", "v1.1", "f" * 40, "abcdef1", "refs/heads/works/plot", "refs/pull/1/head"]
)
def test_missing_ref(server: Server, repository: Path, tmp_path: Path, ref: str) -> None:
    url = serve(server, repository)
    for text in (url, str(repository)):
        with pytest.raises(RepositoryError) as caught:
            fetch(text, tmp_path / "c", ref=ref)
        assert "no branch, tag or commit" in caught.value.message
        near = {"mian": "main", "v1.1": "v1.0", "refs/heads/works/plot": "work/plots"}.get(ref, "main")
        assert near in (caught.value.hint or "")
        assert not list(tmp_path.glob("*c*"))


def test_file_url_shares_nothing(repository: Path, tmp_path: Path) -> None:
    spaced = tmp_path / "with space"
    repository.rename(spaced)
    for text in (spaced.as_uri(), f"file://localhost{spaced}", f"file://{spaced}"):
        checkout = fetch(text, tmp_path / "c")
        objects = [p for p in (checkout.path / ".git/objects").rglob("*") if p.is_file()]
        assert objects
        assert {p.stat().st_nlink for p in objects} == {1}
        assert not (checkout.path / ".git/objects/info/alternates").exists()
        shutil.rmtree(checkout.path)


def test_bare_repository_whose_head_is_not_in_it(repository: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "-q", "--bare", str(repository), "bare.git")
    git(tmp_path / "bare.git", "symbolic-ref", "HEAD", "refs/heads/gone")
    checkout = fetch(tmp_path / "bare.git", tmp_path / "c")
    assert (checkout.commit, checkout.in_place) == (git(repository, "rev-parse", "main"), False)


def test_empty_repository(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "--bare", "empty.git")
    with pytest.raises(RepositoryError, match="is empty"):
        fetch(tmp_path / "empty.git", tmp_path / "c")


@pytest.mark.parametrize("url", [True, False])
@pytest.mark.parametrize("what", [["work/plots"], ["--all"], ["HEAD", "main"]])
def test_bundle(repository: Path, tmp_path: Path, what: list[str], url: bool) -> None:
    git(repository, "bundle", "create", "-q", str(tmp_path / "a b.bundle"), *what)
    bundle = tmp_path / "a b.bundle"
    checkout = fetch(bundle.as_uri() if url else bundle, tmp_path / "c")
    branch = "work/plots" if what == ["work/plots"] else "main"
    assert checkout.commit == git(repository, "rev-parse", branch)
    assert git(checkout.path, "branch", "--show-current") == branch


@pytest.mark.skipif(not LECTURES.is_file(), reason=f"{LECTURES} is not here (IPYTHON_BUILDER_TEST_REPOS)")
def test_lectures(tmp_path: Path) -> None:
    checkout = fetch(LECTURES, tmp_path / "c")
    assert checkout.commit == "48998f22475a3e14b51eeb10b3da4954c6b37d72"
    assert (checkout.root / "Lecture-6B-HPC.ipynb").is_file()
    assert (checkout.warnings, checkout.epoch > 1_300_000_000) == ((), True)


def test_destination(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    assert fetch(repository.as_uri(), tmp_path / "c").path == tmp_path / "c"
    with pytest.raises(BuilderError, match="not empty"):
        fetch(repository.as_uri(), tmp_path / "c")
    assert (tmp_path / "c/a.txt").read_text() == "second"
    (tmp_path / "d").mkdir()
    with pytest.raises(RepositoryError):
        fetch(repository.as_uri(), tmp_path / "d", ref="none")
    assert list((tmp_path / "d").iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(BuilderError, match="cannot write"):
        fetch(repository.as_uri(), tmp_path / "file/e")


def test_hooks_and_templates_do_not_run(repository: Path, tmp_path: Path) -> None:
    hooks = tmp_path / "template/hooks"
    hooks.mkdir(parents=True)
    (hooks / "post-checkout").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    (hooks / "post-checkout").chmod(0o755)
    with open(Path(os.environ["HOME"], ".gitconfig"), "a") as file:
        file.write(f"[init]\ntemplateDir={hooks.parent}\n[core]\nhooksPath={hooks}\n")
    git(tmp_path, "clone", "-q", str(repository), "control")
    assert (tmp_path / "ran").exists()  # the trap works
    (tmp_path / "ran").unlink()
    fetch(repository.as_uri(), tmp_path / "c")
    assert not (tmp_path / "ran").exists()


# ---- submodules --------------------------------------------------------------------------------------


@pytest.fixture
def with_submodule(repository: Path, tmp_path: Path) -> Path:
    path = tmp_path / "outer"
    path.mkdir()
    git(path, "init", "-q")
    git(path, "submodule", "--quiet", "add", "../repository", "libs/inner")
    commit(path, top_DOT_txt="top")
    return path


def test_relative_submodule(with_submodule: Path, tmp_path: Path) -> None:
    checkout = fetch(with_submodule.as_uri(), tmp_path / "c")
    assert (checkout.path / "libs/inner/a.txt").read_text() == "second"
    assert checkout.warnings == ()
    assert source.changes(checkout.path, checkout.commit or "") == []
    (checkout.path / "libs/inner/a.txt").write_text("mine")
    assert source.changes(checkout.path, checkout.commit or "") == ["libs/inner"]


def test_submodule_that_cannot_be_had(with_submodule: Path, repository: Path, tmp_path: Path) -> None:
    shutil.rmtree(repository)
    with pytest.raises(RepositoryError, match="the submodule libs/inner of"):
        fetch(with_submodule.as_uri(), tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_submodule_not_checked_out_in_place(with_submodule: Path, tmp_path: Path) -> None:
    git(with_submodule, "submodule", "--quiet", "deinit", "-f", "--all")
    assert fetch(with_submodule, tmp_path / "c").warnings == ("the submodule libs/inner is not checked out",)


@pytest.mark.parametrize("kind", ["ext::touch ran", "file"])
def test_hostile_submodule(
    server: Server,
    with_submodule: Path,
    repository: Path,
    tmp_path: Path,
    kind: str,
) -> None:
    """A repository from the network reaches no command and no folder here through a submodule."""
    hostile = repository.as_uri() if kind == "file" else f"ext::touch {tmp_path}/ran"
    git(with_submodule, "config", "-f", ".gitmodules", "submodule.libs/inner.url", hostile)
    commit(with_submodule)
    with pytest.raises(RepositoryError, match="libs/inner"):
        fetch(serve(server, with_submodule), tmp_path / "c")
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "c").exists()


# ---- credentials -------------------------------------------------------------------------------------


class Watcher(threading.Thread):
    """Notes the command line of every process on the machine, for as long as it runs."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen: set[bytes] = set()
        self.stop = threading.Event()

    def run(self) -> None:
        while not self.stop.is_set():
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    self.seen.add(path.read_bytes())
                except OSError:
                    continue  # it has ended
            time.sleep(0.005)


class Record:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        self.events.append(event)


QUOTED = "m%C3%A9:s3cr3t-T0ken-%2541-%C3%9Fpw"


def test_credentials(server: Server, with_submodule: Path, repository: Path, tmp_path: Path) -> None:
    """They open the repository and its submodule, and are in no command line, file, event or result."""
    server.user, server.password, server.delay = "mé", SECRET, 0.1
    git(with_submodule, "config", "-f", ".gitmodules", "submodule.libs/inner.url", "../inner.git")
    commit(with_submodule)
    serve(server, repository, "inner.git")
    serve(server, with_submodule)
    # A user's own store must not be handed what was meant for this one clone.
    with open(Path(os.environ["HOME"], ".gitconfig"), "a") as file:
        file.write(f"[credential]\nhelper = store --file={tmp_path}/store\n")
    given = source.parse(server.with_credentials(QUOTED) + "/r.git")
    record, watcher = Record(), Watcher()
    watcher.start()
    checkout = source.fetch(given, tmp_path / "c", settings.load(), Reporter(record))
    watcher.stop.set()
    watcher.join()
    assert (checkout.path / "libs/inner/a.txt").is_file()
    git_lines = [line for line in watcher.seen if b"remote-http" in line]
    assert git_lines
    for word in (SECRET, "s3cr3t", QUOTED):
        assert not any(word.encode() in line for line in watcher.seen)
        assert word not in repr((given, checkout, record.events))
        for path in (tmp_path / "c").rglob("*"):
            assert not path.is_file() or word.encode() not in path.read_bytes(), path
    assert not (tmp_path / "store").exists()
    assert git(checkout.path, "remote", "get-url", "origin") == f"{server.url}/r.git"
    assert any(event.kind == "progress" for event in record.events)


def test_token_as_user_name(server: Server, repository: Path, tmp_path: Path) -> None:
    server.user = "ghp_0123456789"
    serve(server, repository)
    checkout = fetch(server.with_credentials("ghp_0123456789") + "/r.git", tmp_path / "c")
    assert checkout.source == server.with_credentials("***") + "/r.git"


def test_a_helper_of_the_users_own_answers_without_any_in_the_url(
    server: Server, repository: Path, tmp_path: Path
) -> None:
    server.user, server.password = "me", SECRET
    serve(server, repository)
    with open(Path(os.environ["HOME"], ".gitconfig"), "a") as file:
        file.write(f'[credential]\nhelper = "!echo username=me; echo password={SECRET} #"\n')
    assert fetch(f"{server.url}/r.git", tmp_path / "c").commit


@pytest.mark.parametrize("quoted", ["", "me:wrong-passw0rd@", "me@"])
def test_credentials_that_are_missing_or_wrong(
    server: Server, repository: Path, tmp_path: Path, quoted: str
) -> None:
    server.user, server.password = "me", SECRET
    serve(server, repository)
    with pytest.raises(RepositoryError) as caught:
        fetch(server.url.replace("://", f"://{quoted}") + "/r.git", tmp_path / "c")
    assert "credential" in caught.value.message
    assert "credential helper" in (caught.value.hint or "")
    assert "wrong-passw0rd" not in f"{caught.value.message} {caught.value.hint} {caught.value.__cause__}"


# ---- what goes wrong outside -------------------------------------------------------------------------


def test_not_git(server: Server, tmp_path: Path) -> None:
    (server.root / "page/info").mkdir(parents=True)
    (server.root / "page/info/refs").write_text("<html>\nhello</html>\n")
    for path in ("page", "page/none", "none.git"):
        with pytest.raises(RepositoryError, match="is not a git repository"):
            fetch(f"{server.url}/{path}", tmp_path / "c")
    with pytest.raises(RepositoryError):
        fetch((server.root / "page").as_uri(), tmp_path / "c")
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/r", "http://no-such-host.invalid/r", "git://127.0.0.1:1/r"]
)
def test_nobody_there(tmp_path: Path, url: str) -> None:
    with pytest.raises(Unavailable):
        fetch(url, tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_own_authority(server: Server, repository: Path, tmp_path: Path) -> None:
    """A certificate that nobody knows is refused, and accepted with the authority that signed it."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    words = (
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    )
    made = [require("openssl"), *words.split(), "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(made, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.http.socket = context.wrap_socket(server.http.socket, server_side=True)
    parsed = source.parse(serve(server, repository).replace("http://", "https://"))
    with pytest.raises(Unavailable, match="certificate") as caught:
        source.fetch(parsed, tmp_path / "c", settings.load({}), Reporter())
    assert "--ca-bundle" in (caught.value.hint or "")
    trusting = settings.load({}).with_flags(ca_bundle=certificate)
    assert source.fetch(parsed, tmp_path / "c", trusting, Reporter()).commit


def test_ssh_never_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for ssh on PATH: what it is called with, and what is said when it refuses."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/ssh").write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/called\necho "Permission denied (publickey)." >&2\nexit 255\n'
    )
    (tmp_path / "bin/ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    for url in ("ssh://git@h.invalid/r.git", "git@h.invalid:r.git"):
        with pytest.raises(RepositoryError, match="credentials"):
            fetch(url, tmp_path / "c")
    assert (tmp_path / "called").read_text().count("BatchMode=yes") == 2
    git(tmp_path, "config", "--global", "core.sshCommand", f"{tmp_path}/bin/ssh -F mine")
    with pytest.raises(RepositoryError, match="credentials"):
        fetch("git@h.invalid:r.git", tmp_path / "c")
    assert (tmp_path / "called").read_text().splitlines()[-1].startswith("-F mine")


def test_ctrl_c(server: Server, repository: Path, tmp_path: Path) -> None:
    serve(server, repository)
    server.delay = 30
    url = f"{server.url}/r.git"
    program = (
        "import sys, pathlib\n"
        "from ipython_builder import source, settings\n"
        "from ipython_builder.events import Reporter\n"
        "source.fetch(source.parse(sys.argv[1]), pathlib.Path(sys.argv[2]), settings.load(), Reporter())\n"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(source.__file__).parents[1])}
    child = subprocess.Popen(
        [sys.executable, "-c", program, url, str(tmp_path / "c")], env=env, stderr=subprocess.PIPE
    )
    until = time.monotonic() + 20
    while not server.requests and time.monotonic() < until:
        time.sleep(0.05)
    assert server.requests
    child.send_signal(signal.SIGINT)
    _, stderr = child.communicate(timeout=20)
    assert b"KeyboardInterrupt" in stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["home", "repository", "served"]
    survivors = [p.read_bytes() for p in Path("/proc").glob("[0-9]*/cmdline") if p.exists()]
    assert not [line for line in survivors if url.encode() in line]


# ---- what would be lost ------------------------------------------------------------------------------


def test_changes(repository: Path, tmp_path: Path) -> None:
    commit(repository, _DOT_gitignore="*.csv\nout/\n")
    checkout = fetch(repository.as_uri(), tmp_path / "c")
    path, at = checkout.path, checkout.commit or ""
    for name in (".ipynb_checkpoints/a", "sub/__pycache__/b.pyc"):
        (path / name).parent.mkdir()
        (path / name).write_text("")
    assert source.changes(path, at) == []
    (path / "a.txt").write_text("mine")
    (path / "näme with space.txt").write_text("new")
    (path / "result.csv").write_text("ignored by git, and somebody's work")
    (path / "sub/b.txt").unlink()
    assert source.changes(path, at) == ["a.txt", "näme with space.txt", "result.csv", "sub/b.txt"]
    (path / "result.csv").unlink()
    commit(path, own_DOT_txt="committed, pushed nowhere")
    assert source.changes(path, at) == ["a.txt", "näme with space.txt", "own.txt", "sub/b.txt"]
    git(path, "push", "-q", "origin", "HEAD:refs/heads/mine")
    assert source.changes(path, at) == []
    git(path, "checkout", "-q", "-b", "side")
    commit(path, side_DOT_txt="on another branch")
    git(path, "checkout", "-q", "main")
    assert source.changes(path, at) == ["side.txt"]
    git(path, "branch", "-q", "-D", "side")
    (path / "a.txt").write_text("stashed")
    git(path, "stash", "-q")
    assert source.changes(path, at) == ["a.txt"]


def test_changes_follow_a_pull(repository: Path, tmp_path: Path) -> None:
    checkout = fetch(repository.as_uri(), tmp_path / "c")
    commit(repository, later_DOT_txt="upstream")
    git(checkout.path, "pull", "-q")
    assert (checkout.path / "later.txt").is_file()
    assert source.changes(checkout.path, checkout.commit or "") == []


def test_changes_nobody_can_tell(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="cannot tell"):
        source.changes(repository, "f" * 40)
    with pytest.raises(RepositoryError, match="cannot tell"):
        source.changes(tmp_path / "home", "f" * 40)
