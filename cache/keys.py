"""Keys: flat mappings of plain values that must be equal for a stored result to be valid; and their fingerprints."""

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any


def fingerprint(parts: Mapping[str, Any]) -> str:
    """SHA-256 of a mapping of plain values, independent of the order of its keys; 64 hex digits."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return sha256(text.encode()).hexdigest()


def first_difference(expected: Mapping[str, Any], found: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """The first key, in sorted order, whose values differ: (key, expected, found); a missing one counts as None."""
    for key in sorted({*expected, *found}):
        if expected.get(key) != found.get(key):
            return key, expected.get(key), found.get(key)
    return None


def shortened(value: object) -> str:
    """A value of a key as an error shows it: at most 40 characters."""
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "…"


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, read in pieces."""
    digest = sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
