"""The one door to subprocesses, with real ones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipython_builder import commands, processes
from ipython_builder.errors import BuilderError, Transient
from tests.workbench import until

PYTHON = [sys.executable, "-I", "-c"]

# -- redaction -----------------------------------------------------------------------------------

SECRET_TEXTS = [
    ("https://user:hunter2@host/simple", "https://***@host/simple"),
    ("https://hunter2@host/simple", "https://***@host/simple"),
    ("git+https://oauth2:hunter2@host/me/nb.git@v1", "git+https://***@host/me/nb.git@v1"),
    ("two: http://a:hunter2@x/ and http://b:hunter2@y/", "two: http://***@x/ and http://***@y/"),
    ("'https://user:hunter2@host' failed", "'https://***@host' failed"),
    ("https://user:p@hunter2@host/x", "https://***@host/x"),
    ("ssh://git:hunter2@host:22/x", "ssh://***@host:22/x"),
    ("HTTPS://U:hunter2@HOST", "HTTPS://***@HOST"),
]


@pytest.mark.parametrize(("text", "shown"), SECRET_TEXTS)
def test_credentials_in_a_url_are_not_shown(text: str, shown: str) -> None:
    assert commands.redact(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "https://host/me@work/nb.git",
        "me@example.org, see https://host/",
        "six @ https://host/six.whl",
        "git@host:me/nb.git",
        "no URL at all: a@b",
        "",
    ],
)
def test_what_is_no_credential_stays(text: str) -> None:
    assert commands.redact(text) == text


def test_known_secrets_are_hidden_wherever_they_stand() -> None:
    assert commands.redact("token=abc, again abc", ["abc", ""]) == "token=***, again ***"


names = st.text("abcdefghijklmnopqrstuvwxyzABC0123456789._~!$&()*+,;=:%-", min_size=1, max_size=20)


@given(names, st.text(max_size=30), st.text(max_size=30))
def test_no_password_of_a_url_is_ever_shown(word: str, before: str, after: str) -> None:
    secret = f"S3CR3T{word}"
    assert secret not in commands.redact(f"{before} https://user:{secret}@host/{after}")


@given(st.text(max_size=80))
def test_redacting_twice_is_redacting_once(text: str) -> None:
    once = commands.redact(text)
    assert commands.redact(once) == once


# -- running -------------------------------------------------------------------------------------


def test_what_it_printed_and_how_it_ended() -> None:
    program = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    result = commands.run([*PYTHON, program])
    assert (result.returncode, result.stdout, result.stderr) == (3, "out\n", "err")
    assert result.argv == (*PYTHON, program)


def test_lines_come_one_by_one_and_redacted() -> None:
    program = (
        "import sys; print('from https://u:pw@host\\nkey abc', file=sys.stderr); print('abc https://u:pw@h')"
    )
    lines: list[str] = []
    result = commands.run([*PYTHON, program], on_line=lines.append, secrets=["abc"])
    assert lines == ["from https://***@host", "key ***"]
    assert result.stdout == "*** https://***@h\n"
    assert result.stderr == "\n".join(lines)


def test_more_than_a_pipe_holds_on_both_sides() -> None:
    program = "import sys; sys.stderr.write('e' * 999999 + '\\n'); print(len(sys.stdin.read()) * 'o')"
    result = commands.run([*PYTHON, program], stdin="i" * 500_000)
    assert (len(result.stdout), len(result.stderr)) == (500_001, 999_999)


def test_bytes_that_are_no_text() -> None:
    result = commands.run([*PYTHON, "import sys; sys.stdout.buffer.write(b'a\\xff')"])
    assert result.stdout == "a�"


def test_nothing_waits_for_a_person() -> None:
    assert commands.run([*PYTHON, "import sys; print(repr(sys.stdin.read()))"]).stdout == "''\n"


def test_a_program_that_does_not_read_what_it_is_given() -> None:
    result = commands.run([*PYTHON, "import sys; sys.stdin.close(); sys.exit(4)"], stdin="x" * 1_000_000)
    assert result.returncode == 4


def test_environment_and_folder_are_what_was_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOO_TOKEN", "secret")
    program = "import os; print(sorted(os.environ), os.getcwd())"
    words = [os.path.realpath(sys.executable), "-I", "-c", program]
    alone = commands.run(words, env={"A": "1", "LC_ALL": "C.UTF-8"}, cwd=tmp_path)
    assert alone.stdout == f"['A', 'LC_ALL'] {tmp_path}\n"
    assert "FOO_TOKEN" in commands.run(words).stdout


def test_check_shows_the_end_of_what_was_said_without_secrets() -> None:
    program = "import sys\nfor n in range(99): print(n, 'abc', file=sys.stderr)\nsys.exit(5)"
    with pytest.raises(BuilderError) as caught:
        commands.run([*PYTHON, program], secrets=["abc"], check=True)
    assert "ended with 5" in caught.value.message
    assert caught.value.message.endswith("98 ***")
    assert "\n0 ***" not in caught.value.message
    assert "abc" not in caught.value.message


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BuilderError, match=r"cannot run /no/such/program: .* is not there") as caught:
        commands.run(["/no/such/program"])
    assert caught.value.hint
    with pytest.raises(BuilderError, match=f"{tmp_path}/gone is not there"):
        commands.run(["true"], cwd=tmp_path / "gone")


def test_a_file_that_is_no_program(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    with pytest.raises(BuilderError, match="Permission denied"):
        commands.run([tmp_path / "text"])
    (tmp_path / "text").chmod(0o755)
    with pytest.raises(BuilderError, match="Exec format error"):
        commands.run([tmp_path / "text"])


# -- ending --------------------------------------------------------------------------------------

# Starts a child that ignores what can be ignored, says both pids, and waits.
FAMILY = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
program = "import signal, time; [signal.signal(s, signal.SIG_IGN) for s in (1, 2, 15)]; time.sleep(3600)"
child = subprocess.Popen([sys.executable, "-c", program])
with open(sys.argv[1] + ".half", "w") as file: file.write(f"{os.getpid()} {child.pid}")
os.rename(sys.argv[1] + ".half", sys.argv[1])
print("ready", file=sys.stderr, flush=True)
time.sleep(3600)
"""


