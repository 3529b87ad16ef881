"""Checks of the installed packages."""

import importlib
import importlib.metadata
import platform
import sys

from deltascene.pipeline.doctor.check import Check
from deltascene.pipeline.versions import versions_record

_OTHER_OPENCV = ("opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")


def check_versions() -> list[Check]:
    """Versions of Python and of every package that can change results."""
    return [_check_version(name, version) for name, version in versions_record().items()]


def check_torchvision() -> list[Check]:
    """Whether torchvision, which timm imports, fits the installed torch."""
    version = importlib.metadata.version("torchvision")
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError, OSError) as error:
        return [
            Check(
                "torchvision",
                "problem",
                f"{version} doesn't fit torch {importlib.metadata.version('torch')}: {error}",
                "install both together: pip install --force-reinstall torch torchvision",
            )
        ]
    return [Check("torchvision", "ok", f"{version}, fits torch")]


def has_decord_wheel() -> bool:
    """Whether decord has a wheel for this machine: x86-64, Linux or Windows."""
    return platform.machine().lower() in ("x86_64", "amd64") and sys.platform in ("linux", "win32")


def _check_version(name: str, version: str) -> Check:
    if version != "absent":
        return Check(name, "ok", version)
    if name == "decord":
        if has_decord_wheel():
            return Check(name, "warning", "absent; OpenCV reads every file", "pip install decord")
        return Check(name, "ok", "absent, as it has no wheel for this machine; OpenCV reads every file")
    other = next((found for each in _OTHER_OPENCV if (found := _installed(each))), "") if "opencv" in name else ""
    return Check(name, "ok", other) if other else Check(name, "problem", "absent", f"pip install {name}")


def _installed(name: str) -> str:
    try:
        return f"{importlib.metadata.version(name)} ({name})"
    except importlib.metadata.PackageNotFoundError:
        return ""
