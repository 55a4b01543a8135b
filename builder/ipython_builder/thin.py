"""A cluster's own environment over a shared one: where `%pip install` in a notebook writes, and only it sees.

A link to the interpreter, ``pyvenv.cfg``, a ``.pth`` to the shared site-packages, and the scripts: made in
milliseconds. pip takes what is below for installed and leaves it alone; what is put here comes first.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
from pathlib import Path

from ipython_builder.environment import Environment, site_packages

_SCRIPTS = (
    ".scripts.json"  # name -> hash of the scripts that came from below and were not written by pip since
)


def make(environment: Environment, path: Path) -> None:
    """Put a thin environment at `path` over `environment`.

    One that is there keeps what was installed into it if it is for the same Python; else it is made anew.
    """
    packages = site_packages(path, environment.python)
    if path.exists() and not packages.is_dir():
        shutil.rmtree(path)
    packages.mkdir(parents=True, exist_ok=True)
    (path / "bin").mkdir(exist_ok=True)
    base = environment.python.path
    settings = {
        "home": base.parent,
        "include-system-site-packages": "false",
        "version": environment.python.version,
    }
    _write(path / "pyvenv.cfg", "".join(f"{name} = {value}\n" for name, value in settings.items()).encode())
    # addsitedir, not a plain path: the .pth files of the shared environment count too.
    _write(
        packages / "_ipython_builder_shared.pth",
        f"import site; site.addsitedir({str(environment.site_packages)!r})\n".encode(),
    )
    minor = f"python3.{environment.python.minor}"
    for name in ("python", "python3", minor):
        link = path / "bin" / name
        if not link.is_symlink() or link.readlink() != base:
            half = _half(link)
            half.symlink_to(base)
            half.replace(link)
    _copy_scripts(environment, path)


def _copy_scripts(environment: Environment, path: Path) -> None:
    """Scripts such as pip and ipython must run here and not below, so they name this place instead."""
    listing = path / _SCRIPTS
    try:
        before: dict[str, str] = json.loads(listing.read_text())
    except (OSError, ValueError):
        before = {}  # a first time, or one that was cut off
    ours = {name for name, digest in before.items() if _is(path / "bin" / name, digest)}
    below, here = bytes(environment.path), bytes(path)
    copied = {}
    for script in sorted(environment.bin.iterdir()):
        target = path / "bin" / script.name
        if script.is_symlink() or not script.is_file() or (target.exists() and script.name not in ours):
            continue
        head, newline, body = script.read_bytes().partition(b"\n")
        if head.startswith(b"#!") and (below in head or below in body[:512]):
            text = _first_line(head.replace(below, here)) + newline + body.replace(below, here)
            _write(target, text, 0o755)
            copied[script.name] = _hash(text)
    for name in ours - set(copied):
        (path / "bin" / name).unlink()  # of an environment that is no longer the one below
    _write(listing, json.dumps(copied).encode())


def _is(script: Path, digest: str) -> bool:
    return script.is_file() and _hash(script.read_bytes()) == digest


def _write(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Have this file, whole or not at all: others read it, and on a full disk the old one stays."""
    if path.is_file() and not path.is_symlink() and path.read_bytes() == content:
        return
    half = _half(path)
    try:
        half.write_bytes(content)
        half.chmod(mode)
        half.replace(path)
    except OSError:
        half.unlink(missing_ok=True)
        raise


def _half(path: Path) -> Path:
    half = path.with_name(f".{path.name}.{os.getpid()}")
    half.unlink(missing_ok=True)
    return half


def _first_line(line: bytes) -> bytes:
    """A ``#!`` line takes no space in its path, and on some systems 127 bytes; a shell takes any."""
    if len(line) <= 127 and b" " not in line.rpartition(b"/bin/")[0]:
        return line
    # For Python the two lines are one text that nobody uses.
    python = shlex.quote(os.fsdecode(line[2:]))
    return os.fsencode(f"""#!/bin/sh\n'''exec' {python} "$0" "$@"\n' '''""")


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
