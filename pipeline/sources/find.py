"""Resolves what a user types (files, folders, globs, list files, number patterns) to a list of sources with ids."""

import codecs
import difflib
import glob
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import takewhile
from pathlib import Path

from deltascene.cache.places import Place
from deltascene.pipeline.sources.errors import SourceNotFound
from deltascene.pipeline.sources.ids import ids_of
from deltascene.pipeline.sources.passed_over import PassedOver, is_hidden
from deltascene.pipeline.sources.pictures import gaps_line, is_animated, name_around_numbers
from deltascene.pipeline.sources.remote import find_remote, is_remote
from deltascene.pipeline.sources.spec import ANIMATED_SUFFIXES, IMAGE_SUFFIXES, VIDEO_SUFFIXES, SourceSpec
from deltascene.pipeline.text import one_line

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
    found = [each for argument in arguments for each in _resolve(argument, aside)]
    first: dict[tuple[str, ...], SourceSpec] = {}
    for each in found:
        first.setdefault(tuple(map(str, each.paths)), each)
    distinct = [each for each in first.values() if not aside.drops_file(each.path)]
    if not distinct:
        raise SourceNotFound(f"{one_line(', '.join(arguments), 80)}: expected videos or images; {aside.line}")
    specs = [replace(each, id=id_) for id_, each in zip(ids_of(distinct, recorded or {}), distinct, strict=True)]
    return Findings(specs, tuple(filter(None, (aside.line, gaps_line(specs)))))


def natural_key(name: str) -> tuple[tuple[int, int | str], ...]:
    """Key that sorts `2.jpg` before `10.jpg`."""
    parts = re.split(r"(\d+)", name)
    return tuple((1, int(part)) if part.isdecimal() else (0, part) for part in parts if part)


def _by_name(path: Path) -> tuple[tuple[int, int | str], ...]:
    return natural_key(path.name)


def _resolve(argument: str, aside: PassedOver) -> list[SourceSpec]:
    if not argument.strip():
        raise SourceNotFound("expected a file, folder, glob or list; found an empty name; . is the current folder")
    try:
        if is_remote(argument):
            return find_remote(argument, aside)
        path = Path(os.path.abspath(os.path.expanduser(argument.removeprefix("file://"))))
        if path.is_file() and path.suffix.lower() == _LIST_SUFFIX:
            return _from_list(path, aside)
        return _resolve_one(path, argument, aside)
    except (OSError, ValueError, RecursionError) as error:  # names that no disk accepts, lists that aren't text …
        found = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise SourceNotFound(
            f"{one_line(argument, 80)}: expected a file, folder, glob or list; found one that can't be read: {found}"
        ) from error


def _resolve_one(path: Path, argument: str, aside: PassedOver) -> list[SourceSpec]:
    if path.is_dir():
        return _from_files(list(_walk(path, aside)), path, argument, aside)
    if path.exists():
        still = path.suffix.lower() in IMAGE_SUFFIXES and not _moves(path)
        return [SourceSpec(path.stem, "sequence", (path,)) if still else SourceSpec(path.name, "video", (path,))]
    if _NUMBER_PATTERN.search(path.name):
        return _from_numbers(path, argument)
    if glob.has_magic(str(path)):
        return _from_glob(path, argument, aside)
    raise SourceNotFound(_missing_line(path, argument))


def _from_list(list_path: Path, aside: PassedOver) -> list[SourceSpec]:
    found: list[SourceSpec] = []
    for number, line in enumerate(_list_text(list_path).split("\n"), start=1):
        entry = line.strip()
        if len(entry) > 1 and entry[0] == entry[-1] and entry[0] in "\"'":
            entry = entry[1:-1]
        if not entry or entry.startswith("#"):
            continue
        if is_remote(entry):
            found += find_remote(entry, aside)
            continue
        path = Path(os.path.abspath(list_path.parent / os.path.expanduser(entry.removeprefix("file://"))))
        for each in _resolve_one(path, f"{entry} ({list_path.name} line {number})", aside):
            alone = each.kind == "sequence" and len(each.paths) == 1
            at = Path(str(each.paths[0])).with_suffix("") if alone else Path(str(each.path))
            inside = at.is_relative_to(list_path.parent)
            found.append(replace(each, id=_relative_name(at, list_path.parent)) if inside else each)
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


def _from_files(files: Sequence[Path], root: Path, argument: str, aside: PassedOver) -> list[SourceSpec]:
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
    found = [SourceSpec(_relative_name(each, root), "video", (each,)) for each in videos]
    if any(each.suffix.lower() in VIDEO_SUFFIXES - ANIMATED_SUFFIXES for each in videos):
        aside.images.update((str(file), file) for inside in images.values() for file in inside)
        return found
    for folder, inside in images.items():
        found += _sequences(sorted(inside, key=_by_name), _relative_name(folder, root), aside)
    if not found and not aside.results:
        raise SourceNotFound(
            f"{argument}: expected videos, images or folders of them, found {len(files)} files of other kinds"
        )
    return found


