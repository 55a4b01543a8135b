"""What a terminal shows: a spinner while a phase runs, one line when it is done, and what changes [rich]."""

from __future__ import annotations

from threading import Lock
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.status import Status
from rich.text import Text

from ipython_builder.events import Event

_MARKS = {"done": "[green]✓[/]", "failed": "[red]✗[/]", "warning": "[yellow]![/]", "log": " "}
# What stands out in a state: of the cluster, of a role behind its name, or of a number of engines.
_COLOURS = {
    r"(?<=: )ready\b|(?m:(?<=^  .{10} )ready)\b|\d ready\b": "green",
    r"\bfailing\b|(?m:^)  wrong .*|\b[1-9][\d,]* failed\b": "red",
    r"\b(starting|waiting|leaving)\b": "yellow",
}


class RichSink:
    """Shows events on a terminal."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.status: Status | None = None
        self.titles: list[str] = []
        self.lock = Lock()  # two installations say things at once

    def emit(self, event: Event) -> None:
        with self.lock:
            self._emit(event)

    def _emit(self, event: Event) -> None:
        text = escape(event.message)
        if event.kind == "start":
            self.titles.append(text)
            self._spin(text)
        elif event.kind == "progress":
            title = escape(event.title or "")
            self._spin(f"{title} [dim]{text[: max(10, self.console.width - len(title) - 8)]}[/]")
        else:
            took = f"  [dim]{event.seconds:.2f} s[/]" if event.seconds is not None else ""
            if event.title is not None and escape(event.title) in self.titles:
                self.titles.remove(escape(event.title))
            self.console.print(f"{_MARKS[event.kind]} {text}{took}")
            if self.titles:
                self._spin(self.titles[-1])
            elif self.status:
                self.status.stop()
                self.status = None

    def _spin(self, text: str) -> None:
        if self.status is None:
            self.status = self.console.status(text)
            self.status.start()
        else:
            self.status.update(text)


class Screen:
    """Lines that are shown in the place of those before; the last ones stay when it is left."""

    def __init__(self) -> None:
        self.console = Console(highlight=False)
        self.live = Live(console=self.console, auto_refresh=False, vertical_overflow="crop")

    @property
    def height(self) -> int:
        """How many lines can be shown; people change the size of their windows."""
        return max(self.console.height - 1, 1)

    def show(self, lines: list[str]) -> None:
        text = Text("\n".join(lines), no_wrap=True, overflow="ellipsis")
        for words, style in _COLOURS.items():
            text.highlight_regex(words, style)
        self.live.update(text, refresh=True)

    def __enter__(self) -> Self:
        self.live.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self.live.stop()
