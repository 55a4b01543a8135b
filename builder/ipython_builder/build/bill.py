"""What an image holds: requirements.lock, which installers read, and a bill of materials [cyclonedx].

Both depend on what is installed and on nothing else: no date, no random number.
"""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ipython_builder._version import __version__
from ipython_builder.build.installed import OURS, Installed

if TYPE_CHECKING:
    from cyclonedx.model.component import Component

_HEAD = "# All that is installed here, as pip and uv read it. Written by ipython-builder.\n"
_ENTRY = re.compile(r"(?P<comment># )?(?P<name>[a-z0-9-]+)==(?P<version>[^\s:;\\]+)")
_HASH = re.compile(r"--hash=(\S+)")


@dataclass(frozen=True)
class Entry:
    """One distribution in a lock.

    Attributes:
        hashes: of the files an index has of it, sorted; none where it is not from an index, or not known.
        remark: where it is from, if not from an index.
    """

    name: str
    version: str
    hashes: tuple[str, ...] = ()
    remark: str = ""

    @property
    def pin(self) -> str:
        return f"{self.name}=={self.version}"

    def __str__(self) -> str:
        if self.remark:
            return f"# {self.pin}: {self.remark}\n"
        return " \\\n    ".join([self.pin, *(f"--hash={one}" for one in self.hashes)]) + "\n"


def parse(text: str) -> dict[str, Entry]:
    """The entries of a lock by name; also of what ``pip compile --generate-hashes`` writes."""
    found = {}
    for line in text.replace("\\\n", " ").splitlines():
        if match := _ENTRY.match(line):
            hashes = tuple(sorted(_HASH.findall(line)))
            remark = line.partition(": ")[2] if match["comment"] else ""
            found[match["name"]] = Entry(match["name"], match["version"], hashes, remark)
    return found


def entries(
    distributions: Iterable[Installed],
    known: Sequence[Mapping[str, Entry]],
    ask: Callable[[list[str]], str],
    source: Path,
) -> list[Entry]:
    """An entry for each distribution.

    Args:
        known: earlier locks; of two that know the hashes of a version, the first is believed.
        ask: hashes for pins that no lock knows, as a lock's text; called once if at all.
        source: the repository: folders in it are named without it.
    """
    found: dict[str, Entry] = {}
    unknown = []
    for one in distributions:
        if one.name == OURS:
            found[one.name] = Entry(one.name, one.version, remark="a part of ipython-builder")
        elif one.origin:
            shown = one.origin.replace(source.as_uri(), "the repository", 1)
            found[one.name] = Entry(one.name, one.version, remark=f"made from {shown}")
        else:
            locks = (lock[one.name] for lock in known if one.name in lock)
            fitting = [entry for entry in locks if entry.version == one.version and entry.hashes]
            found[one.name] = fitting[0] if fitting else Entry(one.name, one.version)
            if not fitting:
                unknown.append(one.pin)
    for name, entry in parse(ask(unknown)).items() if unknown else ():
        if name in found and found[name].pin == entry.pin:
            found[name] = entry
    return [found[name] for name in sorted(found)]


def lock(found: Sequence[Entry]) -> str:
    """The text of requirements.lock."""
    return _HEAD + "".join(str(entry) for entry in found)


def bill(distributions: Sequence[Installed], found: Sequence[Entry]) -> str:
    """A CycloneDX bill of materials as JSON: components, licences, origins, and who needs whom."""
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6

    root = Component(name="app-root", type=ComponentType.APPLICATION, bom_ref="app-root")
    components = {one.name: _component(one, entry) for one, entry in zip(distributions, found, strict=True)}
    bom = Bom(components=components.values())
    bom.metadata.component = root
    tool = Component(name="ipython-builder", type=ComponentType.APPLICATION, version=__version__)
    bom.metadata.tools.components.add(tool)
    bom.register_dependency(root, components.values())
    for one in distributions:
        needed = sorted({_canonical(requirement.name) for requirement in one.requirements()})
        bom.register_dependency(
            components[one.name], [components[name] for name in needed if name in components]
        )
    document = json.loads(JsonV1Dot6(bom).output_as_string())
    # The library dates and numbers what it writes: the date goes, and the number follows from the content.
    document["metadata"].pop("timestamp", None)
    document.pop("serialNumber", None)
    content = json.dumps(document, sort_keys=True)
    document["serialNumber"] = uuid.uuid5(uuid.NAMESPACE_URL, content).urn
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all; one that says the same already is left alone."""
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}.{os.getpid()}")
    half.write_text(text, encoding="utf-8")
    half.replace(path)


def _component(one: Installed, entry: Entry) -> Component:
    from cyclonedx.contrib.license.factories import LicenseFactory
    from cyclonedx.model import HashAlgorithm, HashType, Property
    from cyclonedx.model.component import Component
    from packageurl import PackageURL

    vcs = {"vcs_url": one.origin} if one.origin.startswith(("git+", "hg+", "svn+", "bzr+")) else None
    made = Component(
        name=one.name,
        version=one.version,
        bom_ref=one.pin,
        purl=PackageURL("pypi", None, one.name, one.version, vcs),
    )
    # A component has the hashes of its one file; of an index's many it is not known which was taken.
    if len(entry.hashes) == 1:
        algorithm, _, digest = entry.hashes[0].partition(":")
        made.hashes.add(HashType(alg=HashAlgorithm(algorithm.replace("sha", "SHA-")), content=digest))
    if entry.remark:
        made.properties.add(Property(name="ipython-builder:origin", value=entry.remark))
    if one.license:
        made.licenses.add(LicenseFactory().make_from_string(one.license))
    return made


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
