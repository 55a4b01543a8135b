"""From a request to a cluster's record: source, specification, environments, ports. Starts nothing."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from ipython_builder import (
    cluster,
    commands,
    environment,
    imports,
    interpreters,
    ports,
    processes,
    processors,
    record,
    scrub,
    source,
    spec,
    thin,
    tree,
)
from ipython_builder.errors import BuilderError
from ipython_builder.events import Reporter
from ipython_builder.platforms.base import Up, check_same
from ipython_builder.record import Begun, Home, Record
from ipython_builder.settings import Settings


class Maker:
    """Makes records; `others` are those of the machine's other clusters, whose ports are theirs."""

    def __init__(self, settings: Settings, reporter: Reporter, others: Sequence[Record]) -> None:
        self.settings = settings
        self.reporter = reporter
        self.others = others

    def new(self, home: Home, request: Up) -> Record:
        """A new cluster's record; what a killed `up` of that label left is removed first."""
        self.clear(home)
        asked = request.source
        begun = Begun(str(asked.folder or asked.text), asked.folder is not None)
        checkout = None
        try:
            record.begin(home, begun)
            checkout = self.fetch(request, self.workspace(home))
            record.begin(home, replace(begun, commit=checkout.commit))
            made = self.make(home, request, checkout)
            record.save(home, made)
        except BaseException:
            shutil.rmtree(home.path, ignore_errors=True)
            if checkout and not checkout.in_place:
                self.remove_workspace(home, checkout.commit)
            raise
        return made

    def clear(self, home: Home) -> None:
        """Put away what a killed `up` left; a clone of ours in which somebody has worked since stays."""
        processes.sweep(home.path)
        begun = record.begun(home)
        if begun and not begun.in_place:
            self.remove_workspace(home, begun.commit)
        shutil.rmtree(home.path, ignore_errors=True)

    def again(self, home: Home, made: Record, request: Up) -> Record:
        """The record of a cluster that is there already, brought up to date with `request`.

        Raises:
            UsageError: the label belongs to another source, ref or folder.
        """
        asked = request.source
        same = str(asked.folder) == made.checkout if asked.folder else asked.text == made.source
        check_same(
            home.label, asked, same=same, source=made.source, ref=made.ref, context_dir=made.context_dir
        )
        self.reporter.log(f"{home.label} is there already: putting it right")
        checkout = source.Checkout(
            Path(made.checkout),
            Path(made.notebooks),
            made.source,
            made.ref,
            made.commit,
            0,
            made.in_place,
            (),
        )
        if not checkout.root.is_dir():
            raise BuilderError(
                f"the notebooks of {home.label} are gone from {checkout.root}",
                f"remove the cluster with `ipython-builder down {home.label}` and start it anew",
            )
        return self.make(home, replace(request, extra=request.extra or made.extra), checkout, made)

    def fetch(self, request: Up, workspace: Path) -> source.Checkout:
        in_place = request.source.folder is not None
        if not in_place and workspace.exists() and any(workspace.iterdir()):
            raise BuilderError(
                f"{workspace} holds notebooks that were changed in an earlier cluster of this label",
                f"move the folder away, use it as SOURCE, or remove it: rm -r {workspace}",
            )
        checkout = source.fetch(request.source, workspace, self.settings, self.reporter)
        for warning in checkout.warnings:
            self.reporter.warning(warning)
        return checkout

    def make(
        self, home: Home, request: Up, checkout: source.Checkout, before: Record | None = None
    ) -> Record:
        """Read the repository, choose ports, make both environments (side by side)."""
        asked = spec.read(checkout.root, top=checkout.path, extra=request.extra)
        imports.preload(asked)  # for its errors: after an installation they would come late
        for notice in asked.notices:
            self.reporter.warning(f"{notice.file}: {notice.message}" if notice.file else notice.message)
        host = request.host or (before.viewer_host if before else self.settings.viewer_host)
        ports.check_host(host)
        viewer_port = self.viewer_port(host, request, before)
        hooks = asked.hooks if request.allow_hooks else ()
        self.run_hook(checkout, hooks, "pre-build")
        with ThreadPoolExecutor() as pool:
            viewer = None
            if asked.serves_itself is None:
                # A reporter of its own: its seconds pass beside the other's, not after them.
                viewer = pool.submit(environment.ensure_viewer, self.settings, Reporter(self.reporter.sink))
            env = environment.ensure(asked, self.settings, self.reporter, upgrade=request.upgrade)
            served = viewer.result() if viewer else None
        self.run_hook(checkout, hooks, "post-build")
        wish = self.settings.python
        if wish and interpreters.find("", self.settings) != env.python:
            reason = f"{asked.python_from} asks for {asked.python}"
            self.reporter.warning(f"Python {env.python.version} is used and not {wish}: {reason}")
        thin.make(env, home.thin)
        for used in (env, served):
            if used:
                environment.claim(used, self.settings, home.path)
        fork = request.fork if request.fork is not None else before.fork_asked if before else None
        return Record(
            label=home.label,
            user=request.user or (before.user if before else cluster.random_label()),
            # A folder by its whole path: "." is another one tomorrow.
            source=str(checkout.path) if checkout.in_place else checkout.source,
            ref=checkout.ref,
            context_dir=request.source.context_dir or (before.context_dir if before else None),
            commit=checkout.commit,
            checkout=str(checkout.path),
            in_place=checkout.in_place,
            notebooks=str(checkout.root),
            environment=env.key,
            environment_path=str(env.path),
            python=env.python.version,
            viewer_environment=served.key if served else None,
            viewer_python=str((served.bin if served else home.thin / "bin") / "python"),
            viewer_module=asked.serves_itself or "jupyterlab",
            viewer_host=host,
            viewer_port=viewer_port,
            first_port=before.first_port
            if before
            else ports.block([made.first_port for made in self.others]),
            engines=_engines(request.engines, before),
            extra=request.extra,
            preload=imports.preload(
                asked, folders=[environment.site_packages(home.thin, env.python), env.site_packages]
            ),
            preload_timeout=asked.pool.timeout,
            fork=asked.pool.fork if fork is None else fork,
            fork_asked=fork,
        )

    def viewer_port(self, host: str, request: Up, before: Record | None) -> int:
        """The port asked for, else the one it has, else a free one.

        Raises:
            BuilderError: the one asked for is in use.
        """
        if before and request.port in (None, before.viewer_port):
            return before.viewer_port
        return ports.viewer(host, [made.viewer_port for made in self.others], wanted=request.port)

    def run_hook(self, checkout: source.Checkout, hooks: Sequence[str], name: str) -> None:
        """Run one of the repository's hooks, output shown, without the caller's environment."""
        for hook in hooks:
            if Path(hook).name == name:
                with self.reporter.phase("hooks", f"running {hook}") as phase:
                    commands.run(
                        [checkout.root / hook],
                        cwd=checkout.root,
                        env=scrub.installer_environ(self.settings),
                        on_line=phase.progress,
                        check=True,
                    )

    def workspace(self, home: Home) -> Path:
        """Where a repository from a URL is cloned to."""
        return self.settings.data_dir / "workspaces" / home.label

    def remove_workspace(self, home: Home, commit: str | None, *, discard: bool = False) -> Path | None:
        """Remove the clone, unless somebody's work is in it; then it stays, and its path is returned."""
        workspace = self.workspace(home)
        shutil.rmtree(source.half_made(workspace), ignore_errors=True)
        if not workspace.exists():
            return None
        # One that was killed before it noted the commit had no time for any other.
        head = tree.head(workspace)
        commit = commit or (head[0] if head else None)
        if not discard and commit and source.changes(workspace, commit):
            return workspace
        shutil.rmtree(workspace)
        return None


def _engines(asked: int | None, before: Record | None) -> int:
    """As many as were asked for, else as many as there are, else one for each CPU we may use."""
    if asked is not None:
        return asked
    return before.engines if before else processors.count()
