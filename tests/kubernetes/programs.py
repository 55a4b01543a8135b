"""The programs of a Kubernetes node, made with Go from the module proxy; ``python -m tests.kubernetes.programs``.

Nobody publishes them in a package registry, and their modules are there. It takes some minutes, once for all
checkouts of a user. They are in ``IPYTHON_BUILDER_TEST_KUBERNETES``, or else in the user's cache.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.daemons import locked

VERSION = "1.34.1"
COREDNS = "1.12.4"
GO = (1, 24)  # what these versions ask for
KUBERNETES = (
    *("kubectl", "kubelet", "kube-apiserver", "kube-controller-manager", "kube-scheduler"),
    "kube-proxy",
)
PROGRAMS = (*KUBERNETES, "coredns")
# As it was before a test had a home of its own.
ENVIRON = dict(os.environ)


class NotMade(Exception):
    """The programs are not there and cannot be made; the message says what is missing."""


def folder() -> Path:
    """Where the programs are, or will be."""
    if named := ENVIRON.get("IPYTHON_BUILDER_TEST_KUBERNETES"):
        return Path(named).absolute()
    cache = Path(ENVIRON.get("XDG_CACHE_HOME") or Path(ENVIRON.get("HOME", "/root")) / ".cache")
    return cache / "ipython-builder-tests" / f"kubernetes-{VERSION}-coredns-{COREDNS}"


def made() -> Path:
    """The folder of the programs; makes them where they are not there, and says so on stderr.

    Several processes make them once. Half a folder is never seen: it gets its name at the end.

    Raises:
        NotMade: there is no Go, or it failed.
    """
    final = folder()
    if complete(final):
        return final
    with locked(final.with_name(f"{final.name}.lock")):
        if complete(final):
            return final
        go = find_go()
        for left in final.parent.glob(f".{final.name}-*"):  # of one that was interrupted
            shutil.rmtree(left, ignore_errors=True)
        work = Path(tempfile.mkdtemp(prefix=f".{final.name}-", dir=final.parent))
        try:
            make(go, work)
            shutil.rmtree(final, ignore_errors=True)
            (work / "bin").rename(final)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return final


def complete(programs: Path) -> bool:
    return all(os.access(programs / name, os.X_OK) for name in PROGRAMS)


def find_go() -> str:
    """A Go that is new enough; one from 1.21 on fetches the one that it needs from the module proxy itself.

    Raises:
        NotMade: there is none.
    """
    found = [shutil.which("go", path=ENVIRON.get("PATH")), "/usr/local/go/bin/go"]
    for go in filter(None, found):
        said = subprocess.run([go, "version"], capture_output=True, text=True, env=ENVIRON, check=False).stdout \
            if os.access(go, os.X_OK) else ""  # fmt: skip
        version = re.search(r"go(\d+)\.(\d+)", said)
        fetches = (
            ENVIRON.get("GOTOOLCHAIN") != "local" and version and tuple(map(int, version.groups())) >= (1, 21)
        )
        if version and (fetches or tuple(map(int, version.groups())) >= GO):
            return go
    need = ".".join(map(str, GO))
    raise NotMade(f"Go {need} or newer (https://go.dev/dl), or a folder of Kubernetes programs made with one")


def make(go: str, work: Path) -> None:
    """Make all programs into ``work/bin``."""
    kubernetes, dns = work / "kubernetes", work / "coredns"
    require = [f"k8s.io/kubernetes@v{VERSION}"]
    # In its own repository Kubernetes takes its parts from folders; in the proxy they are modules of this version.
    module = json.loads(run(go, kubernetes, "mod", "download", "-json", *require))["GoMod"]
    described: dict[str, Any] = json.loads(run(go, kubernetes, "mod", "edit", "-json", module))
    parts = [
        one["Old"]["Path"] for one in described["Replace"] if one["New"]["Path"].startswith("./staging/")
    ]
    run(go, kubernetes, "mod", "init", "programs")
    edit = [f"-replace={part}={part}@v0.{VERSION.removeprefix('1.')}" for part in parts]
    edit += [f"-go={described['Go']}", f"-godebug=default=go{described['Go'].removesuffix('.0')}"]
    run(go, kubernetes, "mod", "edit", *edit)
    run(go, kubernetes, "get", *require)
    run(go, dns, "mod", "init", "programs")
    run(go, dns, "get", f"github.com/coredns/coredns@v{COREDNS}")

    major, minor, _ = VERSION.split(".")
    said = {"gitVersion": f"v{VERSION}", "gitMajor": major, "gitMinor": minor}
    says = " ".join(f"-X k8s.io/component-base/version.{name}={value}" for name, value in said.items())
    for number, name in enumerate(PROGRAMS, 1):
        print(f"making {name} ({number} of {len(PROGRAMS)})", file=sys.stderr, flush=True)
        where, package = (
            (kubernetes, f"k8s.io/kubernetes/cmd/{name}")
            if name in KUBERNETES
            else (dns, "github.com/coredns/coredns")
        )
        out = str(work / "bin" / name)
        run(go, where, "build", "-trimpath", "-ldflags", f"-s -w {says}", "-o", out, package)


def run(go: str, where: Path, *words: str) -> str:
    """What go says on its standard output; its standard error is shown.

    Raises:
        NotMade: it failed.
    """
    where.mkdir(exist_ok=True)
    env = ENVIRON | {"CGO_ENABLED": "0", "GOFLAGS": "-mod=mod", "GOWORK": "off"}
    done = subprocess.run(
        [go, *words],
        cwd=where,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise NotMade(f"a Kubernetes that can be made ('go {words[0]}' failed:\n{done.stderr[-2000:]})")
    return done.stdout


if __name__ == "__main__":
    print(made())