def _sequences(images: Sequence[Path], name: str, aside: PassedOver) -> list[SourceSpec]:
    """The images of a folder as sequences: those whose names differ in numbers only belong together.

    Where most aren't numbered like another one, all of them are one sequence; of the same names with several suffixes,
    each suffix has its own.

    Args:
        images: in natural order.
        name: of the folder.
        aside: takes single images beside numbered ones.
    """
    groups: dict[tuple[str, ...], list[Path]] = {}
    twice = len({image.stem for image in images}) < len(images)
    for image in images:
        suffix = (image.suffix.lower(),) if twice else ()
        groups.setdefault(name_around_numbers(image.name) + suffix, []).append(image)
    numbered = [group for group in groups.values() if len(group) > 1]
    single = [group[0] for group in groups.values() if len(group) == 1]
    if len(single) >= len(images) - len(single):
        return [SourceSpec(name, "sequence", tuple(images))]
    aside.single.update((str(image), image) for image in single)
    if len(numbered) == 1:
        return [SourceSpec(name, "sequence", tuple(numbered[0]))]
    return [SourceSpec(f"{name}/{_stem_of(group)}", "sequence", tuple(group)) for group in numbered]


def _stem_of(numbered: Sequence[Path]) -> str:
    """What is common to the names of numbered images."""
    return "".join(name_around_numbers(numbered[0].name)).strip("_-. ") or "images"


def _moves(path: Path) -> bool:
    """Whether an image file is animated; one that isn't a file or can't be read, which the reader will tell, isn't."""
    try:
        return path.is_file() and is_animated(path)
    except OSError:
        return False


def _from_numbers(pattern: Path, argument: str) -> list[SourceSpec]:
    before, after = _NUMBER_PATTERN.split(pattern.name, maxsplit=1)
    name = re.compile(re.escape(before) + r"\d+" + re.escape(after))
    inside = sorted(pattern.parent.iterdir()) if pattern.parent.is_dir() else []
    files = sorted((file for file in inside if name.fullmatch(file.name)), key=_by_name)
    if not files:
        raise SourceNotFound(f"{argument}: expected files numbered like that, found none in {pattern.parent}")
    stem = "".join(_NUMBER_PATTERN.split(pattern.stem, maxsplit=1)).strip("_-. ") or pattern.parent.name
    return [SourceSpec(stem, "sequence", tuple(files))]


def _from_glob(pattern: Path, argument: str, aside: PassedOver) -> list[SourceSpec]:
    fixed = list(takewhile(lambda part: not glob.has_magic(part), pattern.parts))
    root, wanted = Path(*fixed), pattern.parts[len(fixed) :]
    if not root.is_dir():
        raise SourceNotFound(_missing_line(root, argument))
    if "**" in wanted:
        files = [file for file in _walk(root, aside) if _matches(file.relative_to(root).parts, wanted)]
    else:
        matches = sorted(map(Path, glob.glob(str(pattern))), key=lambda each: natural_key(str(each)))
        matches = [match for match in matches if not any(map(aside.drops, _between(root, match)))]
        files = [file for match in matches for file in (_walk(match, aside) if match.is_dir() else [match])]
    return _from_files([file for file in files if not aside.drops_file(file)], root, argument, aside)


def _between(root: Path, path: Path) -> list[Path]:
    """Folders from a folder down to a path in it, without both."""
    return [each for each in path.parents if each != root and each.is_relative_to(root)]


def _matches(parts: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether a glob matches a path or a folder that it is in; `**` stands for any number of folders."""
    if not wanted:
        return True
    if wanted[0] == "**":
        return any(_matches(parts[depth:], wanted[1:]) for depth in range(len(parts)))
    return bool(parts) and fnmatchcase(parts[0], wanted[0]) and _matches(parts[1:], wanted[1:])


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
        for child in sorted(here.iterdir(), key=_by_name):
            if is_hidden(child.name):
                continue
            if child.is_dir():
                yield from below(child)
            elif child.is_file():
                yield child

    return below(folder)


def _relative_name(path: Path, root: Path) -> str:
    return root.name if path == root else path.relative_to(root).as_posix()


def _missing_line(path: Path, argument: str) -> str:
    there = path
    while not there.exists():
        missing, there = there, there.parent
    names = [each.name for each in there.iterdir()] if there.is_dir() else []
    near = difflib.get_close_matches(missing.name, names, n=1, cutoff=0.5)
    way_out = f"; did you mean {there / near[0]}?" if near else f"; {there} is the last part of the path that exists"
    return f"{argument}: expected a file, folder, glob or list, found nothing there{way_out}"
