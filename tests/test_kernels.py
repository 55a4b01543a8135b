"""Notebook kernels from a pool: in a cluster's viewer, and in a Jupyter that is not ours."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest
import uv

from ipython_builder import ports, processes
from ipython_builder.workspace import Workspace
from tests.conftest import CACHE, CHECKOUT, Cli, Home
from tests.workbench import notebook, outputs, pid_of, until, wheel

pytestmark = [pytest.mark.slow, pytest.mark.oldest]

FORKED = "ipython_cluster.kernels"
HOW = "print(open('/proc/self/cmdline').read().replace(chr(0), ' '))"
LOADED = "import sys; print('colorsys' in sys.modules)"


class Jupyter:
    """The other end of `tests/jupyter.py`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.into: IO[str] = process.stdin  # type: ignore[assignment]
        self.out: IO[str] = process.stdout  # type: ignore[assignment]

    def __call__(self, *step: Any) -> Any:
        self.into.write(json.dumps(step) + "\n")
        self.into.flush()
        line = self.out.readline()
        assert line, "it ended: its words are above"
        return json.loads(line)


@pytest.fixture
def python(cli: Cli, home: Home, tmp_path: Path) -> Path:
    """The Python of a cluster's own environment; the cluster is gone, and the environment stays."""
    folder = tmp_path / "notebooks"
    notebook(folder / "main.ipynb", "import colorsys")
    cli("up", folder, "-n", "0", "--label", "main", check=True)
    return home.clusters / "main" / "kept" / "env" / "bin" / "python"


