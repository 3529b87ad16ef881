"""Bundles at an fsspec URL: used in place on a local disk, else copied to the user cache."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from pydantic import ValidationError

from deltascene.pipeline.bundles.entry import BundleEntry
from deltascene.pipeline.errors import BundleError
from deltascene.pipeline.safe_yaml import read_mapping
from deltascene.pipeline.text import first_problem, one_line


def fetch_bundle(url: str) -> Path:
    """Local folder of a bundle at an fsspec URL.

    A file is copied again when its checksum at the URL changed, and gets its name only when it is complete.

    Raises:
        BundleError: the URL can't be read, or there is no bundle.
    """
    with _fetching(url):
        url = url.rstrip("/")
        files, root = url_to_fs(url)
        if isinstance(files, LocalFileSystem):
            if not files.exists(f"{root}/bundle.yaml"):
                raise FileNotFoundError(f"no bundle.yaml in {root}")
            return Path(root)
        folder = _cache_folder(url)
        _copy(files, f"{root}/bundle.yaml", folder / "bundle.yaml")
    for name in _weight_names(url, folder / "bundle.yaml"):
        with _fetching(url):
            _copy(files, f"{root}/{name}", folder / name)
    return folder


def public_url(text: str) -> str:
    """A text in which passwords and signed queries of URLs are replaced by an ellipsis."""
    return re.sub(r"(?<=\?)\S+", "…", re.sub(r"(?<=://)[^/@\s]+@", "…@", text))


@contextmanager
def _fetching(url: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # fsspec's backends raise errors of their client libraries
        found = public_url(one_line(error)) or type(error).__name__
        raise BundleError(f"model {public_url(url)}: can't be fetched: {found}") from error


def _weight_names(url: str, path: Path) -> list[str]:
    try:
        return BundleEntry.model_validate(read_mapping(path)).weight_names()
    except ValidationError as error:
        problem = first_problem(error, BundleEntry)
    except ValueError as error:
        problem = str(error)
    raise BundleError(f"model {public_url(url)}: bundle.yaml: {problem}")


def _cache_folder(url: str) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = re.sub(r"[^A-Za-z0-9._-]", "_", url.rsplit("/", 1)[-1].partition("?")[0]).lstrip(".")
    folder = cache / "deltascene" / "models" / sha256(url.encode()).hexdigest()[:16] / (name or "model")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _copy(files: Any, there: str, here: Path) -> None:
    mark, version = here.with_name(f"{here.name}.version"), str(files.checksum(there))
    if here.is_file() and mark.is_file() and mark.read_text() == version:
        return
    mark.unlink(missing_ok=True)
    part = here.with_name(f"{here.name}.{os.getpid()}.part")
    try:
        files.get_file(there, str(part))
        part.replace(here)
    finally:
        part.unlink(missing_ok=True)
    mark.write_text(version)
