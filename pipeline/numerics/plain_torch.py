"""Settings of torch and OpenCV that a host program may have changed, put back to their defaults while we compute.

A host may work in float64, on another device, under autocast or with denormals flushed. Results are the same bytes
whatever it has set, and its settings are as before when a call returns.
"""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from deltascene.stages.motion import flow_threads, set_flow_threads

_SMALLEST = sys.float_info.min  # halved, it is zero in a thread that flushes denormals


@contextmanager
def plain_torch(threads: int | None = None) -> Iterator[None]:
    """Runs a block, or as a decorator a function, under torch's own defaults, with gradients allowed.

    Args:
        threads: number of torch's threads in the block; None keeps the present one.
    """
    with ExitStack() as left:
        left.enter_context(_PROCESS)
        left.enter_context(torch.inference_mode(False))
        if torch.is_autocast_enabled("cpu"):
            left.enter_context(torch.autocast("cpu", enabled=False))
        if torch.get_default_device().type != "cpu":
            left.enter_context(torch.device("cpu"))
        if _SMALLEST / 2 == 0:
            torch.set_flush_denormal(False)
            left.callback(torch.set_flush_denormal, True)
        before = torch.get_num_threads()
        left.callback(_use_threads, before)
        _use_threads(before if threads is None else threads)
        yield


def _use_threads(count: int) -> None:
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)


def _set_mkldnn(enabled: bool) -> None:
    torch._C._set_mkldnn_enabled(enabled)


def _matmul_precision() -> str:
    """Precision of float32 products as this version of torch names it; `highest` or `ieee` is the full one."""
    if not hasattr(torch.backends.mkldnn, "matmul"):  # before torch 2.9
        return torch.get_float32_matmul_precision()
    precision = str(torch.backends.mkldnn.matmul.fp32_precision)
    return "ieee" if precision == "none" else precision


def _set_matmul_precision(precision: str) -> None:
    if hasattr(torch.backends.mkldnn, "matmul"):
        torch.backends.mkldnn.matmul.fp32_precision = precision
    else:
        torch.set_float32_matmul_precision(precision)


class _ProcessSettings:
    """Settings of the whole process; while several threads compute, the first changes them and the last puts them back.

    Each is read and written by two functions; the third entry is the value to compute under.
    """

    _SETTINGS: tuple[tuple[Callable[[], Any], Callable[[Any], object], Any], ...] = (
        (torch.get_default_dtype, torch.set_default_dtype, torch.float32),
        (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode, 0),
        (_matmul_precision, _set_matmul_precision, "ieee" if hasattr(torch.backends.mkldnn, "matmul") else "highest"),
        (torch._C._get_mkldnn_enabled, _set_mkldnn, True),
        (torch.backends.cuda.flash_sdp_enabled, torch.backends.cuda.enable_flash_sdp, True),  # the CPU's, too
        (flow_threads, set_flow_threads, 1),
    )

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._changed: list[tuple[Callable[[Any], object], Any]] = []

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                for read, write, plain in self._SETTINGS:
                    if (found := read()) != plain:
                        self._changed.append((write, found))
                        write(plain)
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            while self._inside == 0 and self._changed:
                write, found = self._changed.pop()
                write(found)


_PROCESS = _ProcessSettings()
