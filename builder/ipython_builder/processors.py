"""How many processors we may use: those of this process, or fewer where the control group grants fewer."""

from __future__ import annotations

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def count(cgroup: Path = CGROUP) -> int:
    """At least 1. In a container it is the container's share, not the host's number."""
    here = len(os.sched_getaffinity(0))
    return max(1, min(here, round(_quota(cgroup) or here)))


def _quota(cgroup: Path) -> float | None:
    """Processors that the control group grants, None where there is no limit. Source: cgroups(7), v1, v2."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            folder = next(path for path in (cgroup / "cpu", cgroup / "cpu,cpuacct") if path.is_dir())
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        except (OSError, StopIteration):
            return None
    try:
        granted = int(quota) / int(period)
    except ValueError:  # "max"
        return None
    return granted if granted > 0 else None
