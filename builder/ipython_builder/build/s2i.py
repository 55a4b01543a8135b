"""The program `s2i` as an engine: it makes its own steps from a folder, in a Docker daemon."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from ipython_builder import commands
from ipython_builder.build import words
from ipython_builder.build.engines import GRACE_SECONDS, Say
from ipython_builder.build.reference import Reference
from ipython_builder.errors import Unavailable


class S2i:
    """s2i, found on PATH.

    Raises:
        Unavailable: it is not there.
    """

    name = "s2i"

    def __init__(self) -> None:
        found = shutil.which("s2i")
        if found is None:
            raise Unavailable("s2i is not on PATH", "leave --engine out, or install source-to-image")
        self.program = found

    def build(
        self,
        source: Path,
        builder: str,
        image: Reference,
        say: Say,
        *,
        origin: Mapping[str, str],
        secrets: Mapping[str, Path],
        hidden: Sequence[str],
        again: bool,
    ) -> None:
        """Make `image` of the folder `source`; s2i gives it the name when it is whole.

        Args:
            origin: variables that say where the repository is from; they stay in the image, as in OpenShift.
            secrets: where a file shall be while it is made -> the file. s2i leaves it empty in the image.
            again: whether what the previous image of that name has installed may be taken.

        Raises:
            BuilderError: as the step that failed says.
        """
        argv = [self.program, "build", str(source), builder, str(image), "--copy", "--keep-symlinks"]
        argv += ["--pull-policy", "never", "--incremental-pull-policy", "never"]
        argv += ["--incremental"] if again else []
        argv += [word for pair in origin.items() for word in ("--env", "=".join(pair))]
        folders = {str(path.parent): str(Path(place).parent) for place, path in secrets.items()}
        argv += [word for pair in folders.items() for word in ("--inject", ":".join(pair))]
        # What it leaves in its folder for temporary files when it is interrupted goes with ours.
        with tempfile.TemporaryDirectory(prefix="ipython-builder-") as folder:
            answer = commands.run(
                argv,
                env=os.environ | {"TMPDIR": folder},
                on_line=say,
                merged=True,
                secrets=hidden,
                grace=GRACE_SECONDS,
            )
        if answer.returncode != 0:
            raise words.failure("s2i cannot build the image", answer.stderr)
