"""What a notebook needs of the place it runs in: its parameters checked, and read where they are text.

papermill passes on unknown names and wrong types without a word, so the cell after the parameters calls
`check_parameters(globals())`. Knows IPython's history of cells; knows nothing of what the parameters mean.
"""

from __future__ import annotations

import ast
import difflib
import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

TYPES = {"int": int, "float": (int, float), "str": str, "bool": bool}
INJECTED = "# Parameters"  # papermill's first line of the cell it puts after the parameters


@dataclass(frozen=True)
class Parameter:
    """One line of a parameters cell: `name: kind = default  # help`."""

    name: str
    kind: str
    default: object
    help: str


def check_parameters(namespace: dict) -> None:
    """See that a notebook's parameters have known names and the right types, and print them with their meaning.

    Args:
        namespace: the notebook's `globals()`.

    Raises:
        ValueError: papermill passed a name that the parameters cell doesn't have, or a value has the wrong type; the
            message names it and says what was expected.
    """
    cells = [cell for cell in namespace.get("In", []) if cell.strip()]
    declared = next((found for cell in reversed(cells) if (found := parse_parameters(cell))), None)
    if declared is None:
        raise ValueError("parameters: expected a cell of lines like `steps: int = 100  # help` to run before this one")
    known = {parameter.name: parameter for parameter in declared}
    for name in _injected_names(cells):
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ValueError(f"parameter {name}: unknown, expected one of {', '.join(known)}{hint}")
    for parameter in declared:
        check_type(parameter, namespace[parameter.name])
    width = max(len(f"{name} = {namespace[name]!r}") for name in known)
    for name, parameter in known.items():
        print(f"{f'{name} = {namespace[name]!r}':{width}}  {parameter.help}")


def parse_parameters(source: str) -> list[Parameter]:
    """The parameters that a cell declares; none unless all its statements are `name: kind = literal`."""
    try:
        statements = ast.parse(source).body
    except SyntaxError:
        return []
    lines = source.splitlines()
    parameters = []
    for statement in statements:
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            return []
        if statement.value is None or ast.unparse(statement.annotation) not in TYPES:
            return []
        last = lines[(statement.end_lineno or statement.lineno) - 1]
        help_text = re.search(r"#\s*(.*)$", last[statement.end_col_offset :])
        parameters.append(
            Parameter(
                statement.target.id,
                ast.unparse(statement.annotation),
                ast.literal_eval(statement.value),
                help_text.group(1).strip() if help_text else "",
            )
        )
    return parameters


def check_type(parameter: Parameter, value: object) -> None:
    """Raise `ValueError` unless `value` is of the parameter's kind; an int will do for a float, a bool for neither."""
    right = isinstance(value, TYPES[parameter.kind]) and (parameter.kind == "bool" or not isinstance(value, bool))
    if right:
        return
    hint = ""
    if parameter.kind == "bool":
        hint = "; papermill takes True or False, with a capital letter"
    elif parameter.kind == "str":
        hint = f"; papermill's -r {parameter.name} {_given_text(parameter.name, value)} passes it as text"
    elif isinstance(value, str) and re.fullmatch(
        r"[+-]?\d+" if parameter.kind == "int" else r"[+-]?[\d.]+(e[+-]?\d+)?", value
    ):
        hint = f"; papermill's -p {parameter.name} {value} passes it as a number"
    raise ValueError(
        f"parameter {parameter.name}: expected {parameter.kind}, got {type(value).__name__} {value!r}{hint}"
    )


def _given_text(name: str, value: object) -> str:
    """The text that papermill was given for a parameter, of which -p has made a number; its value if nobody knows."""
    try:
        words = Path(f"/proc/{os.getppid()}/cmdline").read_text(errors="replace").split("\0")  # papermill's
    except OSError:
        words = []
    given = [text for flag, key, text in zip(words, words[1:], words[2:]) if flag[:2] in ("-p", "--") and key == name]
    return shlex.quote(given[-1] if given else str(value))


def _injected_names(cells: list[str]) -> list[str]:
    """The names that papermill's own cell sets."""
    injected = [cell for cell in cells if cell.lstrip().startswith(INJECTED + "\n")]
    statements = ast.parse(injected[-1]).body if injected else []
    targets = [target for one in statements if isinstance(one, ast.Assign) for target in one.targets]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def parse_frames(text: str) -> tuple[int, ...]:
    """Frame numbers from a parameter's text.

    >>> parse_frames("0, 3")
    (0, 3)
    """
    if not re.fullmatch(r"\s*\d+\s*(,\s*\d+\s*)*", text):
        raise ValueError(f"expected frame numbers like '0' or '0,3', got {text!r}")
    return tuple(int(number) for number in text.split(","))


def parse_size(text: str) -> tuple[int, int] | None:
    """(height, width) from a parameter's text; None for "".

    >>> parse_size("120x240")
    (120, 240)
    """
    if not text.strip():
        return None
    found = re.fullmatch(r"\s*(\d+)\s*[x×]\s*(\d+)\s*", text)
    if not found:
        raise ValueError(f"expected a size like '120x240' (height x width), or '' for the frames' own, got {text!r}")
    return int(found[1]), int(found[2])
