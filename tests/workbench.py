"""Small things that the end-to-end tests make: notebooks, wheels, and programs run inside a cluster."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat

from tests.conftest import Cli


def notebook(path: Path, *cells: str, kernel: str = "python3") -> Path:
    """A notebook with these code cells."""
    content = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell) for cell in cells],
        metadata={"kernelspec": {"name": kernel, "display_name": kernel, "language": "python"}},
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(content, path)
    return path


def outputs(path: Path) -> list[str]:
    """The last text output of every code cell that has one."""
    found = []
    for cell in json.loads(path.read_text())["cells"]:
        texts = [
            "".join(output.get("text") or output.get("data", {}).get("text/plain") or [])
            for output in cell.get("outputs", [])
        ]
        if texts:
            found.append(texts[-1].strip())
    return found


def wheel(folder: Path, name: str, version: str, **modules: str) -> Path:
    """A wheel with these modules."""
    info = f"{name}-{version}.dist-info"
    members = {f"{module}.py": text for module, text in modules.items()} | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = []
    for member, text in members.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        rows.append(f"{member},sha256={digest},{len(text.encode())}")
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, text in members.items():
            archive.writestr(member, text)
        archive.writestr(f"{info}/RECORD", "\n".join([*rows, f"{info}/RECORD,,", ""]))
    return path


def console(cli: Cli, label: str, code: str) -> str:
    """What a program prints that runs in the cluster's console."""
    return cli("console", label, "--no-banner", "-c", code, check=True).stdout.strip()


def pid_of(cli: Cli, label: str, role: str, number: int = 0) -> int:
    """The process of a role."""
    roles = cli("status", label, "--json").json["roles"]
    return next(one["pid"] for one in roles if one["role"] == role and one["id"] == number)


def until(condition: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    """Wait for something that must become true; `seconds` only ends a test that would never end."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.1)
    raise AssertionError(f"did not happen within {seconds:.0f} s: {what}")


def git(folder: Path, *words: str) -> str:
    """Run git in a folder as somebody."""
    identity = ["-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "init.defaultBranch=main"]
    return subprocess.run(
        ["git", *identity, *words], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()
