"""Where everything is inside an image: one table, so that a test can have another root."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Places:
    """The folders and files of an image below `root`.

    Attributes:
        root: ``/`` in a container.
    """

    root: Path = Path("/")

    @property
    def app_root(self) -> Path:
        """The repository's environment, a virtual environment of the image's Python."""
        return self.root / "opt/app-root"

    @property
    def source(self) -> Path:
        """The notebooks."""
        return self.app_root / "src"

    @property
    def state(self) -> Path:
        """What a viewer keeps: a volume's place, empty in the image."""
        return self.app_root / "state"

    @property
    def etc(self) -> Path:
        """What is known of the image: the lock, the bill of materials, what its roles need."""
        return self.app_root / "etc"

    @property
    def lock(self) -> Path:
        """All distributions that are installed, hashed where a hash is known."""
        return self.etc / "requirements.lock"

    @property
    def base_lock(self) -> Path:
        """The same of the builder image, before a repository's own came over it."""
        return self.etc / "base.lock"

    @property
    def bill(self) -> Path:
        """The software bill of materials (CycloneDX)."""
        return self.etc / "sbom.cdx.json"

    @property
    def marker(self) -> Path:
        """The key of what is installed, written last."""
        return self.etc / "environment.json"

    @property
    def facts(self) -> Path:
        """What roles need to know of the repository."""
        return self.etc / "image.json"

    @property
    def tool(self) -> Path:
        """The environment of the tool and the viewer."""
        return self.root / "opt/ipython-builder"

    @property
    def scripts(self) -> Path:
        """The S2I scripts."""
        return self.root / "usr/libexec/s2i"

    @property
    def upload(self) -> Path:
        """Where S2I puts a repository."""
        return self.root / "tmp/src"

    @property
    def artifacts(self) -> Path:
        """Where S2I puts what the previous image has saved."""
        return self.root / "tmp/artifacts"
