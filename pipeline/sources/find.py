"""Resolves what a user types (files, folders, globs, list files, number patterns) to a list of sources with ids."""

import codecs
import difflib
import glob
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from deltascene.cache.places import Place
from deltascene.pipeline.sources.errors import SourceNotFound
from deltascene.pipeline.sources.ids import ids_of
from deltascene.pipeline.sources.passed_over import PassedOver, is_hidden
from deltascene.pipeline.sources.pictures import gaps_of, is_animated, positions_of
from deltascene.pipeline.sources.remote import find_remote, is_remote
from deltascene.pipeline.sources.spec import ANIMATED_SUFFIXES, IMAGE_SUFFIXES, VIDEO_SUFFIXES, Found, SourceSpec
from deltascene.pipeline.text import one_line
from deltascene.pipeline.units import count

_LIST_SUFFIX = ".txt"
_NUMBER_PATTERN = re.compile(r"%0?\d*d")


@dataclass(frozen=True, slots=True)
class Findings:
    """What a search found.

    Attributes:
        specs: the sources, in the order given, each file once.
        notes: lines on what was passed over, and on gaps between numbered images.
    """

    specs: list[SourceSpec]
    notes: tuple[str, ...]


def find_sources(arguments: Sequence[str]) -> list[SourceSpec]:
    """Resolves SOURCE… to sources as `search` does, where there is no run whose folder and ids matter."""
    return search(arguments).specs


def search(arguments: Sequence[str], out: Place | None = None, recorded: Mapping[str, str] | None = None) -> Findings:
    """Resolves SOURCE… to sources, in the order given, each file once.

    Args:
        arguments: files, folders (all videos and animated pictures below; one sequence for each folder of images where
            there is no video), globs (`**` too), the same in a store (`s3://bucket/folder`; videos only), `.txt` lists
            of the same (relative to the list's folder, `#` comments), `%06d.jpg`.
        out: folder of the run's results; nothing below it is a source.
        recorded: sources of an earlier run into `out` by their ids, which they keep.

    Raises:
        SourceNotFound: nothing is at one of the paths, or there are only results of runs.
    """
    aside = PassedOver(out)
    found = [each for argument in arguments for each in _resolve_safely(argument, aside)]
    distinct = [each for each in found_by_place(found).values() if not aside.drops_file(each.path)]
    if not distinct:
        raise SourceNotFound(f"{one_line(', '.join(arguments), 80)}: expected videos or images; {aside.line}")
    specs = [
        SourceSpec(id_, each.kind, each.paths, each.positions)
        for id_, each in zip(ids_of(distinct, recorded or {}), distinct, strict=True)
    ]
    return Findings(specs, tuple(filter(None, (aside.line, _gaps_line(specs)))))


def found_by_place(found: Iterable[Found]) -> dict[tuple[str, ...], Found]:
    """Sources by their files, in order; of several with the same files the first."""
    first: dict[tuple[str, ...], Found] = {}
    for each in found:
        first.setdefault(tuple(map(str, each.paths)), each)
    return first


def natural_key(name: str) -> tuple[tuple[int, int | str], ...]:
    """Key that sorts `2.jpg` before `10.jpg`."""
    parts = re.split(r"(\d+)", name)
    return tuple((1, int(part)) if part.isdecimal() else (0, part) for part in parts if part)


def _resolve_safely(argument: str, aside: PassedOver) -> list[Found]:
    try:
        return _resolve(argument, aside)
    except (
        OSError,
        ValueError,
        RecursionError,
    ) as error:  # names that no disk accepts, lists that aren't text …
        found = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise SourceNotFound(
            f"{one_line(argument, 80)}: expected a file, folder, glob or list; found one that can't be read: {found}"
        ) from error


def _resolve(argument: str, aside: PassedOver) -> list[Found]:
    if is_remote(argument):
        return find_remote(argument, aside)
    path = Path(os.path.abspath(os.path.expanduser(argument.removeprefix("file://"))))
    if path.is_file() and path.suffix.lower() == _LIST_SUFFIX:
        return _from_list(path, aside)
    return _resolve_one(path, argument, aside)