@contextmanager
def jupyter(home: Home, python: Path, **environ: str) -> Iterator[Jupyter]:
    with subprocess.Popen(
        [python, "-P", CHECKOUT / "tests" / "jupyter.py"],
        env=home.environ | {processes.MARK: str(home.path)} | environ,
        cwd=home.path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Jupyter(process)
        finally:
            process.kill()


def spec(python: Path, *preload: str, pool: bool = True, timeout: float = 30, **more: Any) -> dict[str, Any]:
    stanza = {
        "provisioner_name": "ipython-cluster-pool",
        "config": {"preload": preload, "timeout": timeout},
    }
    return {
        "argv": [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "a kernel",
        "language": "python",
        "metadata": {"kernel_provisioner": stanza} if pool else {},
    } | more


def alive(pid: int) -> bool:
    return processes.alive(pid)


def warm(cli: Cli) -> None:
    until(lambda: "preloaded in" in cli("logs", "main", "viewer").stdout, "the viewer has a pool of kernels")


def test_a_notebook_of_the_viewer_has_a_forked_kernel(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "notebooks"
    notebook(folder / "main.ipynb", "import colorsys, decimal")
    notebook(folder / "below" / "asks.ipynb", HOW, LOADED, "import helper; print(helper.x)", "%pwd")
    (folder / "helper.py").write_text("x = 7\n")
    (folder / ".ipython-builder.toml").write_text('[pool]\npreload = ["colorsys"]\n')
    cli("up", folder, "-n", "1", "--label", "main", check=True)
    warm(cli)
    said = tmp_path / "said.ipynb"
    cli("run", "main", "below/asks.ipynb", "-o", said, check=True)
    how, *rest = outputs(said)
    assert FORKED in how
    assert rest == ["True", "7", repr(str(folder / "below"))]
    # The whole cluster is in the notebook's hands as before.
    notebook(
        folder / "engines.ipynb", "import ipyparallel as ipp; print(ipp.Client()[:].apply_sync(pow, 2, 5))"
    )
    cli("run", "main", "engines.ipynb", "-o", said, check=True)
    assert outputs(said) == ["[32]"]
    # A viewer that dies takes its kernels and their pool with it.
    pool = next(pid for pid in processes.below({pid_of(cli, "main", "viewer")}) if is_pool(pid))
    os.kill(pid_of(cli, "main", "viewer"), signal.SIGKILL)
    until(lambda: not alive(pool), "the pool has ended")
    warm(cli)


def is_pool(pid: int) -> bool:
    return FORKED.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()


def test_without_forks_kernels_start_as_before(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "notebooks"
    notebook(folder / "main.ipynb", "import colorsys", HOW)
    cli("up", folder, "-n", "1", "--label", "main", "--no-fork", check=True)
    cli("run", "main", "main.ipynb", check=True)
    assert "ipython_cluster.kernel " in outputs(folder / "main.ipynb")[0]


# What a program in a kernel can see of it, without what is another one in every process.
SEEN = """
import json, os, signal, sys, threading, warnings
shell = get_ipython()
loaded = sorted(ext for ext in shell.extension_manager.loaded)
print(json.dumps({
    "cwd": os.getcwd(), "path": sys.path, "argv": sys.argv[1:2], "name": __name__, "flags": str(sys.flags),
    "environ": {k: v for k, v in os.environ.items() if not k.startswith("JPY_")},
    "thread": threading.main_thread().native_id == os.getpid(), "interrupt": str(signal.getsignal(signal.SIGINT)), "terminate": str(signal.getsignal(signal.SIGTERM)),
    "config": sorted(name for name, section in shell.config.items() if section), "kind": type(shell).__name__, "kernel": shell.kernel is not None,
    "parent": type(shell.parent).__name__, "extensions": loaded, "main": sys.modules["__main__"].__name__,
    "history": [shell.history_manager.enabled, str(shell.history_manager.hist_file)],
    "out": type(sys.stdout).__name__, "count": shell.execution_count, "magic": shell.ast_node_interactivity,
    "leader": os.getsid(0) == os.getpid(), "group": os.getpgid(0) == os.getpid(),
    "display": type(shell.display_pub).__name__, "formatters": sorted(shell.display_formatter.formatters),
    "stdin": os.read(0, 1).decode() if os.path.samestat(os.fstat(0), os.stat("/dev/null")) else "",
    "dirs": list(map(str, _dh)), "in": In[-1][:20], "start": shell.starting_dir, "out_is": Out is _oh,
    "hidden": sorted(name for name in shell.user_ns_hidden if not name.startswith("_")),
    "app": type(shell.kernel.parent).__name__, "umask": os.umask(0o022),
}))
"""


def test_a_forked_kernel_is_what_an_ordinary_one_is(home: Home, python: Path) -> None:
    profile = home.path / ".ipython" / "profile_default"
    profile.mkdir(parents=True)
    (profile / "ipython_kernel_config.py").write_text(
        "c.InteractiveShell.ast_node_interactivity = 'all'\nc.InteractiveShellApp.exec_lines = ['marked = 5']\n"
    )
    seen = {}
    with jupyter(home, python, IPYTHONDIR=str(profile.parent)) as there:
        assert there("specs", {"forked": spec(python, "colorsys"), "ordinary": spec(python, pool=False)}) == [
            None
        ]
        for name in ("forked", "ordinary"):
            there("start", name)
            assert (FORKED in there("run", HOW)) == (name == "forked")
            seen[name] = json.loads(there("run", SEEN))
            assert there("run", "print(marked)") == "5"
            assert there("run", "1 + 1\n2 + 2") == 2 * "text/plain"
            assert there("run", "1 / 0") == "ZeroDivisionError"
            assert there("run", "%history -n 1 -l 1").strip()
            assert there("run", "!echo $((6 * 7))") == "42"
    assert dict(set(seen["forked"]["environ"].items()) ^ set(seen["ordinary"]["environ"].items())) == {}
    assert seen["forked"] == seen["ordinary"]
    assert seen["forked"]["magic"] == "all"


def test_kernels_of_a_pool_are_not_alike(home: Home, python: Path, tmp_path: Path) -> None:
    """They share what was imported, and nothing that has to be another one."""
    (tmp_path / "made_early.py").write_text(
        "import random\nfree = random.Random()\nfixed = random.Random(1)\n"
    )
    with jupyter(home, python, PYTHONPATH=str(tmp_path)) as there:
        there("specs", {"forked": spec(python, "random", "tempfile", "made_early")})
        code = "import made_early, os, random, tempfile, uuid; print(random.random(), tempfile.mktemp(), uuid.uuid4(), os.getpid(), made_early.free.random())"
        said = []
        for _ in range(2):
            there("start", "forked")
            said.append(there("run", code).split())
            there("run", "random.left = 5")
        assert there("run", "print(random.left, round(made_early.fixed.random(), 3))") == "5 0.134"
        there("start", "forked")
        assert there("run", "import random; print(hasattr(random, 'left'))") == "False"
    assert all(one != other for one, other in zip(*said, strict=True))


def test_it_is_interrupted_restarted_and_ended(home: Home, python: Path) -> None:
    with jupyter(home, python) as there:
        there("specs", {"forked": spec(python, "colorsys")})
        first = there("start", "forked")
        there("begin", "import time; time.sleep(1000)")
        there("interrupt")
        assert there("said") == "KeyboardInterrupt"
        second = there("restart")
        assert first != second
        assert not alive(first)
        assert FORKED in there("run", HOW)
        assert there("run", "import subprocess; p = subprocess.Popen(['sleep', '1000']); print(p.pid)")
        there("signal", int(signal.SIGKILL))
        assert there("ended") == -signal.SIGKILL
        there("start", "forked")
        there("begin", "import os, time; time.sleep(1); os._exit(7)")
        assert there("ended") == 7
        third = there("start", "forked")
        assert there("run", LOADED) == "True"
        there("stop")
        assert not alive(third)


def test_pools_and_kernels_end_with_their_jupyter(home: Home, python: Path) -> None:
    with jupyter(home, python) as there:
        there("specs", {"forked": spec(python, "colorsys")})
        kernel = there("start", "forked")
        (pool,) = there("pools")
        there("run", "1")
        there.process.kill()
        there.process.wait()
        until(lambda: not alive(pool) and not alive(kernel), "both have ended")


def test_a_killed_pool_takes_no_kernel_with_it(home: Home, python: Path) -> None:
    with jupyter(home, python) as there:
        there("specs", {"forked": spec(python, "colorsys")})
        there("start", "forked")
        there("run", "kept = 6")
        (pool,) = there("pools")
        os.kill(pool, signal.SIGKILL)
        until(lambda: there("pools") != [pool], "the pool is known to be gone")
        assert there("run", "print(kept)") == "6"
        there("start", "forked")
        assert "ipykernel_launcher" in there("run", HOW)
        assert there("settle") == [None], "a server makes another pool when the kernel runs"
        there("start", "forked")
        assert FORKED in there("run", HOW)


def test_a_pool_that_is_stopped_keeps_nobody_waiting_twice(home: Home, python: Path) -> None:
    with jupyter(home, python) as there:
        there("specs", {"forked": spec(python, "colorsys")})
        (pool,) = there("pools")
        os.kill(pool, signal.SIGSTOP)
        first = there("start", "forked")
        assert "ipykernel_launcher" in there("run", HOW)
        second = there("start", "forked")
        assert "ipykernel_launcher" in there("run", HOW)
        os.kill(pool, signal.SIGCONT)
        # What it forks too late is ended: that kernel is there already.
        until(lambda: processes.below({pool}) == {pool}, "nothing of it is left")
        until(lambda: FORKED in (there("start", "forked"), there("run", HOW))[1], "it serves again")
        assert alive(first)
        assert alive(second)


def test_what_was_installed_since_is_seen(home: Home, python: Path, tmp_path: Path) -> None:
    for version in ("1", "2"):
        wheel(tmp_path, "changing", version, changing=f"version = {version}\n")
    with jupyter(home, python) as there:
        there("specs", {"forked": spec(python, "changing")})
        there("start", "forked")
        install = "import sys, subprocess; print(subprocess.run([sys.executable, '-m', 'pip', 'install', '-q', '--no-index', {!r}], capture_output=True).returncode)"
        path = str(tmp_path / "changing-{}-py3-none-any.whl")
        assert there("run", install.format(path.format(1))) == "0"
        there("restart")
        assert there("run", "import changing; print(changing.version)") == "1"
        assert there("settle") == [None]
        there("restart")
        assert FORKED in there("run", HOW)
        assert there("run", "import sys; print('changing' in sys.modules)") == "True"
        assert there("run", install.format(path.format(2))) == "0"
        there("restart")
        assert there("run", "import changing; print(changing.version)") == "2"


def test_what_cannot_be_forked_starts_as_before(home: Home, python: Path, tmp_path: Path) -> None:
    spelled = {
        "wrapped": spec(python, argv=["/usr/bin/env", "OTHER=1", str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]),
        "arguments": spec(python, argv=[str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}", "--no-stdout"]),
        "other": spec(python, argv=[str(python), "-c", "from ipykernel.kernelapp import launch_new_instance as start; start()", "-f", "{connection_file}"]),
    }  # fmt: skip
    with jupyter(home, python) as there:
        assert there("specs", spelled | {"forked": spec(python, "colorsys")}) == [None]
        for name in spelled:
            there("start", name)
            assert FORKED not in there("run", HOW)
        there("start", "forked", {"OTHER": "yes"})
        assert FORKED not in there("run", HOW)
        assert there("run", "import os; print(os.environ['OTHER'])") == "yes"
        # What is looked for in the kernel's own folder was not found by a pool.
        cwd = there("run", "import os; print(os.getcwd())")
        Path(cwd, "matplotlibrc").write_text("lines.linewidth: 7\n")
        there("start", "forked")
        assert FORKED not in there("run", HOW)
    with jupyter(home, python, PYTHONPATH="src") as there:
        assert there("specs", {"forked": spec(python, "colorsys")}) == []
        there("start", "forked")
        assert FORKED not in there("run", HOW)


def test_a_setting_with_a_typo_is_named(home: Home, python: Path, capfd: pytest.CaptureFixture[str]) -> None:
    typed = spec(python)
    typed["metadata"]["kernel_provisioner"]["config"] = {"preloads": ["colorsys"]}
    with jupyter(home, python) as there:
        there("specs", {"typed": typed})
        there("start", "typed")
        assert there("run", "print(1)") == "1"
    assert (
        "ipython-cluster-pool has no setting 'preloads', only preload and timeout" in capfd.readouterr().err
    )


def test_a_module_that_adds_to_the_path_makes_nothing_stale(home: Home, python: Path, tmp_path: Path) -> None:
    (tmp_path / "vendored").mkdir()
    (tmp_path / "vendoring.py").write_text(f"import sys\nsys.path.append({str(tmp_path / 'vendored')!r})\n")
    with jupyter(home, python, PYTHONPATH=str(tmp_path)) as there:
        there("specs", {"forked": spec(python, "vendoring")})
        for number in range(2):
            # Nor does a file beside the modules, which is no installation.
            (tmp_path / f"saved-{number}.txt").touch()
            there("start", "forked")
            assert FORKED in there("run", HOW)


def test_numerical_libraries_have_their_threads(home: Home, cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "numerical"
    notebook(
        folder / "main.ipynb",
        "import numexpr, numpy, threadpoolctl, os",
        HOW,
        "print({one['num_threads'] for one in threadpoolctl.threadpool_info()}, numexpr.get_num_threads(), len(os.sched_getaffinity(0)))",
    )
    (folder / "requirements.txt").write_text("numpy\nnumexpr\n")
    cli("up", folder, "-n", "0", "--label", "main", check=True)
    warm(cli)
    cli("run", "main", "main.ipynb", check=True)
    how, said = outputs(folder / "main.ipynb")
    assert FORKED in how
    processors = len(os.sched_getaffinity(0))
    assert said == f"{{{processors}}} {min(processors, 8)} {processors}"


def test_modules_that_cannot_be_shared_are_left_out(home: Home, python: Path, tmp_path: Path) -> None:
    bad = {
        "leaves_thread": "import threading, time; threading.Thread(target=time.sleep, args=(999,), daemon=True).start()",
        "exits": "import os; os._exit(3)",
        "raises": "raise RuntimeError('not today')",
        "hangs": "import time; time.sleep(999)",
        "asks": "import IPython; shell = IPython.get_ipython(); kind = type(shell).__name__; app = 'IPKernelApp' in shell.config",
    }
    for name, text in bad.items():
        (tmp_path / f"{name}.py").write_text(text + "\n")
    with jupyter(home, python, PYTHONPATH=str(tmp_path)) as there:
        assert there("specs", {"forked": spec(python, *bad, "colorsys", timeout=1)}) == [None]
        there("start", "forked")
        assert FORKED in there("run", HOW)
        assert there("run", LOADED) == "True"
        loaded = there("run", f"print([name for name in {list(bad)} if name in sys.modules])")
        assert loaded == "['asks']"
        # It found what it would find in a kernel.
        assert there("run", "import asks; print(asks.kind, asks.app)") == "ZMQInteractiveShell True"


def test_pictures_are_shown(home: Home, cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "plots"
    notebook(
        folder / "main.ipynb", "import matplotlib.pyplot as plt", "plt.plot([1, 2]);", "plt.get_backend()"
    )
    (folder / "requirements.txt").write_text("matplotlib\n")
    cli("up", folder, "-n", "0", "--label", "main", check=True)
    warm(cli)
    cli("run", "main", "main.ipynb", check=True)
    _, second, third = json.loads((folder / "main.ipynb").read_text())["cells"]
    assert "image/png" in second["outputs"][0]["data"]
    assert "inline" in third["outputs"][0]["data"]["text/plain"][0]


def test_a_jupyter_of_ones_own(home: Home, tmp_path: Path) -> None:
    """As the how-to page says, from an empty environment on."""
    venv = tmp_path / "venv"
    tool = uv.find_uv_bin()
    source = tmp_path / "source"  # an installation writes beside its sources
    ignored = shutil.ignore_patterns(".*", "*.egg-info", "build")
    shutil.copytree(CHECKOUT / "builder", source / "builder", ignore=ignored)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, source)
    env = home.environ | {"UV_CACHE_DIR": str(CACHE / "uv")}
    for words in (
        ("venv", "--python", sys.executable, venv),
        ("pip", "install", "--python", venv, "jupyter-server", "ipykernel", "threadpoolctl"),
        ("pip", "install", "--python", venv, "--no-deps", source),
    ):
        subprocess.run([tool, *words], env=env, check=True, capture_output=True)
    kernels = venv / "share" / "jupyter" / "kernels" / "at-once"
    kernels.mkdir(parents=True)
    (kernels / "kernel.json").write_text(json.dumps(spec(venv / "bin" / "python", "colorsys")))
    port = ports.viewer("127.0.0.1", ())
    log = tmp_path / "server.log"
    words = [
        "-m",
        "jupyter_server",
        "--no-browser",
        "--allow-root",
        f"--port={port}",
        "--IdentityProvider.token=abc",
    ]
    with (
        log.open("w") as out,
        subprocess.Popen(
            [venv / "bin" / "python", *words], cwd=home.path, env=home.environ, stdout=out, stderr=out
        ) as server,
    ):
        try:
            until(lambda: "preloaded in" in log.read_text(), "the pool is there by itself")
            workspace = Workspace(f"http://127.0.0.1:{port}/", "abc")
            cell = {"cell_type": "code", "source": f"{HOW}\n{LOADED}", "metadata": {}, "outputs": []}
            content = {"cells": [cell], "metadata": {"kernelspec": {"name": "at-once"}}}
            assert workspace.execute("own.ipynb", content) is None
        finally:
            server.terminate()
    said = str(cell["outputs"])
    assert FORKED in said
    assert "True" in said
