"""What long work says while it runs: records, and the sinks that show them.

The library only emits. A sink decides what a person (rich, on a terminal), a pipe (plain lines) or a
program (JSON lines) sees. Everything goes to stderr: stdout belongs to results.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Literal, Protocol, TextIO

Kind = Literal["start", "progress", "done", "failed", "log", "warning"]


@dataclass(frozen=True)
class Event:
    """One thing that happened.

    Attributes:
        kind: start, progress, done and failed belong to a phase; log and warning may stand alone.
        phase: a short name such as ``environment``; empty for none.
        message: for people, one line.
        seconds: how long the phase took, on done and failed.
        title: the message that the phase began with, on what follows it: two of one name may run at once.
    """

    kind: Kind
    phase: str
    message: str
    seconds: float | None = None
    title: str | None = None


class Sink(Protocol):
    """Anything that shows events."""

    def emit(self, event: Event) -> None: ...


class PlainSink:
    """One line an event: what a pipe or a log file gets."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr

    def emit(self, event: Event) -> None:
        if event.kind == "progress":
            return
        mark = {"start": "…", "done": "✓", "failed": "✗", "warning": "!", "log": " "}[event.kind]
        took = f"  {event.seconds:.2f} s" if event.seconds is not None else ""
        _say(self.stream, f"{mark} {event.message}{took}")


class JsonSink:
    """One JSON object a line, for programs that follow the progress."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr

    def emit(self, event: Event) -> None:
        record = {k: v for k, v in asdict(event).items() if v is not None}
        _say(self.stream, json.dumps(record, ensure_ascii=False))


_line = threading.Lock()


def _say(stream: TextIO, line: str) -> None:
    try:
        with _line:  # two installations say things at once
            stream.write(f"{line}\n")
            stream.flush()
    except (OSError, ValueError):
        pass  # who read it went away (`up … 2>&1 | head`): half a cluster would be worse than silence


class NullSink:
    """Shows nothing: for library callers who did not ask."""

    def emit(self, event: Event) -> None:
        return


class Reporter:
    """What the library is handed: phases with times, and single lines.

    Attributes:
        seconds: wall-clock seconds by phase, for ``up --json``; a phase that runs twice adds up.
    """

    def __init__(self, sink: Sink | None = None) -> None:
        self.sink: Sink = sink or NullSink()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str, message: str) -> Iterator[Phase]:
        """Time a phase; `message` is shown at its start, `Phase.done_message` at its end."""
        phase = Phase(self, name, message)
        started = time.perf_counter()
        self.sink.emit(Event("start", name, message))
        try:
            yield phase
        except BaseException:
            took = time.perf_counter() - started
            self.sink.emit(Event("failed", name, phase.done_message, took, message))
            raise
        took = time.perf_counter() - started
        self.seconds[name] = self.seconds.get(name, 0.0) + took
        self.sink.emit(Event(phase.kind, name, phase.done_message, took, message))

    def log(self, message: str, phase: str = "") -> None:
        self.sink.emit(Event("log", phase, message))

    def warning(self, message: str, phase: str = "") -> None:
        self.sink.emit(Event("warning", phase, message))


class Phase:
    """A phase that is running."""

    def __init__(self, reporter: Reporter, name: str, message: str) -> None:
        self.reporter = reporter
        self.name = name
        self.title = message
        self.done_message = message
        self.kind: Literal["done", "failed"] = "done"

    def progress(self, message: str) -> None:
        """Say where the phase is; shown beside the spinner on a terminal and not kept."""
        self.reporter.sink.emit(Event("progress", self.name, message, title=self.title))

    def done(self, message: str) -> None:
        """Set the line that stands when the phase has ended well."""
        self.done_message = message

    def failed(self, message: str) -> None:
        """Set the line that stands when the phase has ended, and not well, though nothing is raised."""
        self.done_message = message
        self.kind = "failed"


def counted(number: int, noun: str) -> str:
    """``1 engine``, ``1,000 engines``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
