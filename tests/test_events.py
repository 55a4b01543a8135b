"""What long work says, and what a pipe, a program and a person see of it."""

from __future__ import annotations

import io
import json
import os
import threading
import time

import pytest

from ipython_builder.events import Event, JsonSink, NullSink, PlainSink, Reporter


class Kept:
    """A sink that keeps what it is shown."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        self.events.append(event)


def tell(reporter: Reporter) -> None:
    with reporter.phase("install", "installing 3 packages") as phase:
        phase.progress("six")
        reporter.log("a line", "install")
        phase.done("installed 3 packages — schön")
    reporter.warning("apt.txt: not obeyed")


def test_a_phase_has_a_start_and_an_end_with_its_seconds() -> None:
    sink = Kept()
    reporter = Reporter(sink)
    tell(reporter)
    kinds = [(event.kind, event.phase, event.message) for event in sink.events]
    assert kinds == [
        ("start", "install", "installing 3 packages"),
        ("progress", "install", "six"),
        ("log", "install", "a line"),
        ("done", "install", "installed 3 packages — schön"),
        ("warning", "", "apt.txt: not obeyed"),
    ]
    took = sink.events[3].seconds
    assert took is not None
    assert reporter.seconds == {"install": took}
    assert all(event.seconds is None for event in sink.events if event.kind != "done")


def test_a_phase_that_runs_twice_adds_up() -> None:
    sink = Kept()
    reporter = Reporter(sink)
    tell(reporter)
    tell(reporter)
    seconds = [event.seconds or 0 for event in sink.events if event.kind == "done"]
    assert reporter.seconds == {"install": pytest.approx(sum(seconds))}


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), SystemExit(3)])
def test_a_phase_that_fails_says_so_and_lets_the_error_pass(error: BaseException) -> None:
    sink = Kept()
    reporter = Reporter(sink)
    with pytest.raises(type(error)) as caught, reporter.phase("resolve", "choosing versions"):
        raise error
    assert caught.value is error
    assert [(event.kind, event.message) for event in sink.events] == [
        ("start", "choosing versions"),
        ("failed", "choosing versions"),
    ]
    assert reporter.seconds == {}


def test_a_pipe_gets_lines_without_progress() -> None:
    stream = io.StringIO()
    tell(Reporter(PlainSink(stream)))
    lines = stream.getvalue().splitlines()
    assert lines[0] == "… installing 3 packages"
    assert lines[1] == "  a line"
    assert lines[2].startswith("✓ installed 3 packages — schön  ")
    assert lines[2].endswith(" s")
    assert lines[3:] == ["! apt.txt: not obeyed"]


def test_a_program_gets_objects() -> None:
    stream = io.StringIO()
    tell(Reporter(JsonSink(stream)))
    records = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [record["kind"] for record in records] == ["start", "progress", "log", "done", "warning"]
    assert records[0] == {"kind": "start", "phase": "install", "message": "installing 3 packages"}
    assert records[3]["seconds"] >= 0


class Torn(io.StringIO):
    """A stream in which another thread's turn comes after every write."""

    def write(self, text: str) -> int:
        time.sleep(0.0005)
        return super().write(text)


@pytest.mark.parametrize("sink", [PlainSink, JsonSink])
def test_lines_of_two_threads_do_not_run_into_each_other(sink: type[PlainSink] | type[JsonSink]) -> None:
    stream = Torn()
    threads = [threading.Thread(target=tell, args=[Reporter(sink(stream))]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = stream.getvalue().splitlines()
    assert "" not in lines
    if sink is JsonSink:
        assert all(json.loads(line) for line in lines)


def test_a_terminal_shows_the_phase_that_still_runs() -> None:
    from rich.console import Console

    from ipython_builder.cli.render import RichSink

    sink = RichSink()
    sink.console = Console(file=io.StringIO(), width=80)
    first, second = Reporter(sink), Reporter(sink)
    with first.phase("install", "installing [this]"):
        with second.phase("install", "installing the viewer") as phase:
            phase.progress("JupyterLab")
            sink.emit(Event("done", "install", "installed this", 1.0, "installing [this]"))
            assert sink.titles == ["installing the viewer"]
        assert sink.titles == []
    assert sink.status is None


@pytest.mark.parametrize("sink", [PlainSink, JsonSink])
def test_a_reader_that_went_away_stops_no_work(sink: type[PlainSink] | type[JsonSink]) -> None:
    """`up … 2>&1 | head -1` must not leave half a cluster."""
    reading, writing = os.pipe()
    os.close(reading)
    stream = os.fdopen(writing, "w", buffering=1)
    reporter = Reporter(sink(stream))
    tell(reporter)
    assert set(reporter.seconds) == {"install"}
    try:
        stream.close()
    except BrokenPipeError:
        pass  # what Python's own buffer still held


def test_who_did_not_ask_sees_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    tell(Reporter())
    tell(Reporter(NullSink()))
    assert capsys.readouterr() == ("", "")
