"""Manipulated run folders: seals, records, tables, array descriptions, and links that lead out of the folder."""

import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from hostile_bundles import WILD, change
from hostile_case import Case, Commands, Make, Place

_NAMES = ("../x", "../../../../bystander/note.txt", "/etc/passwd", "", ".", "a\0b", "x" * 5000, "~", "segments")
_ABOUT_FILES = (
    *WILD,
    {name: [1, "x"] for name in _NAMES},
    {"x": [10**30, "x"]},
    {"x": [1]},
    {"x": [-1, None]},
    {"x": "yy"},
)
_TEXT = ("run.yaml", "*.json", "*.jsonl")


def cases(seed: int) -> Iterator[Case]:
    """Cases without end: each named one once, then random ones."""
    ways = [
        *_links(),
        *_broken(),
        ("values", _values),
        ("bytes", _bytes),
        ("table", _table),
        ("segment", _segment),
        ("files swapped", _swapped),
    ]
    for number, (name, make) in enumerate(ways):
        yield Case("out", name, f"{seed}/out/{number}", make)
    number = len(ways)
    while True:
        name, make = (("values", _values), ("bytes", _bytes), ("table", _table), ("segment", _segment))[number % 4]
        yield Case("out", name, f"{seed}/out/{number}", make)
        number += 1


def _copy(place: Place) -> list[Path]:
    """Copies a run, finished or unfinished; returns its files without reports and overlays."""
    shutil.copytree(place.stock.run, place.out, symlinks=True)
    if place.random.random() < 0.5:
        for done in place.out.glob("videos/*/done.json"):
            done.unlink()
    files = sorted(path for path in place.out.rglob("*") if path.is_file())
    return [path for path in files if not path.name.startswith("report") and path.suffix != ".webm"]


def _commands(place: Place) -> Commands:
    """Two other commands, and then a resume."""
    out = str(place.out)
    run = place.run(*place.stock.clips[:2])
    others: Commands = [
        ["report", out],
        ["report", "diff", out, str(place.stock.run)],
        ["report", "diff", str(place.stock.run), out],
        ["backfill", out, "--task", "flow", "--model", str(place.stock.model)],
        ["cache", "ls", out],
        ["cache", "verify", out],
        ["cache", "gc", out, "--budget", "20KB"],
        ["config", "show", "--config", str(place.out / "run.yaml")],
        [*run, "--json"],
        [*run, "--force"],
    ]
    return [*place.random.sample(others, 2), run]


def _broken() -> Iterator[tuple[str, Make]]:
    patterns = (
        "run.yaml",
        "locks/*.json",
        "done.json",
        "[0-9]*.zip",
        "zarr.json",
        "*.parquet",
        "errors.jsonl",
    )
    contents = (
        b"",
        b"[" * 100_000,
        b"{" * 9,
        b'{"a":' * 5000,
        b"\xff\xfe",
        b"null",
        b"[]",
        b"1",
        b'"x"',
        b"1" * 20_000,
        b"PAR1",
    )
    for number, pattern in enumerate(patterns):
        for content in contents[number % 3 :: 3]:
            yield f"{pattern}: {content[:5]!r}", _replaced(pattern, content)
    yield "zip of nothing", _replaced("*.zip", b"PK\x05\x06" + bytes(18))
    yield "archive of nothing", _replaced("activations.zarr/segments/*.zip", b"PK\x05\x06" + bytes(18))


def _replaced(pattern: str, content: bytes) -> Make:
    def make(place: Place) -> Commands:
        files = [path for path in _copy(place) if path.match(pattern)]
        path = place.random.choice(files) if files else place.out / pattern.replace("*", "x")
        path.write_bytes(content)
        return _commands(place)

    return make


def _values(place: Place) -> Commands:
    """Changes some values in all data files of one name."""
    files = [path for path in _copy(place) if any(path.match(pattern) for pattern in _TEXT)]
    names = sorted({path.name if not path.name[0].isdigit() else "seal" for path in files})
    wanted = place.random.choice(names)
    for path in (path for path in files if wanted in (path.name, "seal" if path.name[0].isdigit() else "")):
        try:
            data = yaml.safe_load(path.read_text()) if path.suffix == ".yaml" else json.loads(path.read_text())
        except ValueError:
            continue
        for _ in range(place.random.choice((1, 1, 3))):
            _change(data, place.random)
        text = yaml.safe_dump(data) if path.suffix == ".yaml" else json.dumps(data)
        path.write_text(text)
    return _commands(place)


def _segment(place: Place) -> Commands:
    """Changes sealed segments: their seals, names of members, and members that don't match the seal."""
    for path in place.random.sample(sorted(path for path in _copy(place) if path.suffix == ".zip"), 2):
        with zipfile.ZipFile(path) as sealed:
            contents = {name: sealed.read(name) for name in sealed.namelist()}
        how = place.random.choice(("seal", "seal", "member", "name", "packed", "gone"))
        name = "seal.json" if how == "seal" else place.random.choice(sorted(contents))
        data = contents.pop(name)
        if how == "seal":
            seal = json.loads(data)
            _change(seal, place.random)
            contents[name] = json.dumps(seal).encode()
        elif how == "member":
            contents[name] = _described_otherwise(data, place.random)
            seal = json.loads(contents["seal.json"]) if name != "seal.json" else {"files": {}}
            if place.random.random() < 0.7 and name in seal["files"]:  # as an attacker would
                seal["files"][name] = [len(contents[name]), sha256(contents[name]).hexdigest()]
                contents["seal.json"] = json.dumps(seal).encode()
        elif how in ("name", "packed"):
            contents["../" * 4 + "bystander/note.txt" if how == "name" else name] = data * (1 if how == "name" else 99)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if how == "packed" else zipfile.ZIP_STORED) as sealed:
            for each, content in contents.items():
                sealed.writestr(each, content)
    return _commands(place)


