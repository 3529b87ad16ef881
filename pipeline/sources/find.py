"""Resolves what a user types (files, folders, globs, list files, number patterns) to a list of sources with ids."""

import difflib
import glob
import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from deltascene.pipeline.sources.errors import SourceNotFound
from deltascene.pipeline.sources.remote import find_remote, is_remote
from deltascene.pipeline.sources.spec import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Found, SourceSpec
from deltascene.pipeline.text import one_line

_LIST_SUFFIX = ".txt"
_NUMBER_PATTERN = re.compile(r"%0?\d*d")
_LONGEST_ID = 100


def find_sources(arguments: Sequence[str]) -> list[SourceSpec]:
    """Resolves SOURCE… to sources, in the order given, each file once.

    Args:
        arguments: files, folders (all videos below; one sequence for each folder of images where there is no video),
            globs (`**` too), the same in a store (`s3://bucket/folder`; videos only), `.txt` lists of the same
            (relative to the list's folder, `#` comments), `%06d.jpg`.

    Raises:
        SourceNotFound: nothing is at one of the paths.
    """
    found = [each for argument in arguments for each in _resolve_safely(argument)]
    distinct = list(dict.fromkeys(found_by_place(found).values()))
    return [SourceSpec(id_, each.kind, each.paths) for id_, each in zip(_ids(distinct), distinct, strict=True)]


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


def _resolve_safely(argument: str) -> list[Found]:
    try:
        return _resolve(argument)
    except (
        OSError,
        ValueError,
        RecursionError,
    ) as error:  # names that no disk accepts, lists that aren't text …
        found = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise SourceNotFound(
            f"{one_line(argument, 80)}: expected a file, folder, glob or list; found one that can't be read: {found}"
        ) from error


def _resolve(argument: str) -> list[Found]:
    if is_remote(argument):
        return find_remote(argument)
    path = Path(os.path.abspath(os.path.expanduser(argument.removeprefix("file://"))))
    if path.is_file() and path.suffix.lower() == _LIST_SUFFIX:
        return _from_list(path)
    return _resolve_one(path, argument)


def _resolve_one(path: Path, argument: str) -> list[Found]:
    if path.is_dir():
        return _from_folder(path, argument)
    if path.exists():
        kind: Literal["video", "sequence"] = "sequence" if path.suffix.lower() in IMAGE_SUFFIXES else "video"
        return [Found(path.stem, kind, (path,))]
    if _NUMBER_PATTERN.search(path.name):
        return _from_numbers(path, argument)
    if any(mark in str(path) for mark in "*?["):
        return _from_glob(path, argument)
    raise SourceNotFound(_missing_line(path, argument))


def _from_list(list_path: Path) -> list[Found]:
    found: list[Found] = []
    lines = list_path.read_text(encoding="utf-8", errors="surrogateescape").split("\n")  # names may hold any other byte
    for number, line in enumerate(lines, start=1):
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        if is_remote(entry):
            found += find_remote(entry)
            continue
        path = Path(os.path.abspath(list_path.parent / os.path.expanduser(entry)))
        for each in _resolve_one(path, f"{entry} ({list_path.name} line {number})"):
            place = Path(each.place)
            inside = place.is_relative_to(list_path.parent)
            found.append(Found(_relative_name(place, list_path.parent), each.kind, each.paths) if inside else each)
    if not found:
        raise SourceNotFound(f"{list_path}: expected one path on each line, found none")
    return found


def _from_folder(folder: Path, argument: str) -> list[Found]:
    files = list(_walk(folder))
    found = _from_files(files, folder)
    if not found:
        kinds = " ".join(sorted(VIDEO_SUFFIXES | IMAGE_SUFFIXES))
        raise SourceNotFound(
            f"{argument}: expected videos or images in the folder ({kinds}), found {len(files)} others"
        )
    return found


