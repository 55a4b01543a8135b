"""The main job on this machine, end to end: real commands, real JupyterLab, real engines."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
from pathlib import Path

import pytest
import requests

from ipython_builder import processes
from ipython_builder.roles import ROLES
from tests.conftest import LOOPBACK, Cli, Home
from tests.workbench import console, git, notebook, outputs, pid_of, until, wheel

pytestmark = pytest.mark.slow

PIDS = "import os; print(sorted(rc[:].apply_sync(os.getpid)))"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that is no git repository: a helper module, data, a notebook, one more in a subfolder."""
    root = tmp_path / "notebooks"
    notebook(
        root / "main.ipynb",
        "import ipyparallel as ipp\nrc = ipp.Client()\nrc.ids",
        "import helpers\nrc[:].apply_sync(lambda: __import__('helpers').double(21))",
        "rc[:].apply_sync(lambda: open('data.txt').read())",
        "from IPython.parallel import Client\nClient().ids",
        kernel="python2",
    )
    notebook(root / "sub" / "deep.ipynb", "import helpers\nhelpers.double(4)", "open('here.txt').read()")
    (root / "helpers.py").write_text("def double(x):\n    return 2 * x\n")
    (root / "data.txt").write_text("seven")
    (root / "sub" / "here.txt").write_text("down here")
    return root


def up(cli: Cli, *words: str | os.PathLike[str]) -> dict[str, object]:
    said = cli("up", "--json", *words, check=True)
    found: dict[str, object] = said.json
    return found


def address_of(made: dict[str, object]) -> tuple[str, int]:
    """Where the viewer listens."""
    host, _, port = str(made["url"]).removeprefix("http://").rstrip("/").rpartition(":")
    return host, int(port)


def counts(cli: Cli) -> tuple[int, int]:
    engines = cli("status", "main", "--json").json["engines"]
    return engines["requested"], engines["registered"]


@pytest.mark.oldest
def test_from_a_folder_to_a_notebook_that_computes(cli: Cli, folder: Path, home: Home) -> None:
    made = up(cli, folder, "-n", "2", "--label", "main")
    for key in ("label", "url", "password", "viewer", "controller", "engines", "environment", "seconds"):
        assert key in made
    assert made["engines"] == {"requested": 2, "registered": 2}
    assert requests.get(f"{made['url']}login", timeout=30).status_code == 200

    state = cli("status", "main", "--json", check=True).json
    assert state["state"] == "ready"
    assert {role["role"] for role in state["roles"]} == {*ROLES, "supervisor"}

    done = folder.parent / "done.ipynb"
    said = cli("run", "main", "main.ipynb", "-o", str(done), check=True)
    assert outputs(done) == ["[0, 1]", "[42, 42]", "['seven', 'seven']", "[0, 1]"]
    assert "[4/4]" in said.stderr, "progress by cell"
    assert said.stdout.strip() == str(done)

    cli("run", "main", "sub/deep.ipynb", check=True)  # no -o: saved where it is
    assert outputs(folder / "sub" / "deep.ipynb") == ["8", "'down here'"]

    assert console(cli, "main", "import helpers; print(helpers.double(3), rc.ids, len(view))") == "6 [0, 1] 2"
    assert cli("password", "main", check=True).stdout.strip() == made["password"]
    assert "main" in cli("ls", check=True).stdout
    assert "Completed registration" in cli("logs", "main", "engine", check=True).stdout


