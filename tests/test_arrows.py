"""Who may know whom: the imports of every module, read from its source, against the design's arrows."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "builder" / "ipython_builder"
CLUSTER = PACKAGE.parent / "ipython_cluster"

# A module may import what stands before it in its own layer, and every layer that its own one names.
# `spec` and `cli` are packages of many small files: inside them the order is free.
LAYERS: dict[str, tuple[str, ...]] = {
    "leaf": ("errors", "events", "_version", "import_names", "places", "processes", "processors"),
    "base": ("settings", "commands"),
    "source": ("address", "clone", "tree", "source"),
    "spec": ("spec", "cells", "imports"),
    "environment": (
        *(
            "scrub",
            "interpreters",
            "runtime",
            "bytecode",
            "failures",
            "asking",
            "mirror",
            "installer",
            "keys",
            "environment",
        ),
        *("thin", "lock"),
    ),
    "build": (
        *("build.reference", "build.words", "build.facts", "build.request", "build.context", "build.plan"),
        *(
            "build.containerfile",
            "build.leftovers",
            "build.engines",
            "build.choice",
            "build.s2i",
            "build.image",
        ),
        *(
            "build.placing",
            "build.installed",
            "build.bill",
            "build.bales",
            "build.artifacts",
            "build.environment",
        ),
        "build.assemble",
    ),
    "templates": ("documents", "expressions", "parameters", "substitution", "templates"),
    "cluster": ("cluster", "ports", "record", "roles", "prepare", "control", "logs", "workspace"),
    "node": (
        *("starved", "children", "member", "forks", "leaving", "herald", "abroad", "probe", "journal"),
        *("keyring", "state", "upkeep", "node"),
    ),
    "container": ("seeding", "container"),
    "platforms": (
        *(
            "platforms.public",
            "platforms.base",
            "platforms.turns",
            "platforms.making",
            "platforms.supervision",
            "platforms.local",
        ),
        *("platforms.elsewhere", "platforms.containers", "platforms.parts", "platforms.merged"),
        *("platforms.said", "platforms.stock", "platforms.podman"),
        *("platforms.objects", "platforms.pods", "platforms.kubectl"),
        *("platforms.asking", "platforms.waiting", "platforms.kubernetes", "platforms.openshift"),
        "platforms.table",
    ),
    "cli": ("cli", "__main__"),
}
BELOW: dict[str, set[str]] = {
    "leaf": set(),
    "base": {"leaf"},
    "source": {"leaf", "base"},
    "spec": {"leaf", "base", "source"},
    "environment": {"leaf", "base", "spec"},
    "build": {"leaf", "base", "source", "spec", "environment"},
    "templates": {"leaf"},
    # What links a cluster knows nothing of how its environment came to be, and the other way round.
    "cluster": {"leaf"},
    "container": {"leaf", "base", "environment", "cluster"},
    "node": {"leaf", "base", "cluster"},
    "platforms": {
        *("leaf", "base", "source", "spec", "environment", "cluster", "node"),
        "templates",
        *("build", "container"),  # those that run an image make it, and know what it is told
    },
    "cli": {
        *("leaf", "base", "source", "spec", "environment", "build", "cluster", "node", "container"),
        *("templates", "platforms"),
    },
}
# Pure functions: nothing but how they fail.
PURE = {"cluster": {"errors"}, "errors": set(), "events": set(), "roles": {"record"}}
PURE |= {
    "build.plan": {"places"},
    "build.containerfile": {"build.plan"},
    "build.words": {"errors"},
    "build.reference": {"errors"},
}

PURE |= {
    "documents": set(),
    "expressions": {"errors"},
    "parameters": {"errors"},
    "substitution": {"errors", "documents"},
    "templates": {"errors", "documents", "expressions", "substitution"},
}

# Outside packages and effects, each with the modules that may have them, and why.
OUTSIDE = {
    "click": {"cli"},
    "rich": {"cli.render"},
    "requests": {"workspace"},
    "jupyter_kernel_client": {"workspace"},
    "nbformat": {"workspace", "cli.run"},  # cli.run reads and writes the notebook file it was given
    "git": {"clone", "source", "tree"},
    "uv": {"installer", "spec.locks"},  # spec.locks: only uv knows uv.lock's format
    "yaml": {"spec.conda", "documents"},
    "zmq": {"cluster", "herald"},
    "jupyter_client": {"herald"},
    "argon2": {"prepare"},
    "packaging": {
        *("runtime", "interpreters", "asking", "imports", "lock", "spec"),
        *("build.installed", "build.environment"),
    },
    "cyclonedx": {"build.bill"},
    "packageurl": {"build.bill"},
    "openshift_client": {"platforms.kubectl"},
}
SUBPROCESS = {
    "commands",  # the door
    "member",  # roles: supervised, not waited for
    "platforms.supervision",  # the supervisor itself, which outlives the command
}
ENVIRON = {
    "settings": "what the user has set",
    "scrub": "what of it an installer may see",
    "clone": "git's own variables, scrubbed",
    "tree": "the same for one question to git",
    "interpreters": "PATH, where Pythons are",
    "spec.locks": "PATH for uv, with nothing else",
    "build.choice": "PATH, where dockers are",
    "build.engines": "all that docker itself reads",
    "build.s2i": "all that docker itself reads, with another folder for temporary files",
    "platforms.local": "a console runs in the caller's environment",
    "platforms.podman": "so does the engine's command line",
    "platforms.asking": "and kubectl",
    "platforms.supervision": "so do the roles",
    "node": "the same, in the supervisor",
    "cli.s2i_assemble": "what a build says of where the repository is from",
    "cli.up": "IPYTHON_USER_PASSWORD, which no settings object should carry about",
    "cli.s2i_run": "a container's environment is its configuration",
}
# node: its main; abroad: a container's log; events: the sinks, to stderr
SPEAKERS = {"cli", "__main__", "node", "abroad", "events"}


def modules(root: Path) -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(root.rglob("*.py")):
        name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        yield name, ast.parse(path.read_text(encoding="utf-8"), str(path))


MODULES = dict(modules(PACKAGE))
NAMES = [name for name in MODULES if name not in ("__init__", "build", "platforms")]


def imports(tree: ast.Module) -> Iterator[str]:
    """Every imported module, wherever in the file; ``from a import b`` as ``a.b``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the arrow"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(tree: ast.Module) -> set[str]:
    """The modules of our package that are imported, without what is taken from them."""
    found = set()
    for name in imports(tree):
        parts = name.split(".")
        if parts[0] == "ipython_builder":
            name = ".".join(parts[1:])
            while name not in MODULES:
                name = name.rpartition(".")[0]
            found.add(name)
    return found - {""}


