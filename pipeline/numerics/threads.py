"""Measures whether torch's threads have a core each: if two share one, small products wait for the scheduler."""

import statistics
import time

import torch

from deltascene.pipeline.openmp import SPINS, user_setting

_ROWS, _IN, _OUT = 16, 384, 1536
_REPEATS = 15
_BUDGET_S = 0.5  # threads that wait for each other need no more products to show it
_TICK_S = 1e-3  # a larger difference to one thread than this is waiting, not arithmetic


def seconds_lost() -> float:
    """Seconds by which a small product is slower on all of torch's threads than on one; 0 if it isn't."""
    threads = torch.get_num_threads()
    if threads < 2:
        return 0.0
    together = _median_s()
    torch.set_num_threads(1)
    try:
        alone = _median_s()
    finally:
        torch.set_num_threads(threads)
    return together - alone if together - alone > _TICK_S else 0.0


def describe(lost_s: float) -> str:
    """The finding and the setting that helps, in one line."""
    return (
        f"torch's {torch.get_num_threads()} threads wait for each other, {1e3 * lost_s:.0f} ms in a small product: "
        f"they share a core, or another program has it; {way_out()}; OMP_PROC_BIND=true gives each its own core"
    )


def way_out() -> str:
    """The setting that helps: an environment variable or a config key."""
    brief, setting = f"GOMP_SPINCOUNT={SPINS}", user_setting()
    if setting == brief:
        return "numerics.threads=1 waits for nobody"
    return f"{brief} lets them sleep meanwhile" + (f", where {setting} doesn't" if setting else "")


def _median_s() -> float:
    x_RI, weight_OI = torch.ones(_ROWS, _IN), torch.ones(_OUT, _IN)
    spent = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        torch.nn.functional.linear(x_RI, weight_OI)
        spent.append(time.perf_counter() - began)
        if sum(spent) > _BUDGET_S and len(spent) >= 3:
            break
    return statistics.median(spent)