def _resolve_one(path: Path, argument: str, aside: PassedOver) -> list[Found]:
    if path.is_dir():
        return _from_folder(path, argument, aside)
    if path.exists():
        still = path.suffix.lower() in IMAGE_SUFFIXES and not _moves(path)
        return [Found(path.stem, "sequence", (path,)) if still else Found(path.name, "video", (path,))]
    if _NUMBER_PATTERN.search(path.name):
        return _from_numbers(path, argument)
    if any(mark in str(path) for mark in "*?["):
        return _from_glob(path, argument, aside)
    raise SourceNotFound(_missing_line(path, argument))


def _from_list(list_path: Path, aside: PassedOver) -> list[Found]:
    found: list[Found] = []
    for number, line in enumerate(_list_text(list_path).split("\n"), start=1):
        entry = line.strip()
        if len(entry) > 1 and entry[0] == entry[-1] and entry[0] in "\"'":
            entry = entry[1:-1]
        if not entry or entry.startswith("#"):
            continue
        if is_remote(entry):
            found += find_remote(entry, aside)
            continue
        path = Path(os.path.abspath(list_path.parent / os.path.expanduser(entry)))
        for each in _resolve_one(path, f"{entry} ({list_path.name} line {number})", aside):
            alone = each.kind == "sequence" and len(each.paths) == 1
            at = Path(str(each.paths[0])).with_suffix("") if alone else Path(str(each.path))
            inside = at.is_relative_to(list_path.parent)
            found.append(replace(each, name=_relative_name(at, list_path.parent)) if inside else each)
    if not found and not aside.results:
        raise SourceNotFound(f"{list_path}: expected one path on each line, found none")
    return found


def _list_text(path: Path) -> str:
    """Text of a list: UTF-16 with a byte order mark, or UTF-8, in which names may hold any other byte.

    Raises:
        ValueError: it isn't text.
    """
    data = path.read_bytes()
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = data.decode("utf-16") if wide else data.decode("utf-8-sig", "surrogateescape")
    if "\0" in text:
        raise ValueError("a binary file; a list is text with one path on each line, in UTF-8")
    return text


def _from_folder(folder: Path, argument: str, aside: PassedOver) -> list[Found]:
    files = list(_walk(folder, aside))
    found = _from_files(files, folder, aside)
    if not found and not aside.results:
        raise SourceNotFound(f"{argument}: expected videos or images in the folder; found {len(files)} other files")
    return found


def _from_files(files: Iterable[Path], root: Path, aside: PassedOver) -> list[Found]:
    """Videos and animated pictures, one source each; where there is no video, also the images of each folder."""
    images: dict[Path, list[Path]] = {}
    videos: list[Path] = []
    for file in files:
        suffix = file.suffix.lower()
        if suffix in VIDEO_SUFFIXES or (suffix in IMAGE_SUFFIXES and _moves(file)):
            videos.append(file)
        elif suffix in IMAGE_SUFFIXES:
            images.setdefault(file.parent, []).append(file)
        else:
            aside.others[str(file)] = file
    found = [Found(_relative_name(each, root), "video", (each,)) for each in videos]
    if any(each.suffix.lower() in VIDEO_SUFFIXES - ANIMATED_SUFFIXES for each in videos):
        aside.images.update((str(file), file) for inside in images.values() for file in inside)
        return found
    for folder, inside in images.items():
        inside.sort(key=lambda each: natural_key(each.name))
        found.append(Found(_relative_name(folder, root), "sequence", tuple(inside), positions_of(inside)))
    return found


def _moves(path: Path) -> bool:
    """Whether an image file is animated; one that isn't a file or can't be read, which the reader will tell, isn't."""
    try:
        return path.is_file() and is_animated(path)
    except OSError:
        return False