def pids(path: Path) -> list[int]:
    return [int(word) for word in path.read_text().split()]


def gone(family: list[int]) -> None:
    """Both end: a killed process is there for a moment longer than its killer."""
    assert len(family) == 2
    until(lambda: not any(processes.alive(pid) for pid in family), "the end of the whole group")


def test_a_timeout_ends_the_whole_group(tmp_path: Path) -> None:
    # Long enough that both are there on a slow machine; only that it ends is asserted.
    with pytest.raises(Transient, match="did not finish within 5 s"):
        commands.run([*PYTHON, FAMILY, tmp_path / "pids"], timeout=5)
    gone(pids(tmp_path / "pids"))


def test_an_error_in_the_middle_ends_the_whole_group(tmp_path: Path) -> None:
    """Ctrl-C: the caller gets a KeyboardInterrupt while it waits, and nothing is left running."""
    caller = (
        "import sys; from ipython_builder import commands\n"
        "say = lambda line: print(line, flush=True)\n"
        "commands.run([sys.executable, '-I', '-c', sys.argv[1], sys.argv[2]], on_line=say)"
    )
    words = [sys.executable, "-c", caller, FAMILY, str(tmp_path / "pids")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert "KeyboardInterrupt" in process.stderr.read()
        assert process.wait() != 0
    gone(pids(tmp_path / "pids"))


def test_a_terminals_ctrl_c_reaches_it_through_us_only() -> None:
    """It leads a group of its own: else uv would be interrupted twice, the second time in its cleaning up."""
    result = commands.run([*PYTHON, "import os; print(os.getpid() == os.getsid(0), os.getsid(0))"])
    leads, session = result.stdout.split()
    assert leads == "True"
    assert int(session) != os.getsid(0)


def test_who_is_killed_leaves_no_command_and_no_folder(tmp_path: Path) -> None:
    """Two commands at once, each with a child that is in nobody's care."""
    program = """
import sys, threading
from ipython_builder import commands
def work(name):
    with commands.scratch() as folder, commands.scratch() as other:
        (folder / "file").touch()
        words = ["sh", "-c", f"echo $$ > {name}.1; (echo {folder} {other} > {name}.2; sleep 600); true"]
        commands.run(words)
commands.run(["true"])
for name in sys.argv[1:]:
    threading.Thread(target=work, args=[name]).start()
"""
    names = [str(tmp_path / name) for name in ("one", "two")]
    process = subprocess.Popen([sys.executable, "-P", "-c", program, *names])
    files = [Path(f"{name}.2") for name in names]
    until(lambda: all(file.exists() and file.read_text() for file in files), "both run")
    groups = {int(Path(f"{name}.1").read_text()) for name in names}
    folders = [Path(folder) for file in files for folder in file.read_text().split()]
    assert all(folder.is_dir() for folder in folders)
    process.kill()
    process.wait()
    until(lambda: not any(map(processes.alive, groups)), "the commands have ended")
    until(lambda: not any(map(os.path.exists, folders)), "the folders are gone")
    until(lambda: not _members(groups), "what they had started has ended")


def _members(groups: set[int]) -> list[int]:
    found = []
    for entry in os.listdir("/proc"):
        try:
            fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
        except (OSError, NotADirectoryError):
            continue
        if len(fields) > 2 and int(fields[2]) in groups and fields[0] != "Z":
            found.append(int(entry))
    return found


def test_a_group_that_is_gone_is_no_error() -> None:
    child = subprocess.Popen(["true"], start_new_session=True)
    child.wait()
    commands.kill_group(child.pid)
