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
