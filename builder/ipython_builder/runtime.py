"""What we add to a repository's environment, and what the viewer's own environment holds.

``ipython_cluster`` is shipped as the package beside this one and made into a wheel when it is first needed:
a few milliseconds, the same bytes every time, and an editable install of the tool needs no second build.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import os
import re
import tempfile
import zipfile
from importlib import resources
from pathlib import Path

from packaging.version import Version

from ipython_builder._version import __version__

# Beside ipython_cluster only these; a version that the repository pins wins.
REQUIREMENTS = ("cloudpickle", "ipykernel>=6.19", "ipyparallel>=8", "pip", "threadpoolctl")

_DATE = 315532800  # the first day that a zip file knows
_ENTRY_POINTS = """\
[ipyparallel.controller_launchers]
ipython-cluster = ipython_cluster.launchers:ControllerLauncher

[ipyparallel.engine_launchers]
ipython-cluster = ipython_cluster.launchers:EngineSetLauncher

[jupyter_client.kernel_provisioners]
ipython-cluster-pool = ipython_cluster.provisioner:PoolProvisioner
"""
_METADATA = f"""\
Metadata-Version: 2.1
Name: ipython-cluster
Version: {__version__}
Summary: What of an ipython-builder cluster lives in the repository's own environment
License: Apache-2.0
Requires-Python: >=3.9
Requires-Dist: cloudpickle
Requires-Dist: ipyparallel>=8
"""
_WHEEL = """\
Wheel-Version: 1.0
Generator: ipython-builder
Root-Is-Purelib: true
Tag: py3-none-any
"""


def preferred_versions() -> str:
    """The versions of `REQUIREMENTS` and all they need that we have tested together, as pip lines.

    They are preferences: the resolver departs from them where the repository asks for something else.
    """
    return (resources.files("ipython_builder") / "locks" / "runtime.txt").read_text()


def unsaid(pins: str) -> tuple[str, ...]:
    """What these versions need and their own metadata does not say, as requirement lines.

    Source: ipyparallel's changelog; 9.0.2 is the first that knows ipykernel 7. Earlier ones register with it
    and then never answer a task.
    """
    versions = dict(re.findall(r"^(ipyparallel|ipykernel)==([^\s;]+)", pins, re.MULTILINE))
    if len(versions) == 2 and Version(versions["ipyparallel"]) < Version("9.0.2"):
        return ("ipykernel<7",) if Version(versions["ipykernel"]) >= Version("7") else ()
    return ()


def viewer_lock() -> str:
    """The hashed lock of the viewer's environment (JupyterLab and what serves it)."""
    return (resources.files("ipython_builder") / "locks" / "viewer.txt").read_text()


def wheel_key() -> str:
    """A hash of what is in the wheel of ``ipython_cluster``."""
    return _key(_members())


def wheel(folder: Path) -> Path:
    """The wheel of ``ipython_cluster`` below `folder`, made there if it is not there yet.

    Its bytes depend on its source alone, and its path on its bytes, so that no cache takes an old one for it.
    """
    members = _members()
    path = folder / _key(members) / f"ipython_cluster-{__version__}-py3-none-any.whl"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        # A name of its own: several threads and processes may be the first.
        with (
            tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as half,
            zipfile.ZipFile(half, "w", zipfile.ZIP_DEFLATED) as archive,
        ):
            for name, data in members.items():
                info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
                info.external_attr = 0o644 << 16
                info.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(info, data)
        os.utime(half.name, (_DATE, _DATE))  # uv notes the date of what it installs
        Path(half.name).chmod(0o644)
        Path(half.name).replace(path)
    return path


def is_installed(environment: Path) -> bool:
    """Whether the very files of that wheel are in the environment at this path."""
    members = _members()
    info = f"ipython_cluster-{__version__}.dist-info/RECORD"
    wanted = set(members.pop(info).decode().splitlines())
    return any(
        wanted <= set(record.read_text().splitlines())
        for record in environment.glob(f"lib/python3.*/site-packages/{info}")
    )


def _key(members: dict[str, bytes]) -> str:
    content = b"\0".join(name.encode() + b"\0" + data for name, data in members.items())
    return hashlib.sha256(content).hexdigest()[:16]


def _members() -> dict[str, bytes]:
    spec = importlib.util.find_spec("ipython_cluster")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    members = {
        f"ipython_cluster/{path.relative_to(package)}": path.read_bytes()
        for path in sorted(package.rglob("*.py"))
    }
    # A .pth counts only at the top of site-packages.
    members["ipython_cluster.pth"] = (package / "ipython_cluster.pth").read_bytes()
    info = f"ipython_cluster-{__version__}.dist-info"
    members[f"{info}/METADATA"] = _METADATA.encode()
    members[f"{info}/WHEEL"] = _WHEEL.encode()
    members[f"{info}/entry_points.txt"] = _ENTRY_POINTS.encode()
    rows = [f"{name},sha256={_b64(data)},{len(data)}" for name, data in members.items()]
    members[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,", ""]).encode()
    return members


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
