"""Manipulated bundles: arbitrary values in descriptions, and weights that don't match their names."""

import json
import os
import pickle
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import yaml
from hostile_case import Case, Commands, Make, Place

WILD: tuple[Any, ...] = (
    None, True, -1, 0, 1, 10**9, 10**30, -(10**18), 0.5, float("nan"), float("inf"), -float("inf"), "", "x",
    "x" * (1 << 20),
    "\u202e\u0000"[:1], "../../etc/passwd", "/etc/passwd", "file:///etc/passwd", "http://127.0.0.1:9/x", "x.pt", [],
    {}, [[]], [1] * 70000, {"x": {}}, [None], ["a"] * 3, list(range(-3, 3)), {"__class__": "x"}, "os:system",
    "{{7*7}}", "%s%n",
)  # fmt: skip

TEXTS = {
    "laughs": "a0: &a0 [x, x, x]\n" + "".join(f"a{n}: &a{n} [{f'*a{n - 1}, ' * 9}]\n" for n in range(1, 12)),
    "merge bomb": "a: &a {x: 1}\n" + "".join(f"b{n}: {{<<: *a}}\n" for n in range(300)),
    "python object": "format: !!python/object/apply:os.system ['touch escaped']\n",
    "python name": "format: !!python/name:os.system\n",
    "python module": "!!python/object/new:subprocess.Popen [['touch', 'escaped']]\n",
    "brackets": "[" * 100_000,
    "braces": "{a: " * 20_000,
    "indents": "".join(" " * n + "a:\n" for n in range(1200)),
    "minuses": "- " * 50_000,
    "keys twice": "format: 1\nformat: 1\n",
    "two documents": "format: 1\n---\nformat: 1\n",
    "zero bytes": "\0" * 100,
    "utf-16": "\ufeffformat: 1",
    "huge integer": "format: 1" + "0" * 30_000,
    "sexagesimal": "format: " + "1:" * 20_000 + "1",
    "tabs": "format:\t1\n\tbase: x",
    "binary": "format: !!binary " + "A" * 1000,
    "set": "? format\n? base\n",
    "megabytes": "format: 1\nname: " + "x" * (3 << 20),
}


def cases(seed: int) -> Iterator[Case]:
    """Cases without end: each named one once, then random changes of values."""
    named = [*((f"yaml: {name}", _text(text)) for name, text in TEXTS.items()), *_files()]
    for number, (name, make) in enumerate(named):
        yield Case("bundle", name, f"{seed}/bundle/{number}", make)
    number = len(named)
    while True:
        ways: tuple[tuple[str, Make], ...] = (("one value", _changed(1)), ("values", _changed(4)), ("bytes", _bytes))
        name, make = ways[number % 3]
        yield Case("bundle", name, f"{seed}/bundle/{number}", make)
        number += 1


def _copy(place: Place) -> Path:
    folder = place.inputs / "model"
    shutil.copytree(place.stock.model, folder)
    return folder


def _commands(place: Place, folder: Path) -> Commands:
    clip = place.stock.clips[1]
    run = place.run(clip, model=folder, more=place.random.choice(([], ["--json"])))
    return [["models", "check", str(folder)], run]


def _text(text: str) -> Make:
    def make(place: Place) -> Commands:
        folder = _copy(place)
        path = folder / "bundle.yaml"
        after = place.random.random() < 0.5
        whole = path.read_text() + text if after else text
        path.write_text(whole, encoding="utf-16" if text.startswith("\ufeff") else "utf-8")
        return _commands(place, folder)

    return make


def places_in(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Places of all values in nested plain data."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places_in(value, (*path, key))


def change(data: Any, random: Random, wild: tuple[Any, ...] = WILD) -> None:
    """Changes nested plain data: sets a value to a wild or to another one, removes it, or adds one."""
    places = list(places_in(data))
    if not places:
        return
    *parents, last = random.choice(places)
    inner = data
    for key in parents:
        inner = inner[key]
    how = random.randrange(6)
    if how == 0:
        del inner[last]
    elif how == 1 and isinstance(inner, dict):
        inner[random.choice(("x", "", "../x", "__class__", 7, None))] = inner[last]
    elif how == 2 and type(inner[last]) in (int, float):
        inner[last] = random.choice((-1, 2, 1000, 1e18)) * (inner[last] + 1)
    else:
        inner[last] = random.choice(wild)


def _changed(times: int) -> Make:
    def make(place: Place) -> Commands:
        folder = _copy(place)
        path = folder / "bundle.yaml"
        data = yaml.safe_load(path.read_text())
        for _ in range(times):
            change(data, place.random)
        path.write_text(yaml.safe_dump(data, sort_keys=False))
        return _commands(place, folder)

    return make


def _bytes(place: Place) -> Commands:
    folder = _copy(place)
    path = place.random.choice(sorted(folder.iterdir()))
    data = bytearray(path.read_bytes())
    for _ in range(place.random.choice((1, 5, 30))):
        data[place.random.randrange(min(len(data), 2000))] = place.random.randrange(256)
    path.write_bytes(data)
    return _commands(place, folder)


def _files() -> Iterator[tuple[str, Make]]:
    def header(size: int, text: bytes = b"{}") -> Callable[[Path], object]:
        return lambda path: path.write_bytes(struct.pack("<Q", size) + text)

    def tensors(head: dict[str, Any]) -> Callable[[Path], object]:
        text = json.dumps(head).encode()
        return header(len(text), text)

    far = {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}
    spoils: dict[str, Callable[[Path], object]] = {
        "gone": lambda path: path.unlink(),
        "empty": lambda path: path.write_bytes(b""),
        "cut": lambda path: path.write_bytes(path.read_bytes()[:-100]),
        "header of 2**63": header(1 << 63),
        "header of 2**40": header(1 << 40),
        "header of brackets": header(100_000, b"[" * 100_000),
        "no tensors": tensors({}),
        "tensor of terabytes": tensors({"x": far}),
        "negative shape": tensors({"x": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 0]}}),
        "overflowing shape": tensors({"x": {"dtype": "F32", "shape": [1 << 33, 1 << 33], "data_offsets": [0, 0]}}),
        "long names": tensors({"x" * 90_000: {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}),
        "names to print": tensors({"\x1b[2J": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}),
        "pickle": lambda path: path.write_bytes(pickle.dumps(_Escape())),
        "link to passwd": lambda path: (path.unlink(), path.symlink_to("/etc/passwd")),
        "link to zeros": lambda path: (path.unlink(), path.symlink_to("/dev/zero")),
        "link to itself": lambda path: (path.unlink(), path.symlink_to(path)),
        "pipe": lambda path: (path.unlink(), os.mkfifo(path)),
        "folder": lambda path: (path.unlink(), path.mkdir()),
        "nan": _nans,
    }
    for name, spoil in spoils.items():
        yield f"weights: {name}", _spoilt(spoil, "*.safetensors")
    for name in ("empty", "link to zeros", "link to itself", "pipe", "folder"):
        yield f"bundle.yaml: {name}", _spoilt(spoils[name], "bundle.yaml")


def _spoilt(spoil: Callable[[Path], object], pattern: str) -> Make:
    def make(place: Place) -> Commands:
        folder = _copy(place)
        spoil(place.random.choice(sorted(folder.glob(pattern))))
        return _commands(place, folder)

    return make


def _nans(path: Path) -> None:
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    path.write_bytes(data[: 8 + size] + b"\xff" * (len(data) - 8 - size))


class _Escape:
    def __reduce__(self) -> Any:
        return os.system, ("touch escaped",)
