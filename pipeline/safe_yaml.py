"""Reads untrusted YAML as plain data; aliases (small files could become large objects) and repeated keys are errors."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from deltascene.pipeline.text import one_line

_LARGEST_BYTES = 1 << 20
_LINE = 120

# Errors that PyYAML's constructors raise: `2024-99-99` (ValueError), `!!int ""` (IndexError), `!!bool x`
# (KeyError), `!!timestamp x` (AttributeError), `{? {} : 1}` (TypeError), thousands of brackets (RecursionError).
_UNREADABLE = (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError, OverflowError)


class _PlainLoader(yaml.SafeLoader):
    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "aliases aren't allowed", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} stands twice", key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        return super().construct_mapping(node, deep)


class _PlainDumper(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        """Text as PyYAML writes it, but escaped where it isn't printable: a plain U+0085 would be read as a space."""
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=None if data.isprintable() else '"')

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> yaml.SequenceNode:
        """Lists of plain values in flow style, where they fit on a line."""
        values = list(sequence)
        flat = not any(isinstance(value, dict | list | tuple | set) for value in values)
        short = len(", ".join(map(str, values))) < _LINE - 24
        return super().represent_sequence(
            "tag:yaml.org,2002:seq", values, flow_style=self.default_flow_style or (flat and short)
        )


_PlainDumper.add_representer(str, _PlainDumper.represent_str)
_PlainDumper.add_representer(tuple, _PlainDumper.represent_list)


def parse_yaml(text: str) -> Any:
    """Reads one YAML document as plain values.

    Raises:
        ValueError: it can't be read; one line.
    """
    try:
        return yaml.load(text, Loader=_PlainLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ValueError(f"not readable as YAML: {where}{one_line(error.problem)}") from error
    except _UNREADABLE as error:
        raise ValueError(f"not readable as YAML: {one_line(error)}") from error


def read_mapping(path: Path) -> dict[str, Any]:
    """Reads a YAML file that holds a mapping; an empty file is an empty mapping.

    Raises:
        ValueError: it can't be read, or holds something else; one line, without the path.
    """
    try:
        size = path.stat().st_size
        if size > _LARGEST_BYTES:
            raise ValueError(f"expected at most {_LARGEST_BYTES} bytes; found {size}")
        data = parse_yaml(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError("not readable as YAML: not UTF-8 text") from error
    except OSError as error:
        raise ValueError(f"can't be read: {error.strerror}") from error
    if data is not None and not isinstance(data, dict):
        raise ValueError(f"expected a mapping; found {type(data).__name__}")
    return data or {}


def render_yaml(data: Any, *, inline: bool = False) -> str:
    """Plain values as YAML: mappings in blocks, short lists on one line.

    Args:
        data: plain values.
        inline: everything on one line.

    Raises:
        ValueError: a value isn't plain.
    """
    style, width = (True, 1 << 20) if inline else (False, _LINE)
    try:
        return yaml.dump(
            data, Dumper=_PlainDumper, sort_keys=False, default_flow_style=style, width=width, allow_unicode=True
        )
    except yaml.YAMLError as error:
        raise ValueError(f"can't be written as YAML: {one_line(error)}") from error
