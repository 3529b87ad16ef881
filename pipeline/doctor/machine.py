"""Checks of the machine: processor, cores, memory, disk."""

import os
import platform
import shutil
from pathlib import Path

from deltascene.pipeline.doctor.check import Check
from deltascene.pipeline.units import compact
from deltascene.pipeline.versions import cpu_name

_CGROUP = Path("/sys/fs/cgroup")
_CPUINFO, _MEMINFO = Path("/proc/cpuinfo"), Path("/proc/meminfo")
# Instruction sets that torch's CPU kernels use, by their names in /proc/cpuinfo.
_INSTRUCTION_SETS = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_bf16": "AVX512-BF16", "amx_bf16": "AMX-BF16"}
_LITTLE_MEMORY = 2 << 30
_LITTLE_DISK, _NO_DISK = 5 << 30, 200 << 20


def check_processor() -> list[Check]:
    """Name of the processor, and the operating system."""
    return [Check("processor", "ok", f"{cpu_name()}, {platform.system()} {platform.release()} {platform.machine()}")]


def check_cores() -> list[Check]:
    """Number of cores that this process may use, and of those that the machine has."""
    return [Check("cores", "ok", f"{usable_cores():g} usable of {os.cpu_count()}")]


def check_instruction_sets() -> list[Check]:
    """Which instruction sets of torch's kernels the processor has."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return [Check("instruction sets", "ok", f"{platform.machine()}: torch's own choice")]
    flags = _cpu_flags()
    if not flags:
        return [Check("instruction sets", "ok", "not reported by the system")]
    found = ", ".join(f"{name} {'yes' if flag in flags else 'no'}" for flag, name in _INSTRUCTION_SETS.items())
    if "avx2" not in flags:
        return [Check("instruction sets", "warning", found, "torch is several times slower without AVX2")]
    return [Check("instruction sets", "ok", found)]


def check_memory(cgroup: Path = _CGROUP) -> list[Check]:
    """Total and free memory, within the limit of a container."""
    total, free = _memory(cgroup)
    found = f"{compact(total, 'B')}, {compact(free, 'B')} free" if total else "not reported by the system"
    if total and free < _LITTLE_MEMORY:
        return [Check("memory", "warning", found, f"a run needs {compact(_LITTLE_MEMORY, 'B')}: close other programs")]
    return [Check("memory", "ok", found)]


def check_threads() -> list[Check]:
    """Number of torch's threads, which slow each other down where there are more of them than cores."""
    import torch

    from deltascene.pipeline.numerics.threads import describe, seconds_lost

    threads, cores = torch.get_num_threads(), usable_cores()
    if threads > cores + 0.5:
        way_out = f"--set numerics.threads={max(1, int(cores))}"
        return [Check("torch threads", "warning", f"{threads} on {cores:g} usable cores", way_out)]
    lost_s = seconds_lost()
    if lost_s:
        return [Check("torch threads", "warning", f"{threads} on {cores:g} usable cores", describe(lost_s))]
    return [Check("torch threads", "ok", f"{threads}; torch's CPU kernels: {torch.backends.cpu.get_cpu_capability()}")]


def check_kernel() -> list[Check]:
    """Whether the kernel is compiled for this torch and processor, and can be loaded."""
    from deltascene.pipeline.numerics.kernel import choose_kernel, kernel_file

    if not kernel_file().is_file():
        found = "not compiled: blocks run through PyTorch"
        return [Check("kernel", "ok", f"{found}; deltascene doctor --build-kernels makes them about twice as fast")]
    choose_kernel("compiled")
    return [Check("kernel", "ok", f"compiled: {kernel_file()}")]


def check_arithmetic() -> list[Check]:
    """Number type in which blocks will multiply, as measured."""
    from deltascene.pipeline.config import load_config
    from deltascene.pipeline.numerics.settle import settle

    dtype = settle(load_config()).numerics.dtype
    why = "measured to be faster than float32" if dtype == "bfloat16" else "bfloat16 isn't faster on this processor"
    return [Check("arithmetic", "ok", f"blocks multiply {dtype}; {why}")]


def check_gpu() -> list[Check]:
    """Whether there is a GPU, which this version doesn't use."""
    import torch

    name = torch.cuda.get_device_name(0) if torch.cuda.is_available() else ""
    name = name or ("Apple MPS" if torch.backends.mps.is_available() else "none seen")
    return [Check("GPU", "ok", f"{name}; this version of deltascene runs on the CPU")]


def check_disk() -> list[Check]:
    """Free disk space in the current folder, and whether it can be written."""
    folder = Path.cwd()
    free = shutil.disk_usage(folder).free
    found = f"{compact(free, 'B')} free in {folder.name or folder}"
    if not os.access(folder, os.W_OK):
        return [Check("disk", "warning", f"{found}, which can't be written", "run with -o FOLDER elsewhere")]
    if free < _LITTLE_DISK:
        status, way_out = ("problem" if free < _NO_DISK else "warning"), "make room, or run with -o FOLDER elsewhere"
        return [Check("disk", status, found, way_out)]  # type: ignore[arg-type]
    return [Check("disk", "ok", found)]


def usable_cores(cgroup: Path = _CGROUP) -> float:
    """Number of cores that this process may use, by its affinity and by the quota of its container."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _read(cgroup / "cpu.max").partition(" ")
    return min(allowed, int(quota) / int(period)) if quota.isdigit() and period.isdigit() else float(allowed)


def _cpu_flags() -> frozenset[str]:
    line = next((line for line in _read(_CPUINFO).splitlines() if line.startswith("flags")), "")
    return frozenset(line.partition(":")[2].split())


def _memory(cgroup: Path) -> tuple[int, int]:
    """Total and free memory in bytes; 0 and 0 where the system doesn't report them."""
    lines = (line.partition(":") for line in _read(_MEMINFO).splitlines())
    known = {key: int(value.split()[0]) << 10 for key, _, value in lines}  # written in KiB
    total, free = known.get("MemTotal", 0), known.get("MemAvailable", 0)
    limit, used = _read(cgroup / "memory.max"), _read(cgroup / "memory.current")
    if limit.isdigit() and used.isdigit() and int(limit) < total:
        total, free = int(limit), min(free, int(limit) - int(used))
    return total, free


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