def test_run_says_what_failed_and_keeps_what_ran(cli: Cli, folder: Path) -> None:
    up(cli, folder, "-n", "0", "--label", "main")
    notebook(folder / "bad.ipynb", "print('before')", "1 / 0", "print('after')")
    done = folder / "done.ipynb"
    said = cli("run", "main", "bad.ipynb", "-o", str(done))
    assert said.rc == 1
    assert "ZeroDivisionError" in said.stderr
    assert outputs(done)[0] == "before"
    assert "after" not in done.read_text().replace("print('after')", "")
    assert cli("run", "main", "bad.ipynb", "-o", str(done), "--allow-errors").rc == 1
    assert outputs(done)[-1] == "after"
    cli("run", "main", "bad.ipynb", "-o", str(done), "--cells", "1-1", check=True)

    notebook(folder / "dies.ipynb", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    said = cli("run", "main", "dies.ipynb", "-o", str(done))
    assert (said.rc, "DeadKernel" in said.stderr) == (1, True)
    notebook(folder / "slow.ipynb", "import time; time.sleep(600)")
    said = cli("run", "main", "slow.ipynb", "-o", str(done), "--timeout", "1")
    assert (said.rc, "CellTimeout" in said.stderr) == (1, True)
    notebook(folder / "asks.ipynb", "input('name? ')")
    said = cli("run", "main", "asks.ipynb", "-o", str(done))
    assert (said.rc, "StdinNotImplementedError" in said.stderr) == (1, True)

    (folder / "broken.ipynb").write_text("{ not json")
    said = cli("run", "main", "broken.ipynb")
    assert said.rc == 3
    said = cli("run", "main", "mian.ipynb")
    assert said.rc == 3
    assert "did you mean main.ipynb" in said.stderr
    assert cli("run", "main", "bad.ipynb", "--cells", "three").rc == 2


def test_a_live_picture_ends_as_its_last_state(cli: Cli, folder: Path) -> None:
    up(cli, folder, "-n", "0", "--label", "main")
    notebook(
        folder / "live.ipynb",
        "from IPython.display import display, clear_output\nh = display('one', display_id=True)",
        "h.update('two')\nprint('x')\nclear_output(wait=True)\nprint('y')",
    )
    cli("run", "main", "live.ipynb", check=True)
    assert outputs(folder / "live.ipynb") == ["'two'", "y"]


@pytest.mark.oldest
def test_scale(cli: Cli, folder: Path) -> None:
    up(cli, folder, "-n", "1", "--label", "main")
    assert console(cli, "main", "rc[:].push({'x': 5}); print(rc.ids)").endswith("[0]")
    assert cli("scale", "main", "3", "--json", check=True).json["engines"]["registered"] == 3
    assert console(cli, "main", "print(rc.ids, rc[0].pull('x').get())") == "[0, 1, 2] 5"
    cli("scale", "main", "1", check=True)
    assert console(cli, "main", "print(rc.ids, rc[0].pull('x').get())") == "[0] 5", "the highest ids leave"
    cli("scale", "main", "0", check=True)
    assert console(cli, "main", "print(rc.ids, view)") == "[] None"
    assert cli("status", "main", check=True).stdout.startswith("main: ready, 0 of 0")
    for words, rc in ((("main", "-1"), 2), (("main", "many"), 2), (("main", "10001"), 2), (("nain", "1"), 2)):
        assert cli("scale", *words).rc == rc, words


def test_a_second_up_says_what_is_there(cli: Cli, folder: Path) -> None:
    first = up(cli, folder, "-n", "1", "--label", "main")
    again = up(cli, folder, "--label", "main")
    for key in ("url", "password", "controller", "environment", "engines", "viewer"):
        assert again[key] == first[key], key
    more = up(cli, folder, "--label", "main", "-n", "2")
    assert more["viewer"] == first["viewer"], "only engines were added"
    other = folder.parent / "other"
    other.mkdir()
    said = cli("up", other, "--label", "main")
    assert (said.rc, "already a cluster of" in said.stderr) == (2, True)


@pytest.mark.oldest
def test_down_leaves_no_process_no_port_no_file(cli: Cli, folder: Path, home: Home) -> None:
    made = up(cli, folder, "-n", "2", "--label", "main")
    # A terminal's child that ignores being asked, in a session of its own, must go too.
    stubborn = "trap '' TERM HUP; sleep 1000"
    quiet = "stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True"
    console(cli, "main", f"import subprocess; subprocess.Popen(['sh', '-c', {stubborn!r}], {quiet})")
    before = set(os.listdir(folder))
    cluster = home.clusters / "main"
    assert len(processes.of(cluster)) > 5
    cli("down", "main", check=True)
    assert processes.of(cluster) == []
    assert list(home.clusters.iterdir()) == []
    first, last = made["controller"]["ports"]  # type: ignore[index]
    addresses = [("127.0.0.1", number) for number in range(first, last + 1)]
    for address in [*addresses, address_of(made)]:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    assert set(os.listdir(folder)) == before, "a folder used in place is not touched"
    assert cli("down", "main").rc == 2


def test_two_clusters_live_side_by_side_and_share_what_is_read_only(
    cli: Cli, folder: Path, tmp_path: Path
) -> None:
    one = up(cli, folder, "-n", "1", "--label", "one")
    two = up(cli, folder, "-n", "1", "--label", "two")
    assert one["environment"] == two["environment"]
    assert one["url"] != two["url"]
    assert one["password"] != two["password"]
    made = wheel(tmp_path, "onlyhere", "1.0", onlyhere="ANSWER = 42\n")
    notebook(
        folder / "pip.ipynb",
        f"%pip install --no-index {made}",
        "import ipyparallel as ipp\nipp.Client()[:].apply_sync(lambda: __import__('onlyhere').ANSWER)",
    )
    cli("run", "one", "pip.ipynb", check=True)
    assert outputs(folder / "pip.ipynb")[-1] == "[42]", "the engines see it at once"
    assert "onlyhere" not in console(cli, "two", "import importlib.util as u; print(u.find_spec('onlyhere'))")
    assert console(cli, "two", PIDS) != console(cli, "one", PIDS)
    cli("down", "--all", check=True)
    assert cli("ls").stdout == ""


def test_secrets_are_where_they_belong(cli: Cli, folder: Path, home: Home) -> None:
    secret = "correct-horse-battery-staple"
    made = cli(
        "up",
        folder,
        "-n",
        "1",
        "--label",
        "main",
        "--json",
        env={"IPYTHON_USER_PASSWORD": secret},
        check=True,
    ).json
    assert made["password"] == secret
    cluster = home.clusters / "main"
    key = (cluster / "key").read_text().strip()
    assert len(key) == 64
    for path in cluster.rglob("*"):
        if path.is_file() and not path.is_symlink() and (cluster / "kept" / "env") not in path.parents:
            text = path.read_bytes()
            private = stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
            if secret.encode() in text:
                assert path.name == "password", f"the password is in {path}"
            if key.encode() in text:
                assert path.name == "key", f"the key is in {path}"
            if path.name in ("key", "password", "controller.json", "jupyter_server_config.json") or (
                path.name.startswith("ipcontroller-")
            ):
                assert private, f"{path} can be read by others"
    assert stat.S_IMODE((cluster / "node.sock").stat().st_mode) == 0o600
    for pid in processes.of(cluster):
        for name in ("environ", "cmdline"):
            seen = Path(f"/proc/{pid}/{name}").read_bytes()
            assert secret.encode() not in seen
            assert key.encode() not in seen


def test_a_password_that_is_wrong_is_refused(cli: Cli, folder: Path) -> None:
    made = up(cli, folder, "-n", "0", "--label", "main")
    session = requests.Session()
    session.get(f"{made['url']}login", timeout=30)
    answer = session.post(
        f"{made['url']}login",
        data={"password": "wrong", "_xsrf": session.cookies["_xsrf"]},
        allow_redirects=False,
        timeout=30,
    )
    assert answer.status_code == 401
    assert session.get(f"{made['url']}api/contents", timeout=30).status_code == 403


@pytest.mark.parametrize("number", [0, 1])
def test_an_engine_that_is_killed_comes_back_under_its_id(cli: Cli, folder: Path, number: int) -> None:
    up(cli, folder, "-n", "2", "--label", "main")
    console(cli, "main", "rc[:].push({'x': 5})")
    os.kill(pid_of(cli, "main", "engine", number), signal.SIGKILL)
    until(lambda: cli("status", "main", "--json").json["roles"][2 + number]["restarts"] == 1, "a restart")
    until(lambda: cli("status", "main").rc == 0, "ready")
    code = (
        f"print(rc.ids, rc[{1 - number}].pull('x').get(), rc[{number}].apply_sync(lambda: 'x' in globals()))"
    )
    assert console(cli, "main", code) == "[0, 1] 5 False"


@pytest.mark.oldest
def test_a_controller_that_is_killed_loses_nothing_that_lives_in_engines(cli: Cli, folder: Path) -> None:
    up(cli, folder, "-n", "2", "--label", "main")
    program = """
import os, signal, time
rc[:].push({'x': 5}, block=True); pids = rc[:].apply_sync(os.getpid)
running = rc[0].apply_async(lambda: __import__('time').sleep(3) or 'done')
time.sleep(0.5)
os.kill(CONTROLLER, signal.SIGKILL)
print(running.get(timeout=60), rc[:].pull('x', block=True), rc[:].apply_sync(os.getpid) == pids)
""".replace("CONTROLLER", str(pid_of(cli, "main", "controller")))
    assert console(cli, "main", program) == "done [5, 5] True", "the client that was open goes on"
    until(lambda: cli("status", "main").rc == 0, "ready")
    assert console(cli, "main", "print(rc.ids, rc[:].pull('x', block=True))") == "[0, 1] [5, 5]"


@pytest.mark.oldest
def test_a_viewer_that_is_killed_comes_back_with_url_and_password(cli: Cli, folder: Path) -> None:
    made = up(cli, folder, "-n", "1", "--label", "main")
    os.kill(pid_of(cli, "main", "viewer"), signal.SIGKILL)
    until(lambda: cli("status", "main", "--json").json["roles"][-1]["restarts"] == 1, "a restart")
    until(lambda: cli("status", "main").rc == 0, "ready")
    assert cli("status", "main", "--json").json["url"] == made["url"]
    cli("run", "main", "main.ipynb", "--cells", "1-1", check=True)


@pytest.mark.oldest
def test_a_supervisor_that_is_killed_is_noticed_and_put_right(cli: Cli, folder: Path, home: Home) -> None:
    made = up(cli, folder, "-n", "2", "--label", "main")
    os.kill(pid_of(cli, "main", "supervisor"), signal.SIGKILL)
    state = until(
        lambda: (s := cli("status", "main", "--json")).rc == 1 and s.json,
        "status tells that nobody supervises",
    )
    assert state["state"] == "unsupervised"
    assert cli("scale", "main", "1").rc == 1
    again = up(cli, folder, "--label", "main")
    assert (again["url"], again["password"]) == (made["url"], made["password"])
    assert again["engines"] == {"requested": 2, "registered": 2}
    engines = [
        pid
        for pid in processes.of(home.clusters / "main")
        if b"ipython_cluster.pool" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    assert len(engines) == 1 + 2, "nothing is doubled"


def test_after_a_reboot_status_tells_the_truth_and_up_puts_it_right(
    cli: Cli, folder: Path, home: Home
) -> None:
    made = up(cli, folder, "-n", "1", "--label", "main")
    for pid in processes.of(home.clusters / "main"):
        os.kill(pid, signal.SIGKILL)
    until(lambda: not processes.of(home.clusters / "main"), "everything is dead")
    state = cli("status", "main", "--json")
    assert (state.rc, state.json["state"], state.json["roles"]) == (1, "stopped", [])
    assert "stopped" in cli("ls").stdout
    again = up(cli, folder, "--label", "main")
    assert (again["url"], again["password"]) == (made["url"], made["password"])
    for pid in processes.of(home.clusters / "main"):
        os.kill(pid, signal.SIGKILL)
    cli("down", "main", check=True)
    assert list(home.clusters.iterdir()) == []


def test_ctrl_c_leaves_nothing(cli: Cli, folder: Path, home: Home) -> None:
    process = cli.start(
        "up", folder, "-n", "2", "--label", "main", "--progress", "plain", start_new_session=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "starting the notebook" in line:
            break
    os.killpg(process.pid, signal.SIGINT)
    process.communicate()
    assert process.returncode == 130
    assert processes.of(home.clusters / "main") == []
    assert not (home.clusters / "main").exists()


@pytest.mark.oldest
def test_an_up_that_is_killed_half_way_is_taken_up_or_put_away(cli: Cli, folder: Path, home: Home) -> None:
    process = cli.start("up", folder, "-n", "1", "--label", "main", "--progress", "plain")
    assert process.stderr is not None
    for line in process.stderr:
        if "starting the notebook" in line:
            break
    process.kill()
    process.communicate()
    again = up(cli, folder, "--label", "main")
    assert again["engines"] == {"requested": 1, "registered": 1}
    cli("down", "main", check=True)
    (home.clusters / "half").mkdir()  # killed before there was a record
    state = cli("status", "half", "--json")
    assert (state.rc, state.json["state"]) == (1, "incomplete")
    cli("down", "half", check=True)
    assert list(home.clusters.iterdir()) == []


@pytest.mark.oldest
@pytest.mark.parametrize("after", ["down", "up"])
def test_a_killed_up_of_a_url_is_seen_and_put_away(after: str, cli: Cli, folder: Path, home: Home) -> None:
    hook = folder / ".ipython-builder" / "pre-build"
    hook.parent.mkdir()
    hook.write_text("#!/bin/sh\nexec sleep 600\n")
    hook.chmod(0o755)
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "one")
    words = ("up", folder.as_uri(), "-n", "0", "--label", "main")
    process = cli.start(*words, "--allow-hooks", "--progress", "plain")
    assert process.stderr is not None
    for line in process.stderr:
        if "running .ipython-builder" in line:
            break
    process.kill()
    process.communicate()
    workspaces = home.settings.data_dir / "workspaces"
    (workspaces / ".main.partial").mkdir()
    state = cli("status", "main", "--json").json
    assert (state["state"], state["source"]) == ("incomplete", folder.as_uri())
    if after == "up":
        cli(*words, check=True)
    assert cli("down", "main", "--json", check=True).json["kept"] == {}
    assert list(workspaces.iterdir()) == []
    assert list(home.clusters.iterdir()) == []


def test_a_clone_with_work_in_it_is_kept(cli: Cli, folder: Path, home: Home) -> None:
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "one")
    url = folder.as_uri()
    made = up(cli, url, "-n", "0", "--label", "main", "--ref", "main", "--context-dir", "sub")
    workspace = home.settings.data_dir / "workspaces" / "main"
    assert made["notebooks"] == str(workspace / "sub")
    assert made["commit"] == git(folder, "rev-parse", "HEAD")
    cli("down", "main", check=True)
    assert not workspace.exists(), "nothing was changed in it"

    up(cli, url, "-n", "0", "--label", "main")
    cli("run", "main", "sub/deep.ipynb", check=True)  # saves outputs
    said = cli("down", "main", "--json", check=True)
    assert said.json["kept"] == {"main": str(workspace)}
    assert outputs(workspace / "sub" / "deep.ipynb") == ["8", "'down here'"]
    said = cli("up", url, "-n", "0", "--label", "main")
    assert (said.rc, str(workspace) in said.stderr) == (1, True)
    up(cli, workspace, "-n", "0", "--label", "main")
    cli("down", "main", "--discard", check=True)
    assert (workspace / "sub" / "deep.ipynb").exists(), "used in place it is the user's, and never removed"


def test_what_cannot_be_meant_is_refused_before_anything_starts(cli: Cli, folder: Path, home: Home) -> None:
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        said = cli("up", folder, "--label", "main", "--port", port)
        assert (said.rc, f"port {port}" in said.stderr) == (1, True)
    for words in (
        ("--label", "Main"),
        ("--label", "x" * 64),
        ("--label", "-x"),
        ("--user", "A B"),
        ("-n", "-1"),
        ("-n", "10001"),
        ("-n", "four"),
        ("--port", "0"),
        ("--ref", "--upload-pack=touch"),
        ("--password-file", "/nowhere"),
    ):
        assert cli("up", folder, *words).rc == 2, words
    assert cli("up", "ext::sh -c date").rc == 2
    assert cli("up", folder.parent / "nothing").rc == 3
    assert not home.clusters.exists() or not [p for p in home.clusters.iterdir() if p.is_dir()]


def test_hooks_run_only_when_allowed(cli: Cli, folder: Path) -> None:
    hooks = folder / ".ipython-builder"
    hooks.mkdir()
    for name in ("pre-build", "post-build"):
        (hooks / name).write_text(f"#!/bin/sh\nenv > {name}.ran\n")
        (hooks / name).chmod(0o755)
    said = cli("up", folder, "-n", "0", "--label", "main", check=True, env={"MY_TOKEN": "geheim"})
    assert "--allow-hooks" in said.stderr
    assert not list(folder.glob("*.ran"))
    cli("up", folder, "-n", "0", "--label", "main", "--allow-hooks", check=True, env={"MY_TOKEN": "geheim"})
    ran = sorted(folder.glob("*.ran"))
    assert [path.name for path in ran] == ["post-build.ran", "pre-build.ran"]
    assert not any("geheim" in path.read_text() for path in ran)


def test_ipyparallels_own_tools_see_the_cluster(cli: Cli, folder: Path) -> None:
    up(cli, folder, "-n", "1", "--label", "main")
    program = """
import ipyparallel as ipp, logging
c = ipp.Cluster.from_file(log_level=logging.ERROR)
rc = c.connect_client_sync()
first = rc[0].apply_sync(__import__('os').getpid)
more = c.start_engines_sync(n=2)
rc.wait_for_engines(3, timeout=60, interactive=False)
print(rc.ids)
c.restart_engines_sync(more)
rc.wait_for_engines(3, timeout=60, interactive=False)
print(rc.ids, rc[0].apply_sync(__import__('os').getpid) == first)
c.stop_engines_sync(more)
while len(rc.ids) != 1: __import__('time').sleep(0.1)
print(rc.ids)
"""
    assert console(cli, "main", program).splitlines() == ["[0, 1, 2]", "[0, 1, 2] True", "[0]"]
    assert cli("status", "main", "--json").json["engines"]["requested"] == 1


def test_the_panel_adds_and_stops_engines(cli: Cli, folder: Path) -> None:
    from ipython_builder.workspace import Workspace

    made = up(cli, folder, "-n", "1", "--label", "main")
    viewer = Workspace(str(made["url"]), str(made["password"]))
    clusters = viewer.request("GET", "ipyparallel/clusters").json()
    assert [(c["id"], c["engines"]["n"]) for c in clusters] == [("default:", 1)]
    body = json.dumps({"profile": "default", "cluster_id": "more", "n": 2})
    key = viewer.request("POST", "ipyparallel/clusters", data=body).json()["id"]
    assert viewer.request("POST", f"ipyparallel/clusters/{key}", data="{}").ok
    until(lambda: cli("status", "main", "--json").json["engines"]["registered"] == 3, "two more engines")
    assert viewer.request("DELETE", f"ipyparallel/clusters/{key}").ok
    until(
        lambda: counts(cli) == (1, 1),
        "one again",
    )
    assert viewer.request("DELETE", "ipyparallel/clusters/default:").ok
    until(lambda: counts(cli) == (0, 0), "none")
    until(
        lambda: viewer.request("GET", "ipyparallel/clusters").json()[0].get("controller"), "still in the list"
    )
    assert viewer.request("POST", "ipyparallel/clusters/default:", data='{"n": 2}').ok
    until(lambda: cli("status", "main", "--json").json["engines"]["registered"] == 2, "engines after a stop")


def test_logs_follow(cli: Cli, folder: Path) -> None:
    up(cli, folder, "-n", "1", "--label", "main")
    process = cli.start("logs", "main", "engine", "-f", "--last", "0")
    try:
        assert process.stdout is not None
        console(cli, "main", "rc[0].apply_sync(lambda: None)")
        assert process.stdout.readline().startswith("engine-0: ")
    finally:
        process.terminate()
        process.communicate()
    assert cli("logs", "main", "nobody").rc == 2


def test_modules_of_the_repository_shadow_nothing_that_a_role_needs(cli: Cli, folder: Path) -> None:
    for name in ("zmq", "queue", "tornado"):
        (folder / f"{name}.py").write_text("raise SystemExit('shadowed')")
    assert up(cli, folder, "-n", "1", "--label", "main")["engines"] == {"requested": 1, "registered": 1}


def test_a_role_that_dies_again_and_again_is_told_with_its_last_words(cli: Cli, folder: Path) -> None:
    made = up(cli, folder, "-n", "0", "--label", "main")
    os.kill(pid_of(cli, "main", "supervisor"), signal.SIGTERM)
    until(lambda: cli("status", "main", "--json").json["state"] == "stopped", "a stop")
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(address_of(made))
        taken.listen()
        said = cli("up", folder, "--label", "main")
        assert said.rc == 1
        assert "already in use" in said.stderr
        assert "logs main" in said.stderr
        assert cli("status", "main", "--json").json["state"] == "stopped"
    up(cli, folder, "--label", "main")


def test_what_a_notebook_makes_others_may_read_as_the_users_umask_says(cli: Cli, folder: Path) -> None:
    up(cli, folder, "-n", "1", "--label", "main")
    code = "import os; old = os.umask(0); os.umask(old); old"
    program = f"f = lambda: [exec({code[:-5]!r}, g := {{}}), g['old']][1]; print(rc[0].apply_sync(f))"
    ours = os.umask(0)
    os.umask(ours)
    assert console(cli, "main", program) == str(ours)


def test_what_came_up_again_is_well_however_often_it_fell(cli: Cli, folder: Path) -> None:
    up(cli, folder, "-n", "1", "--label", "main")
    for times in range(1, 6):
        os.kill(pid_of(cli, "main", "engine"), 40 if times == 1 else signal.SIGKILL)
        until(
            lambda times=times: cli("status", "main", "--json").json["roles"][2]["restarts"] == times, "again"
        )
        until(lambda: cli("status", "main").rc == 0, "ready")
    assert cli("scale", "main", "2", check=True)


def test_a_stranger_on_the_viewers_port_is_not_the_viewer(cli: Cli, folder: Path) -> None:
    import http.server
    import threading

    class Yes(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    made = up(cli, folder, "-n", "0", "--label", "main")
    os.kill(pid_of(cli, "main", "supervisor"), signal.SIGTERM)
    until(lambda: cli("status", "main", "--json").json["state"] == "stopped", "a stop")
    with http.server.ThreadingHTTPServer(address_of(made), Yes) as stranger:
        threading.Thread(target=stranger.serve_forever, daemon=True).start()
        assert cli("up", folder, "--label", "main").rc == 1
        stranger.shutdown()


def test_a_new_password_holds_at_once(cli: Cli, folder: Path) -> None:
    up(cli, folder, "-n", "0", "--label", "main")
    env = {"IPYTHON_USER_PASSWORD": "another one"}
    assert (
        cli("up", folder, "--label", "main", "--json", env=env, check=True).json["password"] == "another one"
    )
    cli("run", "main", "main.ipynb", "--cells", "4", check=True)


def test_the_same_words_from_another_folder_are_another_source(
    cli: Cli, folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    cli("up", ".", "-n", "0", "--label", "main", cwd=folder, check=True)
    said = cli("up", ".", "--label", "main", cwd=other)
    assert (said.rc, str(folder) in said.stderr) == (2, True)
    assert cli("up", "--label", "odd", "--host", "no.such.host.invalid", folder).rc == 2


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGHUP])
def test_a_cancelled_run_leaves_no_kernel(cli: Cli, folder: Path, home: Home, sent: signal.Signals) -> None:
    up(cli, folder, "-n", "0", "--label", "main")
    notebook(folder / "sleeps.ipynb", "print('on')", "import time; time.sleep(600)")
    process = cli.start("run", "main", "sleeps.ipynb", "--progress", "plain")
    assert process.stderr is not None
    for line in process.stderr:
        if "[1/2]" in line:
            break
    process.send_signal(sent)
    process.communicate()
    assert process.returncode == 128 + sent

    def kernels() -> list[int]:
        words = {p: Path(f"/proc/{p}/cmdline") for p in processes.of(home.clusters / "main")}
        found = [
            p for p, path in words.items() if path.exists() and b"ipython_cluster.kernel" in path.read_bytes()
        ]
        # Their pool is called like those that it forks.
        return [p for p in found if b"kernels" not in words[p].read_bytes() or processes.parent(p) in found]

    until(lambda: not kernels(), "the kernel's end")


def test_much_output_is_kept_and_a_busy_cell_times_out(cli: Cli, folder: Path) -> None:
    up(cli, folder, "-n", "0", "--label", "main")
    notebook(folder / "much.ipynb", "for _ in range(20): print('x' * 10**6)")
    cli("run", "main", "much.ipynb", check=True)
    assert (folder / "much.ipynb").stat().st_size > 20 * 10**6
    notebook(folder / "busy.ipynb", "import time\nwhile True: print('.'); time.sleep(0.2)")
    said = cli("run", "main", "busy.ipynb", "--timeout", "2")
    assert (said.rc, "CellTimeout" in said.stderr) == (1, True)
    assert cli("run", "main", "much.ipynb", "-o", "no/such/folder/x.ipynb").rc == 2
