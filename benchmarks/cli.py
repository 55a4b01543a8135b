"""`ipython-builder --help` against `python -c pass`: how long until a person reads something.

Bar: the help is there within 150 ms.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import common

BAR_SECONDS = 0.150


def main() -> None:
    options = common.parser(__doc__, runs=25).parse_args()
    beside = Path(sys.executable).with_name("ipython-builder")
    command = str(beside) if beside.exists() else shutil.which("ipython-builder")
    if command is None:
        sys.exit("ipython-builder is not installed: pip install .")
    env = common.environ()
    sides = [sys.executable, "-c", "pass"], [command, "--help"]
    for side in sides:
        common.run(side, env=env)  # both from a warm disk
    peer, ours = common.take_turns(
        options.runs, lambda: common.timed(sides[0], env=env), lambda: common.timed(sides[1], env=env)
    )
    bar = f"within {BAR_SECONDS * 1000:.0f} ms"
    case = common.Case("first words", peer, ours, bar, lambda case: case.medians[1] <= BAR_SECONDS)
    common.report("ipython-builder --help", "python -c pass", [case], options)


if __name__ == "__main__":
    main()
