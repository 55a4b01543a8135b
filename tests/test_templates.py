"""Templates: what `oc process --local` makes of them, kept in the repository, and the real one where it is."""

from __future__ import annotations

import json
import re
import shutil
import string
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ipython_builder import cli as command_line
from ipython_builder import documents, expressions, parameters, templates
from ipython_builder.errors import UsageError
from ipython_builder.spec.locks import find_uv
from tests import template_cases
from tests.conftest import CHECKOUT, Cli
from tests.template_cases import FOLDER, GENERATED, Case

CASES = template_cases.cases()
PACKAGED = templates.packaged()
HEAD = "apiVersion: template.openshift.io/v1\nkind: Template\n"


@pytest.fixture
def oc() -> str:
    found = template_cases.oc()
    if found is None:
        # Not `missing`: it is in no package index, so that a CI need not have it. What it said is kept.
        pytest.skip("the real oc is not here: name one with $OC")
    return found


@pytest.fixture
def process(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run `template process` in this process: its exit code, the lines on stdout, and all of stderr."""

    def run(*words: str) -> tuple[int, list[str], str]:
        monkeypatch.chdir(FOLDER)
        code = command_line.exit_code(["template", "process", *words])
        said = capfd.readouterr()
        return code, said.out.split("\n"), said.err

    return run


# -- as the real one ------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_same_as_oc(case: Case, process: Any) -> None:
    code, lines, errors = process("-f", f"{case.template}.yaml", *case.words)
    wanted = template_cases.expected(case)
    if wanted["rc"]:
        assert code == 2, "a user's error, of which the user is told"
        assert lines == [""]
        assert "Traceback" not in errors
        assert re.search(r" next: \w|Error: ", errors)
    elif case in GENERATED:
        assert code == 0
    else:
        assert (code, lines) == (0, wanted["prints"]), errors


def test_expected_results_are_of_these_cases() -> None:
    kept = {
        (path.stem, key)
        for path in template_cases.EXPECTED.glob("*.json")
        for key in json.loads(path.read_text(encoding="utf-8"))
    }
    assert kept == {(case.template, case.key) for case in CASES}, "run: python -m tests.renew_templates"


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_real_oc_still_says_so(case: Case, oc: str) -> None:
    found = template_cases.ask(oc, FOLDER / f"{case.template}.yaml", *case.words)
    if case in GENERATED:
        assert found["rc"] == 0
    else:
        assert found == template_cases.expected(case)


@pytest.mark.parametrize("case", [case for case in CASES if "-o" not in case.words], ids=str)
def test_yaml_has_the_same_objects(case: Case, process: Any) -> None:
    wanted = template_cases.expected(case)
    if wanted["rc"] or case in GENERATED or "--parameters" in case.words:
        return
    code, lines, _ = process("-f", f"{case.template}.yaml", *case.words, "-o", "yaml")
    assert code == 0
    assert documents.read("\n".join(lines)) == [json.loads("\n".join(wanted["prints"]))]


# -- the templates that come with the tool ---------------------------------------------------------------


def values(name: str, every: bool) -> list[str]:
    """Words that leave nothing to chance; with `every` one for each parameter, of characters that hurt."""
    found = []
    for number, one in enumerate(templates.load(name).parameters):
        if every:
            # A whole value may become a number, so some have to be one.
            value = f"{number}" if one.value.isdigit() else f'v{number} "ü" $x <{number}> \\ ${{{one.name}}}'
            found += ["-p", f"{one.name}={value}"]
        elif one.generate or one.required:
            found += ["-p", f"{one.name}=x{number}"]
    return found


@pytest.mark.parametrize("every", [False, True], ids=["defaults", "every"])
@pytest.mark.parametrize("name", PACKAGED)
def test_packaged_templates_are_the_same_as_with_oc(name: str, every: bool, oc: str, process: Any) -> None:
    words = values(name, every)
    wanted = template_cases.ask(oc, CHECKOUT / "templates" / f"{name}.yaml", *words)
    assert wanted["rc"] == 0
    code, lines, _ = process(name, *words)
    assert (code, lines) == (0, wanted["prints"])


@pytest.mark.parametrize("name", PACKAGED)
def test_nothing_in_packaged_templates_refers_to_nothing(name: str) -> None:
    template = templates.load(name)
    given = {one.name: f"x{number}" for number, one in enumerate(template.parameters)}
    done = templates.process(template, given)
    assert "${" not in documents.to_json(done.objects)
    assert "${" not in (done.message or "")
    assert done.values == given
    unused = [one for one in given if one not in re.findall(r"\$\{\{?(\w+)\}", templates.text(name))]
    assert unused == []
    assert template.notices == ()


def test_packaged_are_the_files_in_the_checkout() -> None:
    there = {path.stem: path.read_text(encoding="utf-8") for path in (CHECKOUT / "templates").glob("*.yaml")}
    kinds = {name: yaml.safe_load(text)["kind"] for name, text in there.items()}
    assert sorted(name for name, kind in kinds.items() if kind == "Template") == PACKAGED
    assert len(PACKAGED) >= 4
    for name in PACKAGED:
        assert templates.text(name) == there[name]
        assert templates.load(name).name == name


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["--wheel", "--sdist"])
def test_templates_are_in_what_is_installed(kind: str, tmp_path: Path) -> None:
    """The link to the folder becomes files, those of OpenShift only."""
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, source)
    shutil.copytree(CHECKOUT / "templates", source / "templates")
    unwanted = shutil.ignore_patterns("*.egg-info", "__pycache__")
    shutil.copytree(CHECKOUT / "builder", source / "builder", symlinks=True, ignore=unwanted)
    subprocess.run([find_uv(), "build", "--quiet", kind, "--out-dir", out, source], check=True)
    [made] = (path for path in out.iterdir() if not path.name.startswith("."))
    if kind == "--wheel":
        shutil.unpack_archive(made, tmp_path / "made", "zip")
    else:
        shutil.unpack_archive(made, tmp_path / "made", filter="data")
    # Of an sdist, what is built from it: the link is not in it.
    root = tmp_path / "made" if kind == "--wheel" else next((tmp_path / "made").iterdir()) / "builder"
    found = {path.name: path.read_bytes() for path in (root / "ipython_builder" / "catalogue").iterdir()}
    assert found == {path.name: path.read_bytes() for path in (CHECKOUT / "templates").glob("*.yaml")}
    assert not list((tmp_path / "made").rglob("compose*")), "what is for elsewhere"


# -- values -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "symbols"),
    [
        ("[a-z]{5}", string.ascii_lowercase),
        ("[a-f0-9]{4}", "abcdef0123456789"),
        ("[a-zA-Z0-9]{8}", string.ascii_letters + string.digits),
        (r"[\w]{9}", string.ascii_letters + string.digits + "_"),
        (r"[\d]{3}", string.digits),
        (r"[\a]{3}", string.ascii_letters + string.digits),
        (r"[\A]{3}", "~!@#$%^&*()-_+={}[]\\|<,>.?/\"';:`"),
        ("[0-1]{8}", "01"),
        ("[y-B]{8}", "yzAB"),
        ("[a-a]{3}", "a"),
        ("[aceg-h]{3}", "abcefgh"),  # pairs are ranges, as in the original
    ],
)
def test_generated_values_use_every_character_and_no_other(expression: str, symbols: str) -> None:
    length = int(expression.partition("{")[2].rstrip("}"))
    drawn = [expressions.generate(expression) for _ in range(10_000)]
    assert {len(value) for value in drawn} == {length}
    # The rarest of 63 is left out of 30,000 with a chance of 63·e⁻⁴⁷⁶.
    assert set("".join(drawn)) == set(symbols)


def test_draws_are_of_all_characters_alike() -> None:
    asked = []

    def draw(limit: int) -> int:
        asked.append(limit)
        return limit - 1

    assert expressions.generate("a[b-d]{2}[e]x[0-1]{3}{4}", draw) == "add[e]x111{4}"
    assert asked == [3, 3, 2, 2, 2]


@pytest.mark.parametrize("text", ["", "plain", "[a-z]", "{5}", "[a-z]{}", "[a-z]{x}", "[ä-ö]{3}", "[a_b]{3}"])
def test_what_is_no_expression_stays(text: str) -> None:
    assert expressions.generate(text) == text


@pytest.mark.parametrize(
    "text", ["[a-z]{0}", "[a-z]{256}", "[z-a]{3}", "[abc]{3}", "[0-a]{3}", r"[\x]{3}", "[-]{1}"]
)
def test_bad_expressions_say_what_to_write(text: str) -> None:
    with pytest.raises(UsageError) as error:
        expressions.generate(text)
    assert text.partition("{")[0] in error.value.message
    assert error.value.hint


def test_every_generated_value_is_drawn_by_itself() -> None:
    body = "parameters:\n" + "".join(
        f"- {{name: {name}, generate: expression, from: '[a-z]{{40}}'}}\n" for name in "AB"
    )
    template = templates.parse(HEAD + body, "here")
    found = [value for _ in range(50) for value in templates.process(template, {}).values.values()]
    assert len(set(found)) == 100
    fixed = templates.process(template, {"A": "a"}, draw=lambda limit: 0).values
    assert fixed == {"A": "a", "B": "a" * 40}


def test_required_is_checked_once_everything_is_there() -> None:
    body = "parameters: [{name: A, required: true}, {name: B, required: true}, {name: C, required: true, value: c}]"
    template = templates.parse(HEAD + body, "here")
    with pytest.raises(UsageError) as error:
        templates.process(template, {})
    assert "needs A, B" in error.value.message
    assert error.value.hint == "give -p A=… -p B=…"


def test_the_message_and_the_values_come_back() -> None:
    template = templates.parse((FOLDER / "strings.yaml").read_text(encoding="utf-8"), "strings.yaml")
    done = templates.process(template, {"ONE": "you"})
    assert done.message == "hello you"
    assert done.values["ONE"] == "you"
    assert template.message == "hello ${ONE}", "a template can be processed again"
    assert templates.process(template, {}).message == "hello one"


@pytest.mark.parametrize("name", ["strings", "values", "labels", "namespaces", "lists"])
def test_processing_changes_no_template(name: str) -> None:
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    template = templates.parse(text, name)
    first = templates.process(template, {})
    assert templates.parse(text, name) == template
    assert templates.process(template, {}) == first


# -- what is refused, in words ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("", "has no documents", "its own file"),
        (HEAD + "---\n" + HEAD, "has 2 documents", "its own file"),
        ("kind: List\napiVersion: v1\nitems: []", "no template but List", "one template at a time"),
        ("kind: Pod\napiVersion: v1", "no template but Pod", "kind: Template"),
        ("kind: Template\napiVersion: v1", "apiVersion v1", templates.API_VERSION),
        (HEAD + "objects: [null]", "objects[0] must be an object, not null", "mend"),
        (HEAD + "parameters: [{name: N}]", "parameters[0].name must be a string, not false", "quotes"),
        (HEAD + "parameters: [{name: A, value: 3}]", "parameters[0].value must be a string, not 3", "quotes"),
        (HEAD + "objects: [{kind: A, a: .nan}]", "not finite", "mend"),
        (HEAD + "objects: [", "line ", "mend"),
        ("[" * 100_000, "nest", "mend"),
        ("[" * 3_000 + "]" * 3_000, "nest", "mend"),
    ],
)
def test_what_is_no_template_is_said(text: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as error:
        templates.parse(text, "here.yaml")
    assert error.value.message.startswith("here.yaml")
    assert message in error.value.message
    assert hint in (error.value.hint or "")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"${A}": 1, "${B}": 2}', "data: two keys become 'x'"),
        ('{"${{N}}": 1}', "data: ${{N}} is a key and must be a string"),
        ('["${{Z}}"]', "data[0] would be null: ${{Z}}"),
    ],
)
def test_what_brings_oc_down_or_is_chance_is_refused(body: str, message: str) -> None:
    text = "parameters: [{name: A, value: x}, {name: B, value: x}, {name: 'N', value: '1'}, {name: Z, value: 'null'}]\n"
    template = templates.parse(f"{HEAD}{text}objects: [{{kind: A, data: {body}}}]", "here")
    with pytest.raises(UsageError) as error:
        templates.process(template, {})
    assert message in error.value.message


def test_typos_are_answered_with_the_nearest(cli: Cli) -> None:
    said = cli("template", "process", "ipython-cluster-workspase")
    assert said.rc == 2
    assert "did you mean ipython-cluster-workspace?" in said.stderr
    said = cli("template", "process", "ipython-cluster-workspace", "-p", "IPYTHON_CLUSTER_LABLE=a")
    assert said.rc == 2
    assert "did you mean IPYTHON_CLUSTER_LABEL?" in said.stderr
    said = cli("template", "process", "ipython-cluster-workspace", "-p", "ipython_cluster_label=a")
    assert "did you mean IPYTHON_CLUSTER_LABEL?" in said.stderr
    said = cli("template", "shwo")
    assert "Did you mean 'show'?" in said.stderr


# -- the verbs -----------------------------------------------------------------------------------------------


def test_ls(cli: Cli) -> None:
    lines = cli("template", "ls", check=True).stdout.splitlines()
    assert [line.split()[0] for line in lines] == PACKAGED
    assert all(templates.load(name).display_name in line for name, line in zip(PACKAGED, lines, strict=True))
    found = cli("template", "ls", "--json", check=True).json["templates"]
    assert [one["name"] for one in found] == PACKAGED
    assert found[0]["display_name"] == templates.load(PACKAGED[0]).display_name


@pytest.mark.parametrize("name", PACKAGED)
def test_show(cli: Cli, name: str) -> None:
    template = templates.load(name)
    text = cli("template", "show", name, check=True).stdout
    for one in template.parameters:
        block = text.partition(f"\n  {one.name}  ")[2].partition("\n\n")[0]
        assert block, one.name
        assert one.display_name in block
        assert (f"generated if not given: {one.from_}" in block) == bool(one.generate)
        assert (f"default: {one.value}" in block) == bool(one.value)
        if not one.generate:
            assert ("required" in block.splitlines()[-1]) == one.required
    found = cli("template", "show", name, "--json", check=True).json
    assert [one["name"] for one in found["parameters"]] == [one.name for one in template.parameters]
    assert [one["from"] for one in found["parameters"]] == [one.from_ for one in template.parameters]
    assert cli("template", "show", name, "--yaml", check=True).stdout == templates.text(name)
    assert cli("template", "show", name, "--yaml", "--json").rc == 2


def test_process_reads_stdin(cli: Cli) -> None:
    text = HEAD + "parameters: [{name: A}]\nobjects: [{kind: B, a: '${A}'}]"
    said = cli("template", "process", "-f", "-", "-p", "A=1", stdin=text, check=True)
    assert said.json["items"] == [{"apiVersion": "", "kind": "B", "a": "1"}]
    said = cli("template", "process", "ipython-cluster-workspace", "--param-file", "-", stdin="UNKNOWN=1\n")
    assert "has no parameter 'UNKNOWN'" in said.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "which template?"),
        (["a", "b"], "one template at a time"),
        (["a", "-f", "b"], "one template at a time"),
        (["-f", "none.yaml"], "none.yaml cannot be read: No such file"),
        (["-f", "."], "Is a directory"),
        (["-f", "https://host/t.yaml"], "download it first"),
        (
            ["-f", "strings.yaml", "-p", "ONE=1", "-p", "ONE=2", "-p", "TWO=1", "TWO=2"],
            "more than once: ONE, TWO",
        ),
        (["-f", "parameters.yaml", "--param-file", "bad.env"], "bad.env, line 2 sets no parameter"),
    ],
)
def test_process_refuses(words: list[str], message: str, process: Any) -> None:
    code, lines, errors = process(*words)
    assert code == 2
    assert lines == [""]
    assert message in errors


def test_process_warns_of_what_is_not_meant(process: Any) -> None:
    _, _, errors = process(
        "-f", "parameters.yaml", "-p", "REQUIRED=a,DEFAULT=b", "--param-file", "values.env"
    )
    assert "'REQUIRED=a,DEFAULT=b' is one value" in errors
    assert "REQUIRED is set already: its value in values.env is not used" in errors
    assert "parameter TWICE is there twice" in errors
    assert "parameters[8] has no name" in errors


# -- YAML and JSON -------------------------------------------------------------------------------------------

TEXT = st.text() | st.from_regex(r"[-+.0-9eExXob_:~yYnNtf=<>!&*#|'\"{}\[\], \n]{1,6}", fullmatch=True)
SCALARS = TEXT | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans() | st.none()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3)
)


@given(VALUES)
def test_what_is_written_is_read_again(value: Any) -> None:
    [once] = documents.read(documents.to_json([value]))
    assert documents.read(documents.to_json(once)) == [once]
    assert documents.read(documents.to_yaml(once)) == [once]


@given(TEXT)
def test_a_string_stays_one_for_other_readers_too(text: str) -> None:
    assert yaml.safe_load(documents.to_yaml({"k": text})) == {"k": text}


# A label of letters and digits may look like a number, to one reader or the other.
LOOKS = [
    *(
        "12e45",
        "1e3",
        "0x10",
        "0o17",
        "010",
        "1_000",
        "1:30",
        "2001-01-01",
        "y",
        "N",
        "on",
        "Off",
        "~",
        "null",
        "",
    ),
    *(
        ".5",
        "5.",
        "+1",
        "-0",
        ".inf",
        "NaN",
        "=",
        "<<",
        "true",
        "0b1",
        "- a",
        "a: b",
        "#",
        "a #b",
        " a",
        "a ",
        "\ta",
    ),
    *(
        "a\nb",
        "\na",
        "a\n\n",
        "  a\nb",
        "a \nb",
        "é\x85b",
        "\u2028",
        "\ufeff",
        "\x07",
        "@",
        "`",
        "%",
        "!t",
        "&a",
        "*a",
    ),
    *(
        "---",
        "...",
        "?",
        "-",
        "'",
        '"',
        "a\tb\n",
        "|",
        ">",
        "1__0",
        "_1",
        "1e400",
        "0x_1",
        "9" * 30,
        "?a",
        "a:",
        ":a",
    ),
]


def test_oc_reads_our_yaml_as_we_do(oc: str, tmp_path: Path) -> None:
    thing = {"apiVersion": "v1", "kind": "A", "strings": LOOKS, "keys": dict.fromkeys(LOOKS, 1)}
    thing |= {
        "numbers": [0, -1, 2**53, 2**63 - 1, -(2**63), 0.1, 1e21, 1e-7, 1.5e300, 5e-324],
        "empty": [[], {}],
    }
    template = {"apiVersion": templates.API_VERSION, "kind": "Template", "objects": [thing]}
    path = tmp_path / "t.yaml"
    path.write_text(documents.to_yaml(template), encoding="utf-8")
    said = template_cases.ask(oc, path)
    assert said["rc"] == 0
    assert json.loads("\n".join(said["prints"]))["items"] == [thing]


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", "-Infinity", "1 2", "", "{'a': 1}"])
def test_json_is_read_strictly(text: str) -> None:
    with pytest.raises(ValueError):
        documents.from_json(text)


def test_parameters_of_files() -> None:
    found = parameters.from_file((FOLDER / "values.env").read_text(encoding="utf-8"), "values.env")
    assert found["DEFAULT"] == 'a "quoted" text\nwith lines'
    assert found["GENERATED"] == "yaml style"
    assert found["TWICE"] == "last"