def listed(name: str) -> str:
    """The name under which the table has a module: its own, or its package's."""
    return name if any(name in names for names in LAYERS.values()) else name.partition(".")[0]


def layer(name: str) -> str:
    for layer, names in LAYERS.items():
        if listed(name) in names:
            return layer
    raise AssertionError(f"{name} is in no layer: say in this file where it belongs")


def within(name: str, allowed: set[str]) -> bool:
    return name in allowed or name.partition(".")[0] in allowed


@pytest.mark.parametrize("name", NAMES)
def test_imports_point_down(name: str) -> None:
    mine, order = layer(name), LAYERS[layer(name)]
    for other in ours(MODULES[name]):
        theirs = layer(other)
        if theirs == mine:
            same_package = listed(other) == listed(name)
            assert same_package or order.index(listed(other)) < order.index(listed(name)), f"{name} → {other}"
        else:
            assert theirs in BELOW[mine], f"{name} ({mine}) → {other} ({theirs})"


def test_the_table_names_nothing_that_is_gone() -> None:
    there = set(NAMES)
    named = {name for names in LAYERS.values() for name in names} | set(PURE) | SUBPROCESS | set(ENVIRON)
    named |= {name for names in OUTSIDE.values() for name in names}
    assert named <= there


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_know_nothing(name: str) -> None:
    assert ours(MODULES[name]) <= PURE[name]


