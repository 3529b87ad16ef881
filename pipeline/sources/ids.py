"""Ids of sources: names of their folders in a run, made of their own paths.

An id is the path below the named folder without its suffix, with `_` for `/` and for what disks, URLs or globs don't
take. Only sources of one run whose ids would be the same get digits of a hash of the path; the id that a run has on
record for a source stays, whatever else is there and however earlier versions made it.
"""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from deltascene.pipeline.sources.spec import SourceSpec
from deltascene.pipeline.text import path_text

_LONGEST = 100  # bytes
# Control characters, those that change the direction of writing, bytes that aren't UTF-8, and what separates or selects
# in paths, URLs and globs.
_UNSAFE = re.compile(r"[/\\:*?\"<>|\[\]#%\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_DIGITS = re.compile(r"-[0-9a-f]{6,64}\Z")
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)  # names that Windows keeps for itself


def ids_of(found: Sequence[SourceSpec], recorded: Mapping[str, str]) -> list[str]:
    """A distinct id for each source, also on disks that ignore case or the form of accents.

    Args:
        found: the sources, with their paths below the folders that were named in place of ids.
        recorded: path or URL of the sources of an earlier run into the same folder, by their ids there.
    """
    bases = [safe_name(_without_suffix(each)) for each in found]
    kept = _recorded_ids(found, bases, recorded)
    ids = [kept.get(index, base) for index, base in enumerate(bases)]
    names, places = [each.id for each in found], [str(each.paths[0]) for each in found]
    # Six digits are enough for a few of one name, but not for ten thousand.
    for texts, digits in ((names, 6), (places, 6), (places, 16), (places, 64)):
        counts = Counter(map(_folded, ids))
        ids = [
            f"{bases[index]}-{_digest(text)[:digits]}" if index not in kept and counts[_folded(id_)] > 1 else id_
            for index, (id_, text) in enumerate(zip(ids, texts, strict=True))
        ]
    return ids


def safe_name(name: str) -> str:
    """A name that every disk takes, unicode kept; a long one is cut and gets digits of its hash."""
    safe = _UNSAFE.sub("_", unicodedata.normalize("NFC", name)).strip(". ") or "source"
    safe = f"_{safe}" if _DEVICE.match(safe) else safe
    encoded = safe.encode()
    if len(encoded) <= _LONGEST:
        return safe
    return f"{encoded[:_LONGEST].decode(errors='ignore').rstrip('. ')}-{_digest(name)[:6]}"


def _recorded_ids(found: Sequence[SourceSpec], bases: Sequence[str], recorded: Mapping[str, str]) -> dict[int, str]:
    """Recorded ids by the places of their sources in `found`: of the same file, or of one that was moved since."""
    known: dict[tuple[str, str], set[str]] = {}
    for id_, source in recorded.items():
        for stem in ("", id_, _DIGITS.sub("", id_)):
            for at in (source, _last_part(source)):
                known.setdefault((at, stem), set()).add(id_)
    kept: dict[int, str] = {}
    for moved in (False, True):
        claims: dict[str, list[int]] = {}
        taken = set(kept.values())
        for index, (each, base) in enumerate(zip(found, bases, strict=True)):
            if index in kept:
                continue
            source = path_text(each.path)
            at = _last_part(source) if moved else source
            sure = each.kind == "video" and not moved  # two sequences may share a folder
            ids = set().union(*(known.get((at, stem), ()) for stem in (("",) if sure else (base, _earlier(each)))))
            ids -= taken
            if base in ids or len(ids) == 1:
                claims.setdefault(base if base in ids else ids.pop(), []).append(index)
        kept |= {indices[0]: id_ for id_, indices in claims.items() if len(indices) == 1}
    return kept


def _earlier(found: SourceSpec) -> str:
    """The id of a source as earlier versions made it, which kept only ASCII."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", _without_suffix(found)).strip(".")[:_LONGEST] or "source"


def _without_suffix(found: SourceSpec) -> str:
    return str(PurePosixPath(found.id).with_suffix("")) if found.kind == "video" else found.id


def _last_part(path: str) -> str:
    return path.rpartition("/")[2]


def _folded(id_: str) -> str:
    return unicodedata.normalize("NFC", id_.casefold())


def _digest(text: str) -> str:
    """SHA-256 of a name or path, which may hold bytes that aren't UTF-8."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
