"""What a map tells who called it: how far it is, what was printed on engines, what went wrong there."""

import dis
import linecache
import re
import sys
import types

FRAME = re.compile(r'^  File "([^"]+)", line (\d+), in (.+)$')


class RemoteTraceback(Exception):
    """What an engine said of an exception: the cause of the exception that is raised here."""

    def __init__(self, text, function=None):
        super().__init__(text)
        try:
            self.text = with_sources(text, list(codes(function, set())))
        except Exception:  # functions can be anything, and this shall not hide what they raised
            self.text = text

    def __str__(self):
        return "on an engine, for {}".format(self.text)


def with_sources(text, known):
    """A traceback with the lines that an engine does not have: of functions from cells of this notebook.

    Args:
        known: the code of what was sent; on its way it loses the name of its file.
    """
    lines = text.split("\n")
    found = []
    for line, following in zip(lines, [*lines[1:], ""]):
        frame = FRAME.match(line)
        if frame and not following.startswith("    "):
            file, number, name = frame.group(1), int(frame.group(2)), frame.group(3)
            for code in known:
                if code.co_name == name and number in {at for _, at in dis.findlinestarts(code)}:
                    line = line.replace(file, code.co_filename, 1)
                    file = code.co_filename
                    break
            source = linecache.getline(file, number).strip()
            found += [line, "    " + source] if source else [line]
        else:
            found.append(line)
    return "\n".join(found)


def codes(function, seen):
    """The code of a function, of those in it, and of those that it uses of its module."""
    code = getattr(function, "__code__", None)
    if not isinstance(code, types.CodeType) or code in seen:
        return
    names = getattr(function, "__globals__", {})  # numba's functions have none
    pending = [code]
    while pending:
        one = pending.pop()
        seen.add(one)
        yield one
        pending += [constant for constant in one.co_consts if isinstance(constant, types.CodeType)]
        for name in one.co_names:
            yield from codes(names.get(name), seen)


def repeat(out, err):
    """Print what was printed on an engine."""
    for stream, text in ((sys.stdout, out), (sys.stderr, err)):
        if text and stream is not None:
            stream.write(text)
            stream.flush()


END_THEM = "\n next: wait, or end them: ipython-builder scale LABEL 0, and then as many as before"


def deaf(engines):
    """Say which engines do not let go of what was cancelled."""
    text = "engines {} do not react: what they compute is no Python, and nobody can interrupt it" + END_THEM
    print(text.format(_listed(engines)), file=sys.stderr)


def occupied(engines):
    """Say which engines a map waits for."""
    text = "engines {} are at something else, and this map waits for them" + END_THEM
    print(text.format(_listed(engines)), file=sys.stderr)


def _listed(engines):
    return ", ".join(map(str, sorted(engines)))


class NoBar:
    def update(self, count):
        pass

    def refresh(self):
        pass

    def close(self):
        pass


def bar(wanted, total, name):
    """A progress bar, if it is wanted and can be had; it shows itself after half a second."""
    if wanted is None:
        wanted = sys.stderr is not None and (
            sys.stderr.isatty() or "ipykernel" in type(sys.stderr).__module__
        )
    if not wanted:
        return NoBar()
    try:
        from ipyparallel.util import progress
    except ImportError:
        return NoBar()
    return progress(total=total, desc=name, unit="item", delay=0.5, file=sys.stderr)
