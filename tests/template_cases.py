"""Templates that are awkward, what they are processed with, and what the real `oc` printed for that."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).parent / "templates"
EXPECTED = FOLDER / "expected"

# Words after `-f FILE`, for each template that is more than processed as it is.
WORDS: dict[str, list[list[str]]] = {
    "strings": [
        [],
        ["-p", "ONE=1"],
        ["-p", "ONE=a=b, c"],
        ["-p", "ONE="],
        ["-p", "TWO=${ONE}"],
        ["-p", "ONE=${ONE}"],
        ["-p", "ONE=$1 \\1 \\g<0> ^.*[a-z]+(?:x)$"],
        ["-p", "ONE=a\nb\t'\"`\\"],
        ["-p", "ONE=ü☃𝄞\u2028<>&"],
        ["-p", "ONE=a,TWO=b"],
        ["ONE=a", "TWO=b"],
        ["ONE=a", "-p", "TWO=b"],
        ["-p", "ONE=a", "-p", "ONE=b"],
        ["-p", "ONE=a", "ONE=a"],
        ["-p", "ONE"],
        ["-p", "=a"],
        ["-p", "1=a"],
        ["-p", ".=a"],
        ["-p", "..=a"],
        ["-p", "..a=a"],
        ["-p", "ONE TWO=a"],
        ["-p", "THREE=a"],
        ["-p", "one=a"],
        ["-p", "THREE=a", "--ignore-unknown-parameters"],
        ["-p", "THREE=a", "-p", "ONE=b", "--ignore-unknown-parameters"],
        ["-p", "with-dash=a"],
        ["-p", "UNDEFINED=a", "--ignore-unknown-parameters"],
    ],
    "values": [
        [],
        *(
            ["-p", f"V={value}"]
            for value in (
                *(
                    "",
                    " ",
                    "0",
                    "-0",
                    "3",
                    " 3 ",
                    "3.0",
                    "1.50",
                    "1e3",
                    "1E400",
                    "9007199254740993",
                    "03",
                    "+3",
                ),
                *(
                    "12345678901234567890",
                    "1e20",
                    "1e21",
                    "1e-7",
                    "0.00001",
                    "123456.789",
                    "-1",
                    "0x10",
                    "1_0",
                ),
                *(
                    "true",
                    "True",
                    "yes",
                    "NaN",
                    "Infinity",
                    '"s"',
                    "'s'",
                    "text",
                    '"\\ud800\\u00fc"',
                    '"a\tb"',
                ),
                *(
                    "[]",
                    "{}",
                    '{"b": [1, 2.5, null, "${V}"], "a": {"a": 1, "a": 2}}',
                    "[1,]",
                    "{a: 1}",
                    "3 4",
                ),
                *("${V}", '"${{V}}"', "\n3\n", "//", "\ufeff3", "\u00a03"),
            )
        ),
        ["-p", "KEY=a"],
        ["-p", 'KEY={"a": 1}'],
        ["-p", "NULL_=1"],
        ["-p", "NULL_= null "],
        ["-p", "V=null"],
    ],
    "typed": [[], ["-p", "REPLICAS=many"], ["-p", "REPLICAS=", "-p", "PORT=80.5"]],
    "labels": [
        [],
        *(
            ["-l", value]
            for value in (
                *(
                    "a=b",
                    "a=b,c=d",
                    "a=",
                    "both=given",
                    "a=${P}",
                    "${KEY}=given",
                    "a=b,a=c",
                    "a=${{P}}",
                    "a= b ",
                ),
                *("a", "a=b=c", "=b", "a=b,", ",", "a=b,,c=d", ""),
            )
        ),
        ["-l", "a=b", "-l", "c=d"],
    ],
    "labels-empty": [[], ["-l", "a=c"]],
    "no-objects": [[], ["-l", "a=b"], ["--parameters"], ["-p", "A=b"]],
    "lists": [[], ["-l", "a=b"]],
    "parameters": [
        [],
        ["-p", "REQUIRED="],
        ["-p", "REQUIRED=a"],
        *(
            ["-p", "REQUIRED=a", "-p", "GENERATED=b", *more]
            for more in (
                [],
                ["-p", "GENERATED2=b"],
                ["-p", "TWICE=given"],
                ["-p", "UNKNOWN="],
                ["-p", "DEFAULT="],
                ["-p", "DEFAULT=x"],
                ["-p", "NULLS=x", "-p", "NOTHING=y"],
                ["-p", "dotted.name=x"],
            )
        ),
        ["-p", "REQUIRED=a", "-p", "GENERATED="],
        ["--param-file", "values.env"],
        ["--param-file", "values.env", "-p", "REQUIRED=given"],
        ["--param-file", "values.env", "--param-file", "more.env"],
        ["--param-file", "more.env", "--param-file", "values.env"],
        ["--param-file", "bad.env"],
        ["--param-file", "bad-name.env"],
        ["--param-file", "none.env"],
        ["--param-file", "expected"],
        ["--parameters"],
        ["--parameters", "--param-file", "values.env"],
        ["--parameters", "--param-file", "bad.env"],
        ["--parameters", "-p", "REQUIRED=a"],
        ["--parameters", "-l", "a=b"],
        ["--parameters", "-o", "json"],
        ["-o", "xml", "-p", "REQUIRED=a"],
        ["a", "b", "-p", "REQUIRED=a"],
    ],
}
# Where only whether it works can be the same: a generated value is in the output.
GENERATED = {("parameters", ("-p", "REQUIRED=a"))}


class Case(NamedTuple):
    """One template and the words that it is processed with."""

    template: str
    words: tuple[str, ...]

    @property
    def key(self) -> str:
        """What the expected results call it."""
        return json.dumps(self.words, ensure_ascii=False)

    def __str__(self) -> str:
        return " ".join([self.template, *map(ascii, self.words)])


def cases() -> list[Case]:
    """All of them, in the order of files."""
    names = sorted(path.stem for path in FOLDER.glob("*.yaml"))
    assert set(WORDS) <= set(names)
    return [Case(name, tuple(words)) for name in names for words in WORDS.get(name, [[]])]


def oc() -> str | None:
    """The real one: `$OC`, or from PATH."""
    return os.environ.get("OC") or shutil.which("oc")


def ask(program: str, template: Path, *words: str) -> dict[str, Any]:
    """What the real `oc` does: `rc` (0, or 1 for all that fails) and the lines that it prints."""
    done = subprocess.run(
        [program, "process", "--local", "-f", str(template), *words],
        capture_output=True,
        check=False,
        cwd=FOLDER,
        env={"PATH": os.defpath, "HOME": "/nonexistent"},
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        return {"rc": 1, "prints": []}
    return {"rc": 0, "prints": done.stdout.decode().split("\n")}


def expected(case: Case) -> dict[str, Any]:
    """What it did when it was asked last."""
    kept = json.loads((EXPECTED / f"{case.template}.json").read_text(encoding="utf-8"))
    found: dict[str, Any] = kept[case.key]
    return found
