"""Versions and machine that a run records."""

import importlib.metadata
import os
import platform
from pathlib import Path

PACKAGES = ("deltascene", "torch", "timm", "decord", "opencv-python", "av", "numpy", "zarr", "ray", "pyarrow")


def versions_record() -> dict[str, str]:
    """Versions of Python and of packages that results may depend on; `absent` for one that isn't installed."""
    return {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}


def machine_record() -> dict[str, str | int]:
    """Processor, cores and system."""
    return {"cpu": cpu_name(), "cores": os.cpu_count() or 0, "system": f"{platform.system()} {platform.machine()}"}


def cpu_name() -> str:
    """Model name of the processor, or the machine's architecture where the system has no name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"
