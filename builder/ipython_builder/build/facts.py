"""What the roles in an image need to know of its repository: image.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ipython_builder import imports
from ipython_builder.address import without_credentials
from ipython_builder.spec import Spec


@dataclass(frozen=True)
class Origin:
    """Where a repository is from, as whoever built the image knows it.

    Attributes:
        source: a URL or a path; credentials in it go no further.
        ref, commit: None where they are not known.
    """

    source: str = ""
    ref: str | None = None
    commit: str | None = None


def text(spec: Spec, origin: Origin, *, folders: Sequence[Path] | None = None) -> str:
    """The content of image.json.

    Args:
        folders: where the environment's packages are; None if that is not known here.

    Raises:
        RepositoryError: the repository wants its own module to be preloaded.
    """
    facts = {
        "source": without_credentials(origin.source),
        "ref": origin.ref,
        "commit": origin.commit,
        "notebooks": list(spec.notebooks),
        "preload": list(imports.preload(spec, folders=folders)),
        "preload_timeout": spec.pool.timeout,
        "fork": spec.pool.fork,
        "serves_itself": spec.serves_itself,
    }
    return json.dumps(facts, indent=1, ensure_ascii=False) + "\n"
