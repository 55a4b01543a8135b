"""Progress for a person: a spinner while a phase runs, one line with its time when it is done [rich]."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from ipython_builder.events import Event

_MARKS = {"done": "[green]✓[/]", "failed": "[red]✗[/]", "warning": "[yellow]![/]", "log": " "}


class RichSink:
    """Shows events on a terminal."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.status: Status | None = None
        self.titles: list[str] = []

    def emit(self, event: Event) -> None:
        text = escape(event.message)
        if event.kind == "start":
            self.titles.append(text)
            self._spin(text)
        elif event.kind == "progress":
            title = self.titles[-1] if self.titles else ""
            self._spin(f"{title} [dim]{text[: max(10, self.console.width - len(title) - 8)]}[/]")
        else:
            took = f"  [dim]{event.seconds:.2f} s[/]" if event.seconds is not None else ""
            if event.kind in ("done", "failed") and self.titles:
                self.titles.pop()
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
