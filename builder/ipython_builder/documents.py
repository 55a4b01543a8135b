"""YAML and JSON as Kubernetes' own tools read and write them.

They read YAML with rules of their own: ``y`` and ``on`` are booleans, ``1e3`` is a number, ``1:30`` and a
date are strings. PyYAML has others, so what one of them writes plainly is another value to the other.
Everything passes through JSON there: keys are strings, and integers beyond 64 bits are floats.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import yaml

_TAG = "tag:yaml.org,2002:"
_PLAIN = "!plain"
_WORDS: dict[str, bool | float | None] = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
    **{sign + word: math.inf for word in (".inf", ".Inf", ".INF") for sign in ("", "+")},
    **{"-" + word: -math.inf for word in (".inf", ".Inf", ".INF")},
}
_INTEGER = re.compile(r"([-+]?)(0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO]?[0-7]+|0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_FRACTION = re.compile(r"\.[0-9]+(_[0-9]+)*([eE][-+]?[0-9]+(_[0-9]+)*)?")
_INT64 = range(-(2**63), 2**63)
_UINT64 = range(2**64)


def read(text: str) -> list[Any]:
    """The documents in `text`, without empty ones: JSON, else YAML.

    Raises:
        ValueError: neither, or a value that JSON has no word for.
    """
    try:
        return [from_json(text, integers=True)]
    except ValueError:
        pass  # most files are YAML
    try:
        found = [_plain(one) for one in yaml.load_all(text, Loader=_Loader)]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ValueError(f"line {mark.line + 1}: {error.problem}" if mark else str(error)) from error
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return [one for one in found if one is not None]


def from_json(text: str, *, integers: bool = False) -> Any:
    """One JSON value, read strictly.

    Args:
        text: the JSON.
        integers: whether integers of 64 bits stay what they are. Without it every number is a float first, as
            in Go where no type is asked for: 9007199254740993 becomes 9007199254740992.

    Raises:
        ValueError: it is none.
    """
    number = int if integers else float

    def parse_int(digits: str) -> float:
        return number(digits) if len(digits) <= 20 else float(digits)

    try:
        return _plain(json.loads(text, parse_int=parse_int, parse_constant=_refuse))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def to_json(value: Any, indent: str = "") -> str:
    """`value` as Go's encoder writes it, byte for byte: sorted, four spaces, ``<`` ``>`` ``&`` escaped."""
    inner = indent + "    "
    if isinstance(value, Mapping) and value:
        rows = [f"{_string(key)}: {to_json(value[key], inner)}" for key in sorted(value)]
    elif isinstance(value, list) and value:
        rows = [to_json(one, inner) for one in value]
    elif isinstance(value, str):
        return _string(value)
    elif isinstance(value, float):
        return _float(value)
    else:
        return json.dumps(value)
    opening, closing = "[]" if isinstance(value, list) else "{}"
    return f"{opening}\n{inner}" + f",\n{inner}".join(rows) + f"\n{indent}{closing}"


def list_as_json(items: Sequence[Any] | None) -> str:
    """A `List` of objects as `oc process` prints it."""
    written = to_json(None if items is None else list(items), "    ")
    head = '{\n    "kind": "List",\n    "apiVersion": "v1",\n    "metadata": {},\n    "items": '
    return head + written + "\n}\n"


def list_as_yaml(items: Sequence[Any] | None) -> str:
    """The same as YAML. Strings that any reader could take for something else are quoted."""
    objects = None if items is None else list(items)
    return to_yaml({"apiVersion": "v1", "items": objects, "kind": "List", "metadata": {}})


def to_yaml(value: Any) -> str:
    """`value` as YAML that Kubernetes' tools, and others, read back as it is."""
    found: str = yaml.dump(value, Dumper=_Dumper, allow_unicode=True, width=2**20, default_flow_style=False)
    return found