@pytest.mark.parametrize("name", NAMES)
def test_outside_packages_have_one_door_each(name: str) -> None:
    for imported in imports(MODULES[name]):
        top = imported.partition(".")[0]
        if top not in sys.stdlib_module_names and top != "ipython_builder":
            assert within(name, OUTSIDE.get(top, set())), f"{name} → {top}"


@pytest.mark.parametrize("name", NAMES)
def test_environment_and_exit_and_print_have_doors_too(name: str) -> None:
    for node in ast.walk(MODULES[name]):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            used = f"{node.value.id}.{node.attr}"
            if used in ("os.environ", "os.getenv", "os.environb", "os.putenv"):
                assert name in ENVIRON, f"{name}:{node.lineno} {used}"
            if used in ("sys.exit", "os._exit", "click.echo", "sys.stdout", "sys.stderr", "click.secho"):
                assert within(name, SPEAKERS), f"{name}:{node.lineno} {used}"
            if used.startswith(("os.exec", "os.fork", "os.spawn", "os.system", "os.popen")):
                # They become what is to run.
                assert name in ("cli.console", "cli.s2i_run"), f"{name}:{node.lineno} {used}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("print", "exit", "quit", "input") or within(name, SPEAKERS)


def test_every_door_is_used() -> None:
    """A reason that outlived its module's need is no reason."""
    readers = {
        name
        for name in NAMES
        for node in ast.walk(MODULES[name])
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "os.environ"
    }
    assert readers == set(ENVIRON)


def test_processes_are_started_in_three_places() -> None:
    used = {
        name
        for name in NAMES
        for node in ast.walk(MODULES[name])
        if isinstance(node, ast.Attribute) and "subprocess" in ast.unparse(node)
    }
    assert used == SUBPROCESS


# -- ipython_cluster: it lives among strangers ---------------------------------------------------

ITS_OWN = {"ipython_cluster", "ipyparallel"}
# What ipyparallel itself depends on.
OF_IPYPARALLEL = {"zmq", "tornado", "traitlets", "IPython", "ipykernel", "jupyter_client"}
OPTIONAL = {
    "preloading → threadpoolctl.threadpool_limits",
    *("sending → cloudpickle", "work → cloudpickle"),
}  # used where the repository has it
# The names of the standard library that came after 3.9, and are there in this Python.
TOO_NEW = {"tomllib"}


@pytest.mark.parametrize(("name", "tree"), dict(modules(CLUSTER)).items())
def test_the_clusters_package_needs_ipyparallel_only(name: str, tree: ast.Module) -> None:
    for imported in imports(tree):
        top = imported.partition(".")[0]
        allowed = (sys.stdlib_module_names - TOO_NEW) | ITS_OWN | OF_IPYPARALLEL
        assert top in allowed or f"{name} → {imported}" in OPTIONAL, f"{name} → {imported}"


def test_the_clusters_package_has_the_syntax_of_its_oldest_python() -> None:
    for path in CLUSTER.glob("*.py"):
        ast.parse(path.read_text(encoding="utf-8"), str(path), feature_version=(3, 9))


def test_the_oldest_python_itself_compiles_the_clusters_package(python_of: Callable[[str], Path]) -> None:
    program = (
        "import sys\nfor name in sys.argv[1:]: compile(open(name, encoding='utf-8').read(), name, 'exec')"
    )
    files = sorted(map(str, CLUSTER.glob("*.py")))
    done = subprocess.run([python_of("3.9"), "-I", "-c", program, *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(files) > 5