def _from_files(files: Iterable[Path], root: Path) -> list[Found]:
    """Videos, one source each; where there are none, the images of each folder as one sequence."""
    images: dict[Path, list[Path]] = {}
    videos: list[Path] = []
    for file in files:
        if file.suffix.lower() in VIDEO_SUFFIXES:
            videos.append(file)
        elif file.suffix.lower() in IMAGE_SUFFIXES:
            images.setdefault(file.parent, []).append(file)
    if videos:
        return [Found(_relative_name(each, root), "video", (each,)) for each in videos]
    return [
        Found(_relative_name(folder, root), "sequence", tuple(sorted(inside, key=lambda each: natural_key(each.name))))
        for folder, inside in images.items()
    ]


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
    return [Found(stem, "sequence", tuple(file for _, file in sorted(numbered)))]


def _from_glob(pattern: Path, argument: str) -> list[Found]:
    fixed = list(_until_magic(pattern.parts))
    root = Path(*fixed)
    if not root.is_dir():
        raise SourceNotFound(_missing_line(root, argument))
    if "**" in pattern.parts:
        wanted = _glob_regex(pattern.parts[len(fixed) :])
        files = [file for file in _walk(root) if wanted.match(file.relative_to(root).as_posix())]
    else:
        matches = sorted((Path(each) for each in glob.glob(str(pattern))), key=lambda each: natural_key(str(each)))
        files = [file for match in matches for file in (_walk(match) if match.is_dir() else [match])]
    found = _from_files(files, root)
    if not found:
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


def _walk(folder: Path) -> Iterator[Path]:
    """Every file below a folder in natural order; each folder is entered once, so that a loop of links ends."""
    entered: set[tuple[int, int]] = set()

    def below(here: Path) -> Iterator[Path]:
        status = here.stat()
        if (status.st_dev, status.st_ino) in entered:
            return
        entered.add((status.st_dev, status.st_ino))
        for child in sorted(here.iterdir(), key=lambda each: natural_key(each.name)):
            if child.name.startswith("."):
                continue
            if child.is_dir():
                yield from below(child)
            elif child.is_file():
                yield child

    return below(folder)


def _relative_name(path: Path, root: Path) -> str:
    relative = path.relative_to(root)
    if relative == Path("."):
        return root.name
    return relative.with_suffix("").as_posix() if path.suffix.lower() in VIDEO_SUFFIXES else relative.as_posix()


def _ids(found: Sequence[Found]) -> list[str]:
    """Slugs of the names; those that collide get a hash of the path. Some disks ignore case, so ids do, too.

    Six digits of the hash are enough for a few sources of one name, but not for ten thousand: those that still collide
    get more digits.
    """
    ids = [_slug(each.name) for each in found]
    for digits in (6, 16, 64):
        counts = Counter(id_.casefold() for id_ in ids)
        ids = [
            f"{_slug(each.name)}-{_digest(each.place)[:digits]}" if counts[id_.casefold()] > 1 else id_
            for id_, each in zip(ids, found, strict=True)
        ]
    return ids


def _slug(name: str) -> str:
    slug = re.sub(r"[^A-Za-z0-9._-]", "_", name).strip(".")
    if len(slug) > _LONGEST_ID:
        return f"{slug[:_LONGEST_ID]}-{_digest(name)[:6]}"
    return slug or "source"


def _digest(text: str) -> str:
    """SHA-256 of a name or path, which may hold bytes that aren't UTF-8."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _missing_line(path: Path, argument: str) -> str:
    there = path
    while not there.exists():
        missing, there = there, there.parent
    names = [each.name for each in there.iterdir()] if there.is_dir() else []
    near = difflib.get_close_matches(missing.name, names, n=1, cutoff=0.5)
    way_out = f"; did you mean {there / near[0]}?" if near else f"; {there} is the last part of the path that exists"
    return f"{argument}: expected a file, folder, glob or list, found nothing there{way_out}"