def resolve(text: str) -> Any:
    """What a plain YAML scalar means (go.yaml.in/yaml/v2, resolve.go)."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "+-.0123456789":
        return text
    if text[0] == ".":
        return _finite(text) if _FRACTION.fullmatch(text) else text
    digits = text.replace("_", "")
    if match := _INTEGER.fullmatch(digits):
        # A leading zero is octal. An unsigned reading has no sign.
        number = _integer(match[2]) * (-1 if match[1] == "-" else 1)
        if number in _INT64 or (not match[1] and number in _UINT64):
            return number
    if _FLOAT.fullmatch(digits):
        return _finite(digits, otherwise=text)
    return text


def characters(text: str) -> str:
    """`text` with U+FFFD for what is no character: half of a surrogate pair, or a byte that was not UTF-8."""
    if text.isprintable():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _integer(digits: str) -> int:
    if len(digits) > 1 and digits[0] == "0" and digits[1].isdigit():
        return int(digits, 8)
    return int(digits, 0) if len(digits) < 70 else 2**70  # far beyond 64 bits in any base


def _finite(text: str, otherwise: str | None = None) -> float | str:
    number = float(text) + 0.0  # JSON's integers have no negative zero
    return (otherwise or text) if math.isinf(number) else number


def _refuse(word: str) -> float:
    raise ValueError(f"{word} is no JSON")


def _plain(value: Any) -> Any:
    """`value` as it comes out of JSON."""
    if isinstance(value, dict):
        return {_plain(_key(key)): _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, str):
        return characters(value)
    if isinstance(value, int) and value not in _INT64:
        value = float(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("a number that is not finite")
        # A whole number has no fraction, and the digits that a reader of JSON sees.
        if value.is_integer() and abs(value) < 1e21 and (value or math.copysign(1, value) > 0):
            return int(Decimal(repr(value)))
    return value


def _key(key: Any) -> str:
    match key:
        case str():
            return key
        case bool():
            return "true" if key else "false"
        case int() if key in _INT64:
            return str(key)
        case float():
            return _float32(key)
    raise ValueError(f"{key!r} is a key: write it as a string, in quotes")


def _float32(value: float) -> str:
    """The shortest digits that name the same 32-bit float, as Go writes a key that is a number."""
    if not math.isfinite(value) or abs(value) > 3.4e38:
        raise ValueError(f"{value!r} is a key: write it as a string, in quotes")
    wanted = struct.pack("f", value)
    text = next(
        text for digits in range(17) if struct.pack("f", float(text := f"{value:.{digits}e}")) == wanted
    )
    exponent = int(text.partition("e")[2])
    return text if exponent < -4 or exponent >= 6 else format(Decimal(text), "f")


def _float(value: float) -> str:
    if value == 0 or 1e-6 <= abs(value) < 1e21:
        return format(Decimal(repr(value)), "f").removesuffix(".0")
    return re.sub(r"e-0(\d)$", r"e-\1", repr(value))


def _string(text: str) -> str:
    written = json.dumps(text, ensure_ascii=False)
    return re.sub("[<>&\u2028\u2029]", lambda found: f"\\u{ord(found[0]):04x}", written)


_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_SafeLoader):  # type: ignore[misc]
    """Plain scalars mean what `resolve` says."""

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        if kind is yaml.ScalarNode:
            if not implicit[0]:
                return _TAG + "str"
            return _TAG + "merge" if value == "<<" else _PLAIN
        return _TAG + ("seq" if kind is yaml.SequenceNode else "map")

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Put what is merged where it is merged, the first of several last: of two keys the last one counts.

        PyYAML's own has it that a mapping's own keys always win, and in Go that is so only behind the ``<<``.
        """
        pairs: list[Any] = []
        for key, value in node.value:
            if key.tag != _TAG + "merge":
                pairs.append((key, value))
                continue
            sources = value.value if isinstance(value, yaml.SequenceNode) else [value]
            for source in reversed(sources):
                if not isinstance(source, yaml.MappingNode):
                    raise yaml.constructor.ConstructorError(
                        None, None, "what is merged with << must be a mapping", source.start_mark
                    )
                self.flatten_mapping(source)
                pairs += source.value
        node.value = pairs


def _tagged(loader: Any, node: yaml.ScalarNode) -> Any:
    """`!!int`, `!!float`, `!!bool` and `!!null`: a wish that what is written must be able to fulfil."""
    value, wanted = resolve(node.value), node.tag.removeprefix(_TAG)
    kinds = {"int": int, "float": (int, float), "bool": bool, "null": type(None)}
    right = isinstance(value, kinds[wanted]) and isinstance(value, bool) == (wanted == "bool")  # type: ignore[arg-type]
    if not right:
        raise yaml.constructor.ConstructorError(None, None, f"{node.value!r} is no {wanted}", node.start_mark)
    return value


def _unknown(loader: Any, node: yaml.Node) -> Any:
    """A tag that means nothing here is not looked at."""
    match node:
        case yaml.ScalarNode():
            return node.value
        case yaml.SequenceNode():
            return loader.construct_sequence(node, deep=True)
    return loader.construct_mapping(node, deep=True)


def _binary(loader: Any, node: yaml.ScalarNode) -> str:
    return str(loader.construct_yaml_binary(node).decode("utf-8", "replace"))


_Loader.add_constructor(_PLAIN, lambda loader, node: resolve(node.value))
for _name in ("int", "float", "bool", "null"):
    _Loader.add_constructor(_TAG + _name, _tagged)
for _name in ("timestamp", "set", "omap", "pairs"):
    _Loader.add_constructor(_TAG + _name, _unknown)
_Loader.add_constructor(_TAG + "binary", _binary)
_Loader.add_constructor(None, _unknown)


class _Dumper(yaml.SafeDumper):
    """Sorted, without aliases, and with quotes around whatever any YAML reader could take for no string."""

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        tag: str = super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]
        if (
            kind is yaml.ScalarNode
            and implicit[0]
            and tag == _TAG + "str"
            and not isinstance(resolve(value), str)
        ):
            return _PLAIN
        return tag

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: _Dumper, text: str) -> yaml.Node:
    style = None  # plain, or in quotes where it must be
    if not text.replace("\n", "").isprintable():
        style = '"'  # the only one with escapes
    elif "\n" in text.strip("\n"):
        style = "|"
    return dumper.represent_scalar(_TAG + "str", text, style=style)


_Dumper.add_representer(str, _text)
