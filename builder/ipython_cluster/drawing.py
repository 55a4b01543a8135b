"""Who did what: tasks over engines in time, drawn from what results say of themselves."""

from html import escape

WIDTH, LEFT, RIGHT, ROW, TOP, BOTTOM = 760, 80, 20, 20, 28, 28  # pixels
COLOURS = (
    "#4878a8",
    "#e49444",
    "#6a9f58",
    "#85b6b2",
    "#b8a04a",
    "#a87c9f",
)  # that colour-blind people can tell
FAILED = "#b00020"
TICKS = 6


class Bar:
    """A task on an engine.

    Attributes:
        engine: its number.
        started, completed: seconds since the epoch.
        text: what it was.
        good: whether it ended well.
    """

    __slots__ = ("completed", "engine", "good", "started", "text")

    def __init__(self, engine, started, completed, text, good=True):
        self.engine = engine
        self.started = started
        self.completed = completed
        self.text = text
        self.good = good


def picture(*results):
    """Tasks as bars on their engines, as a picture that a notebook shows.

    Args:
        results: what `pmap` gave, or ipyparallel's AsyncResults; several go into one picture.

    Returns:
        `Picture`; its ``save`` writes an SVG file, its ``draw`` draws into axes of matplotlib.

    Raises:
        TypeError: that is no result of a cluster.
        ValueError: nothing is done yet.
    """
    bars = [bar for one in results for bar in _bars(one)]
    if not bars:
        raise ValueError("no task is done yet\n next: wait for the results, then draw them")
    return Picture(bars)


class Picture:
    """Bars in time. All times are in seconds from the first one."""

    def __init__(self, bars):
        self.bars = sorted(bars, key=lambda bar: (bar.engine, bar.started))
        self.engines = sorted({bar.engine for bar in bars})
        self.begun = min(bar.started for bar in bars)
        self.seconds = max(max(bar.completed for bar in bars) - self.begun, 1e-6)

    @property
    def busy(self):
        """Which part of their time the engines had work, 0 to 1."""
        worked = sum(bar.completed - bar.started for bar in self.bars)
        return min(worked / (self.seconds * len(self.engines)), 1.0)

    @property
    def title(self):
        return "{} on {}, {:.3g} s, busy {:.0%} of the time".format(
            _counted(len(self.bars), "task"), _counted(len(self.engines), "engine"), self.seconds, self.busy
        )

    def _repr_svg_(self):
        height = TOP + ROW * len(self.engines) + BOTTOM
        scale = (WIDTH - LEFT - RIGHT) / self.seconds
        parts = [
            '<svg xmlns="http://www.w3.org/2000/svg" width="{0}" height="{1}" viewBox="0 0 {0} {1}" '
            'role="img" font-family="sans-serif" font-size="11">'.format(WIDTH, height),
            "<title>{}</title>".format(escape(self.title)),
            '<rect width="{}" height="{}" fill="#ffffff"/>'.format(WIDTH, height),
            '<text x="{}" y="16" font-size="12" fill="#222222">{}</text>'.format(LEFT, escape(self.title)),
        ]
        for row, engine in enumerate(self.engines):
            y = TOP + ROW * row
            words = '<text x="{}" y="{}" text-anchor="end" fill="#444444">engine {}</text>'
            parts.append(words.format(LEFT - 8, y + 14, engine))
        for number in range(TICKS + 1):
            moment = self.seconds * number / TICKS
            x, below = LEFT + moment * scale, height - BOTTOM
            line = '<line x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}" stroke="#dddddd"/>'
            parts.append(line.format(x, TOP, below + 4))
            words = '<text x="{:.1f}" y="{}" text-anchor="middle" fill="#444444">{:.3g} s</text>'
            parts.append(words.format(x, below + 18, moment))
        for number, bar in enumerate(self.bars):
            x, width = LEFT + (bar.started - self.begun) * scale, (bar.completed - bar.started) * scale
            y = TOP + ROW * self.engines.index(bar.engine)
            box = (
                '<rect x="{:.1f}" y="{}" width="{:.1f}" height="{}" rx="2" fill="{}"><title>{}</title></rect>'
            )
            said = escape("{}, {:.3g} s".format(bar.text, bar.completed - bar.started))
            parts.append(box.format(x, y + 3, max(width - 1, 1), ROW - 6, self._colour(number), said))
        return "\n".join([*parts, "</svg>"])

    def _colour(self, number):
        return COLOURS[number % len(COLOURS)] if self.bars[number].good else FAILED

    def save(self, path):
        """Write it as an SVG file."""
        with open(path, "w", encoding="utf-8") as file:
            file.write(self._repr_svg_())

    def draw(self, axes):
        """Draw it into axes of matplotlib, and give these back."""
        for number, bar in enumerate(self.bars):
            row = self.engines.index(bar.engine)
            width = bar.completed - bar.started
            left, colour = bar.started - self.begun, self._colour(number)
            axes.barh(row, width, left=left, height=0.7, color=colour, edgecolor="white", linewidth=0.5)
        axes.set_yticks(range(len(self.engines)), ["engine {}".format(engine) for engine in self.engines])
        axes.invert_yaxis()
        axes.set_xlabel("seconds")
        axes.set_title(self.title)
        return axes


def _bars(result):
    tasks = getattr(result, "tasks", None)
    if tasks is not None:
        for task in tasks:
            last = task.first + task.count - 1
            text = "item {}".format(last) if task.count == 1 else "items {} to {}".format(task.first, last)
            yield Bar(task.engine, task.started, task.completed, text)
        return
    found = getattr(result, "metadata", None)
    if found is None:
        raise TypeError("{!r} is no result of a cluster".format(type(result).__name__))
    for number, one in enumerate([found] if hasattr(found, "keys") else found):
        if one.get("completed") and one.get("started"):
            text = "task {}".format(number)
            good = one.get("status") in (None, "ok")
            yield Bar(one["engine_id"], one["started"].timestamp(), one["completed"].timestamp(), text, good)


def _counted(number, noun):
    return "{:,} {}{}".format(number, noun, "" if number == 1 else "s")
