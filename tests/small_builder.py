"""A builder image of a few megabytes: this machine's shell, and a script in place of the tool in it.

What engines do with layers, names, secrets and failures shows with it in a second. What the tool itself does in an
image is tested with the real one.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

PROGRAMS = (
    *("sh", "cp", "rm", "cat", "ls", "sleep", "mkdir", "id", "stat", "env", "tail", "touch", "grep"),
    *("tar", "truncate"),
)
# A requirement tells it what to do.
TOOL = """#!/bin/sh
echo "tool: $*: $(id -u)"
asked=/tmp/src/.ipython-builder/request.json
if [ -f /run/secrets/ipython-builder/config.toml ]; then
    echo "config: $(cat /run/secrets/ipython-builder/config.toml)"
    cat /run/secrets/ipython-builder/ca.crt > /dev/null && echo "authorities are there"
fi
case "$*" in
*--dependencies)
    if grep -q nosuchpackage $asked; then
        echo "error: the requirements cannot be had together:" >&2
        echo "  nosuchpackage is nowhere" >&2
        echo " next: change the requirement" >&2
        exit 3
    fi
    if grep -q slowpackage $asked; then echo waiting; sleep 3600; fi
    if grep -q fullpackage $asked; then cat /dev/zero > /opt/app-root/dependencies; fi
    cp $asked /opt/app-root/dependencies ;;
*--source) ls /opt/app-root/src > /opt/app-root/after ;;
*) cp -R /tmp/src/. /opt/app-root/src; env > /opt/app-root/everything ;;
esac
"""
TEXT = """FROM scratch
COPY root/ /
COPY --chown=1001:0 opt/ /opt/
LABEL {label}=image:///usr/libexec/s2i
USER 1001
CMD ["/usr/libexec/s2i/run"]
"""


def write(folder: Path, label: str = "io.openshift.s2i.scripts-url") -> Path:
    """The context of that image, which is built from it by any engine; `folder` is made."""
    root = folder / "root"
    for name in ("src", "etc"):
        (folder / "opt/app-root" / name).mkdir(parents=True)
        (folder / "opt/app-root" / name).chmod(0o775)
    (folder / "opt/app-root").chmod(0o775)
    files = {Path(found).resolve() for name in PROGRAMS if (found := shutil.which(name))}
    said = subprocess.run(["ldd", *files], capture_output=True, text=True, check=True).stdout
    files |= {Path(word) for word in re.findall(r"/\S+(?= \(0x)", said)}
    for path in files:
        _add(root, path.as_posix(), path)
    for name in PROGRAMS:
        _add(root, f"/bin/{name}", Path(shutil.which(name) or "/nowhere").resolve())
    scripts = {
        "/bin/ipython-builder": TOOL,
        "/usr/libexec/s2i/assemble": "#!/bin/sh\numask 0002\nexec ipython-builder s2i assemble\n",
        "/usr/libexec/s2i/run": "#!/bin/sh\nexec sleep 3600\n",
    }
    for name, text in scripts.items():
        path = root / name.removeprefix("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    (root / "etc").mkdir(exist_ok=True)
    (root / "run/secrets").mkdir(parents=True)  # s2i puts files into folders that are there
    (root / "etc/passwd").write_text("root:x:0:0:root:/:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    (root / "tmp").mkdir()
    (root / "tmp").chmod(0o1777)
    (folder / "Containerfile").write_text(TEXT.format(label=label))
    return folder


def _add(root: Path, name: str, source: Path) -> None:
    target = root / name.removeprefix("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        shutil.copy(source, target)