def _described_otherwise(data: bytes, random: Random) -> bytes:
    """The same JSON with other values; random bytes for anything else."""
    try:
        description = json.loads(data)
    except ValueError:
        return bytes(random.randrange(256) for _ in range(min(len(data), 4000)))
    _change(description, random)
    return json.dumps(description).encode()


def _change(data: Any, random: Random) -> None:
    if isinstance(data, dict) and "files" in data and random.random() < 0.5:
        if random.random() < 0.5 or not isinstance(data["files"], dict):
            data["files"] = random.choice(_ABOUT_FILES)
        else:
            data["files"] |= {random.choice(_NAMES): [random.choice((0, 1, -1, 10**30)), "x"]}
    elif isinstance(data, dict) and random.random() < 0.4:
        key = random.choice(sorted(map(str, data)))
        data[key] = random.choice((0, -1, -(10**9), 1, 10**9, 1.5, "1", None, [], {}))
    else:
        change(data, random)


def _bytes(place: Place) -> Commands:
    for path in place.random.sample(_copy(place), 3):
        data = bytearray(path.read_bytes())
        for _ in range(place.random.choice((1, 6))):
            if data:
                data[place.random.randrange(min(len(data), 4000))] = place.random.randrange(256)
        path.write_bytes(data)
    return _commands(place)


def _table(place: Place) -> Commands:
    """Changes rows or a column of a table."""
    path = place.random.choice([path for path in _copy(place) if path.suffix == ".parquet"])
    table = pq.read_table(path)
    name = place.random.choice(table.column_names)
    wild = place.random.choice(
        ([None], [-1], [10**9], [float("nan")], ["../x"], ["x\0\x1b[2J"], [[1]], [True], ["flow"])
    )
    how = place.random.randrange(4)
    if how == 0:
        table = table.drop_columns([name])
    elif how == 1:
        table = table.slice(0, place.random.choice((0, 1, table.num_rows - 1)))
    elif how == 2:
        table = pa.concat_tables([table, table])
    else:
        table = table.set_column(table.column_names.index(name), name, pa.array(wild * table.num_rows))
    pq.write_table(table, path)
    return _commands(place)


def _swapped(place: Place) -> Commands:
    files = _copy(place)
    one = place.random.choice(files)
    other = place.random.choice([path for path in files if path.suffix == one.suffix])
    data = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(data)
    return _commands(place)


def _links() -> Iterator[tuple[str, Make]]:
    """Replaces folders and files of OUT by links to foreign ones, by pipes and by link loops."""
    folders = (
        ".",
        "videos",
        "locks",
        "videos/*",
        "videos/*/segments",
        "videos/*/predictions.zarr",
        "videos/*/predictions.zarr/*",
    )
    archive = ("videos/*/activations.zarr", "videos/*/activations.zarr/*", "videos/*/activations.zarr/*/*")
    for pattern in (*folders, "videos/*/predictions.zarr/*/*", *archive):
        yield f"link: {pattern}", _linked(pattern, _to_bystander)
    files = (
        "run.yaml",
        "videos.parquet",
        "errors.jsonl",
        "report.json",
        "locks/*.json",
        "run.yaml.part",
        "videos.parquet.part",
    )
    for name in (
        *files,
        "videos/*/done.json",
        "videos/*/frames.parquet",
        "videos/*/segments/*",
        "videos/*/overlay.webm",
    ):
        yield f"link: {name}", _linked(name, _to_note)
    for name in (
        "run.yaml",
        "locks/*.json",
        "videos/*/done.json",
        "videos/*/segments/*",
        "videos/*/frames.parquet",
        "videos.parquet",
        "videos/*/predictions.zarr/zarr.json",
        "videos/*/predictions.zarr/*/c/*",
        "videos/*/activations.zarr/segments/*",
        "videos/*",
    ):
        yield f"pipe: {name}", _linked(name, lambda place, path: os.mkfifo(path))
        yield f"loop: {name}", _linked(name, lambda place, path: path.symlink_to(path))


def _to_bystander(place: Place, path: Path) -> None:
    path.symlink_to(place.stock.bystander)


def _to_note(place: Place, path: Path) -> None:
    path.symlink_to(place.random.choice((place.stock.bystander / "note.txt", place.stock.bystander / "not-there")))


def _linked(pattern: str, link: Callable[[Place, Path], object]) -> Make:
    def make(place: Place) -> Commands:
        _copy(place)
        found = sorted(place.out.glob(pattern)) if pattern != "." else []
        path = place.random.choice(found) if found else place.out / pattern.replace("*", "x")
        if path.is_dir() and path != place.out:
            shutil.rmtree(path)
        elif path != place.out:
            path.unlink(missing_ok=True)
        else:
            path = place.out / "segments"
        path.parent.mkdir(parents=True, exist_ok=True)
        link(place, path)
        out = str(place.out)
        ruthless: Commands = [
            ["cache", "gc", out, "--budget", "0"],
            place.run(*place.stock.clips[:2], more=["--set", "change.threshold=9", "--force"]),
        ]
        return [*_commands(place), *ruthless]

    return make