def _from_numbers(pattern: Path, argument: str) -> list[Found]:
    before, after = _NUMBER_PATTERN.split(pattern.name, maxsplit=1)
    name = re.compile(re.escape(before) + r"(\d+)" + re.escape(after))
    numbered = []
    if pattern.parent.is_dir():
        for file in pattern.parent.iterdir():
            match = name.fullmatch(file.name)
            if match:
                numbered.append((int(match[1]), file))
    if not numbered:
        raise SourceNotFound(f"{argument}: expected files numbered like that, found none in {pattern.parent}")
    stem = "".join(_NUMBER_PATTERN.split(pattern.stem, maxsplit=1)).strip("_-. ") or pattern.parent.name
    files = tuple(file for _, file in sorted(numbered))
    return [Found(stem, "sequence", files, positions_of(files))]


def _from_glob(pattern: Path, argument: str, aside: PassedOver) -> list[Found]:
    fixed = list(_until_magic(pattern.parts))
    root = Path(*fixed)
    if not root.is_dir():
        raise SourceNotFound(_missing_line(root, argument))
    if "**" in pattern.parts:
        wanted = _glob_regex(pattern.parts[len(fixed) :])
        files = [file for file in _walk(root, aside) if wanted.match(file.relative_to(root).as_posix())]
    else:
        matches = sorted((Path(each) for each in glob.glob(str(pattern))), key=lambda each: natural_key(str(each)))
        files = [file for match in matches for file in (_walk(match, aside) if match.is_dir() else [match])]
    found = _from_files((file for file in files if not aside.drops_file(file)), root, aside)
    if not found and not aside.results:
        raise SourceNotFound(
            f"{argument}: expected videos, images or folders of them, found {len(files)} other matches"
        )
    return found


def _until_magic(parts: Sequence[str]) -> Iterator[str]:
    for part in parts:
        if any(mark in part for mark in "*?["):
            return
        yield part


def _glob_regex(parts: Sequence[str]) -> re.Pattern[str]:
    """A glob as a regular expression: `**` matches any number of folders; all files below a matching folder match."""
    text = ""
    for part in parts:
        text += "(?:[^/]+/)*" if part == "**" else _part_regex(part) + "/"
    text = text.removesuffix("/")
    return re.compile(text + (r"[^/]+\Z" if parts[-1] == "**" else r"(?:/.*)?\Z"))


def _part_regex(part: str) -> str:
    tokens = re.findall(r"\[!?\]?[^\]]*\]|.", part)
    plain = {"*": "[^/]*", "?": "[^/]"}
    return "".join(
        token.replace("[!", "[^", 1) if len(token) > 1 else plain.get(token, re.escape(token)) for token in tokens
    )


def _walk(folder: Path, aside: PassedOver) -> Iterator[Path]:
    """Every file below a folder in natural order, without results of runs; a folder is entered once, as links loop."""
    entered: set[tuple[int, int]] = set()

    def below(here: Path) -> Iterator[Path]:
        status = here.stat()
        if (status.st_dev, status.st_ino) in entered:
            return
        entered.add((status.st_dev, status.st_ino))
        if aside.drops(here):
            return
        for child in sorted(here.iterdir(), key=lambda each: natural_key(each.name)):
            if is_hidden(child.name):
                continue
            if child.is_dir():
                yield from below(child)
            elif child.is_file():
                yield child

    return below(folder)


def _relative_name(path: Path, root: Path) -> str:
    return root.name if path == root else path.relative_to(root).as_posix()


def _gaps_line(specs: Sequence[SourceSpec]) -> str:
    """Which sequences have gaps, in one line; empty if none has."""
    gapped = [spec for spec in specs if spec.positions]
    if not gapped:
        return ""
    more = len(gapped) - 1
    others = f", and {count(more, 'more sequence')} {'has' if more == 1 else 'have'} gaps" if more else ""
    return f"{gapped[0].id}: its numbered images have {gaps_of(gapped[0].positions)}{others}; times follow the numbers"


def _missing_line(path: Path, argument: str) -> str:
    there = path
    while not there.exists():
        missing, there = there, there.parent
    names = [each.name for each in there.iterdir()] if there.is_dir() else []
    near = difflib.get_close_matches(missing.name, names, n=1, cutoff=0.5)
    way_out = f"; did you mean {there / near[0]}?" if near else f"; {there} is the last part of the path that exists"
    return f"{argument}: expected a file, folder, glob or list, found nothing there{way_out}"
