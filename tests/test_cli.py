"""The manners of the command line, as a process of its own."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ipython_builder import cli as table
from ipython_builder._version import __version__
from tests.conftest import Cli, Home

# What `--help` may not cost: each of them takes longer than the rest of it.
HEAVY = [
    *("requests", "git", "rich", "zmq", "argon2", "nbformat", "packaging", "yaml", "uv", "asyncio"),
    *("jupyter_kernel_client", "tomllib", "subprocess", "ipython_builder.platforms", "ipython_builder.spec"),
]

GROUPS = ["s2i", "template"]


def verbs_of(group: str) -> dict[str, str]:
    found: dict[str, str] = importlib.import_module(f"ipython_builder.cli.{group}").VERBS
    return found


def test_help_lists_all_verbs(cli: Cli) -> None:
    said = cli("--help", check=True)
    for name, help in table.VERBS.items():
        assert f"  {name} " in said.stdout
        assert help in said.stdout
    assert "Examples:" in said.stdout
    assert said.stderr == ""
    assert cli("-h").stdout == said.stdout


def test_help_imports_no_verb_and_nothing_heavy(home: Home) -> None:
    program = (
        "import sys; from ipython_builder.cli import exit_code; code = exit_code(['--help'])\n"
        "print(code, *sorted(sys.modules), file=sys.stderr)"
    )
    words = [sys.executable, "-P", "-c", program]
    done = subprocess.run(words, env=home.environ, capture_output=True, text=True, check=True)
    code, *modules = done.stderr.split()
    assert code == "0"
    assert [name for name in modules if name.startswith("ipython_builder.cli.")] == []
    assert set(modules) & set(HEAVY) == set()


@pytest.mark.parametrize("verb", table.VERBS)
def test_every_verb_explains_itself(cli: Cli, verb: str) -> None:
    said = cli(verb, "--help", check=True)
    usage, _, rest = said.stdout.partition("\n")
    assert usage.startswith(f"Usage: ipython-builder {verb}")
    # A sentence, then the options that every verb has.
    assert rest.strip().split("\n")[0].strip()[0].isupper()
    if verb not in GROUPS:  # their own verbs have them, where they make sense
        assert ("--json" in rest) == (verb not in ("logs", "console")), "they print no object"
        assert "--progress" in rest
    assert said.stderr == ""
    # The table shows what the verb itself says in short.
    assert table.cli.get_command(None, verb).short_help == table.VERBS[verb]  # type: ignore[union-attr,arg-type]


@pytest.mark.parametrize(("group", "verb"), [(group, verb) for group in GROUPS for verb in verbs_of(group)])
def test_verbs_of_groups_explain_themselves(cli: Cli, group: str, verb: str) -> None:
    said = cli(group, verb, "--help", check=True)
    assert said.stdout.startswith(f"Usage: ipython-builder {group} {verb}")
    assert verbs_of(group)[verb] in cli(group, "--help").stdout
    if group != "s2i":  # for scripts, which need no examples
        assert f"ipython-builder {group} {verb}" in said.stdout.partition("Examples:")[2]


@pytest.mark.parametrize("verb", [name for name in table.VERBS if name != "s2i"])
def test_verbs_teach_by_example(cli: Cli, verb: str) -> None:
    assert f"ipython-builder {verb} " in cli(verb, "--help").stdout.partition("Examples:")[2]


@pytest.mark.parametrize("words", [["console", "a", "--json"], ["logs", "--json"]])
def test_what_prints_text_has_no_object(cli: Cli, words: list[str]) -> None:
    said = cli(*words)
    assert said.rc == 2
    assert "--json" in said.json["error"]["message"]


def test_version(cli: Cli) -> None:
    assert cli("--version", check=True).stdout == f"ipython-builder {__version__}\n"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("stats", "status"), ("dwon", "down"), ("chekc", "check"), ("lsx", "ls"), ("UP", None)],
)
def test_a_typo_is_answered_with_the_nearest_verb(cli: Cli, typed: str, meant: str | None) -> None:
    said = cli(typed)
    assert said.rc == 2
    assert said.stdout == ""
    assert f"No such command '{typed}'" in said.stderr
    if meant:
        assert f"Did you mean '{meant}'?" in said.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Usage:"),
        (["up", "--engine", "4"], "--engines"),
        (["up", "-n", "many"], "'many' is not a valid integer"),
        (["up", "--port", "70000"], "70000"),
        (["up", ".", "elsewhere"], "elsewhere"),
        (["scale", "a"], "N"),
        (["scale", "a", "few"], "few"),
        (["scale", "a", "-1"], "-1 engines"),
        (["run", "a"], "NOTEBOOK"),
        (["run", "a", "b.ipynb", "--timeout", "0"], "0"),
        (["run", "a", "b.ipynb", "--cells", "x"], "--cells x"),
        (["logs", "a", "--last", "-3"], "-3"),
        (["ls", "--progress", "loud"], "loud"),
        (["status", "NotALabel"], "'NotALabel' is not allowed"),
        (["down", "a" * 64], "is not allowed"),
        (["up", ".", "--label", "Capital"], "'Capital' is not allowed"),
        (["up", ".", "--user", "a_b"], "'a_b' is not allowed as a user label"),
        (["status", "nobody"], "there is no cluster 'nobody'"),
        (["down"], "no cluster runs on this machine"),
        (["down", "--all", "a"], "exclude each other"),
        (["up", "--upload-pack=/bin/sh"], "--upload-pack"),
        (["up", ".", "--ref", "-x"], "begins with '-'"),
        (["up", ".", "--ref=--upload-pack=x"], "give a branch, a tag or a commit's hash"),
        (["down", "nobody", "either"], "nobody"),
        (["up", ".", "--with", "six @ https://me:s3cret@host/six.whl"], "netrc"),
        (["up", "ext::sh -c id"], "remote helper"),
    ],
)
def test_what_cannot_be_meant(cli: Cli, words: list[str], said: str) -> None:
    answer = cli(*words)
    assert answer.rc == 2
    assert answer.stdout == ""
    assert said in answer.stderr
    assert "Traceback" not in answer.stderr
    assert not cli.home.clusters.exists() or list(cli.home.clusters.glob("[!.]*")) == []


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["status", "nobody", "--json"], 2),
        (["up", "/no/such/folder", "--json"], 3),
        (["ls", "--nonsense", "--json"], 2),
        (["check", "/no/such/folder", "--json"], 3),
    ],
)
def test_a_program_gets_the_error_as_an_object(cli: Cli, words: list[str], code: int) -> None:
    said = cli(*words)
    assert said.rc == code
    error = said.json["error"]
    assert error["exit_code"] == code
    assert error["message"]
    assert error["message"] in said.stderr


def test_no_clusters(cli: Cli) -> None:
    assert cli("ls", "--json", check=True).json == []
    said = cli("ls", check=True)
    assert said.stdout == ""
    assert "ipython-builder up" in said.stderr
    assert cli("down", "--all", "--json", check=True).json == {"down": [], "kept": {}}


def test_a_bad_settings_file_is_named_by_every_verb_and_by_no_help(cli: Cli, home: Home) -> None:
    path = home.path / "config" / "ipython-builder" / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text("python = 3.12\n")
    for verb in ("ls", "up", "prune"):
        said = cli(verb)
        assert said.rc == 2
        assert f"python in {path} must be a text" in said.stderr
    cli("up", "--help", check=True)


def test_a_state_folder_that_cannot_be_made(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = cli("up", ".", env={"IPYTHON_BUILDER_STATE_DIR": str(tmp_path / "file" / "state")})
    assert said.rc == 1
    assert "Not a directory" in said.stderr
    assert "IPYTHON_BUILDER_STATE_DIR" in said.stderr


def test_a_password_file(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\nsecond line\n")
    for name, said in (("empty", "is empty"), ("none", "cannot be read")):
        answer = cli("up", ".", "--password-file", tmp_path / name)
        assert answer.rc == 2
        assert said in answer.stderr
        assert "second line" not in answer.stderr


def test_who_closes_the_pipe_has_seen_enough(home: Home) -> None:
    """`ipython-builder --help | head -1`, with no complaint."""
    words = [sys.executable, "-P", "-m", "ipython_builder", "--help"]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(words, env=home.environ, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert done.stderr == ""


def test_ctrl_c_is_said_once_and_is_130(cli: Cli, tmp_path: Path) -> None:
    """While it waits for a git server that never answers."""
    import socket

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        process = cli.start("up", f"git://127.0.0.1:{server.getsockname()[1]}/a.git", "--label", "cut")
        with server.accept()[0]:
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate()
    assert process.returncode == 130
    assert stderr.splitlines()[-1] == "interrupted"
    assert "Traceback" not in stderr
    assert not (cli.home.clusters / "cut").exists()
    assert not list(cli.home.settings.data_dir.rglob("cut"))


def test_completion_knows_verbs_and_labels(cli: Cli, home: Home) -> None:
    for label in ("thesis", "course"):
        (home.clusters / label).mkdir(parents=True)
    environ = {"_IPYTHON_BUILDER_COMPLETE": "bash_complete", "COMP_CWORD": "1"}
    verbs = cli(env=environ | {"COMP_WORDS": "ipython-builder st"}).stdout
    assert verbs.split() == ["plain,status"]
    for words in ("down", "scale", "run", "console", "logs", "status", "password"):
        typed = environ | {"COMP_WORDS": f"ipython-builder {words} t", "COMP_CWORD": "2"}
        assert cli(env=typed).stdout.split() == ["plain,thesis"], words
    (home.clusters / "thesis" / "logs").mkdir()
    for name in ("node", "engine-0", "engine-1"):
        (home.clusters / "thesis" / "logs" / f"{name}.log").write_text(f"of {name}\n")
    roles = cli(env=environ | {"COMP_WORDS": "ipython-builder logs thesis ", "COMP_CWORD": "3"}).stdout
    assert roles.split() == ["plain,engine", "plain,engine-0", "plain,engine-1", "plain,supervisor"]
    nearest = cli("logs", "thesis", "enginee")
    assert (nearest.rc, "did you mean engine?" in nearest.stderr) == (2, True)
    (home.clusters / "course").rmdir()
    assert cli("logs", "engine-1", check=True).stdout == "of engine-1\n"


def test_a_label_that_is_not_there_is_said_once(cli: Cli) -> None:
    said = cli("down", "nobody")
    assert said.rc == 2
    assert said.stderr.count("there is no cluster") == 1


def test_several_labels_go_down_at_once(cli: Cli, home: Home) -> None:
    for label in ("one", "two", "three"):
        (home.clusters / label).mkdir(parents=True)
    assert cli("down", "one", "three", "--json", check=True).json["down"] == ["one", "three"]
    assert [path.name for path in home.clusters.glob("[!.]*")] == ["two"]


ELSEWHERE = """
import signal, sys
sys.platform = "darwin"
del signal.SIGHUP
sys.modules["fcntl"] = None
from ipython_builder.cli import exit_code
sys.exit(exit_code(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    "words",
    [
        ["up", "/no/such/folder"],
        ["ls"],
        ["status"],
        ["down", "--all"],
        ["prune"],
        ["logs"],
        ["scale", "a", "1"],
    ],
    ids=lambda words: words[0],
)
def test_elsewhere_than_on_linux_verbs_say_so(words: list[str], home: Home) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", ELSEWHERE, *words], env=home.environ, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "need Linux" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", [["--help"], ["up", "--help"], ["check", "."], ["lock", "--help"]])
def test_elsewhere_than_on_linux_some_work(words: list[str], home: Home, tmp_path: Path) -> None:
    (tmp_path / "repository").mkdir()
    done = subprocess.run(
        [sys.executable, "-P", "-c", ELSEWHERE, *words],
        env=home.environ, capture_output=True, text=True, cwd=tmp_path / "repository",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_in_a_clusters_own_terminal_its_label_is_nobodys_wish(cli: Cli, home: Home) -> None:
    inside = {"IPYTHON_CLUSTER_LABEL": "Not-Allowed", "IPYTHON_USER_LABEL": "Nor-This"}
    assert cli("up", "/no/such/folder", env=inside).rc == 2
    said = cli("up", "/no/such/folder", env=inside | {"IPYTHON_CLUSTER_HOME": str(home.clusters / "main")})
    assert said.rc == 3, "nothing is said of the labels"


def test_a_cache_that_cannot_be_made(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "repository").mkdir()
    cache = tmp_path / "file" / "cache"
    said = cli("up", tmp_path / "repository", env={"IPYTHON_BUILDER_CACHE_DIR": str(cache)})
    assert said.rc == 1
    assert f"the cache {cache} cannot be made" in said.stderr
    assert "IPYTHON_BUILDER_CACHE_DIR" in said.stderr
    assert "space" not in said.stderr


def test_the_installed_command_is_this_one(home: Home) -> None:
    command = Path(sys.executable).with_name("ipython-builder")
    if not command.exists():
        pytest.skip("the tool is not installed beside this Python")
    done = subprocess.run(
        [command, "--version"], env=home.environ, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"ipython-builder {__version__}\n"


def test_progress_as_objects_goes_to_stderr_and_the_result_to_stdout(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "repository").mkdir()
    said = cli("check", tmp_path / "repository", "--json", "--progress", "json", check=True)
    assert said.json
    assert all(json.loads(line)["kind"] for line in said.stderr.splitlines())
