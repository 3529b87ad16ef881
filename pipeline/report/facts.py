"""What a report copies from `run.yaml`, and the conversion of its values to JSON."""

import math
from collections.abc import Mapping
from typing import Any

from deltascene.pipeline.config import LONGEST_TIMEOUT_S, flatten
from deltascene.pipeline.sources.reader import TIMEOUT_S


def run_facts(run_yaml: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Resolved config, versions, machine, numerics and weights as flat mappings; empty where they weren't recorded."""
    key: dict[str, dict[str, Any]] = {"numerics": {}, "weights": {}}
    for name, value in (run_yaml.get("key") or {}).items():
        head, _, rest = name.partition(".")
        if head in key:
            key[head][rest] = value
    return {
        "config": flatten(run_yaml.get("config") or {}),
        "versions": dict(run_yaml.get("versions") or {}),
        "machine": dict(run_yaml.get("machine") or {}),
        **key,
    }


def money(whole: Mapping[str, Any], facts: Mapping[str, Any], per_core_hour: float | None) -> dict[str, Any] | None:
    """What the measured time costs: seconds of all stages, times the engine's threads.

    Args:
        whole: result of `totals`, with media_seconds.
        facts: result of `run_facts`.
        per_core_hour: price of an hour of one core; None leaves money out.

    Returns:
        per_core_hour, threads, core_hours, total, audits, dense (null where too few ran), per_video_hour.
    """
    if per_core_hour is None:
        return None
    threads = facts["numerics"].get("threads") or 1
    dense, price = whole["by_policy"].get("dense"), per_core_hour * threads / 3600
    valid = whole["frames"] - whole["invalid"]
    return {
        "per_core_hour": per_core_hour,
        "threads": threads,
        "core_hours": whole["seconds"] * threads / 3600,
        "total": whole["seconds"] * price,
        "audits": whole["seconds_by_stage"]["audit"] * price,
        "dense": valid * dense["frame_seconds"]["mean"] * price if dense and whole["seconds_saved"] else None,
        "per_video_hour": whole["seconds"] * price * 3600 / whole["media_seconds"] if whole["media_seconds"] else None,
    }


def decoder_timeout_s(run_yaml: Mapping[str, Any]) -> float:
    """`source.timeout_s` of a run: how long a decoder may take for a frame; the default where it wasn't recorded."""
    found = flatten(run_yaml.get("config") or {}).get("source.timeout_s")
    return float(found) if isinstance(found, (int, float)) and 0 < found <= LONGEST_TIMEOUT_S else TIMEOUT_S


def json_values(value: Any) -> Any:
    """Values as JSON can hold them: numbers that aren't finite become null, bytes of names that aren't UTF-8 a mark."""
    if isinstance(value, Mapping):
        return {str(key): json_values(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_values(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value
