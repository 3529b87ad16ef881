"""Hits of a model on marked frames: shares, their intervals, a table, and all numbers for JSON."""

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any

import numpy as np
from real_clips_marks import Judged

from deltascene.pipeline.evaluation.clip_scores import bootstrap, error_of

ALL, REDRAWN = "all", "all, frames drawn again"


def table(judged: Mapping[str, Sequence[Judged]]) -> str:
    """Markdown table of hits by clip and overall."""
    frames = [frame for clip in judged.values() for frame in clip]
    if not frames:
        return "no clip, no numbers"
    rows = {**judged, ALL: frames}
    names = list(frames[0].hits)
    lines = [f"| clip | frames | {' | '.join(names)} |", "|---" * (2 + len(names)) + "|"]
    for row, of in rows.items():
        lines.append(f"| {row} | {len(of)} | {' | '.join(_cell(*count(of, name)) for name in names)} |")
    spans = [_span(*redrawn(frames, name)) if count(frames, name)[1] else "–" for name in names]
    return "\n".join([*lines, f"| {REDRAWN} | {len(frames)} | {' | '.join(spans)} |"])


def plain(model: str, judged: Mapping[str, Sequence[Judged]]) -> dict[str, Any]:
    """All numbers for JSON, with every mark's hit, so that two models can be compared mark by mark."""
    frames = [frame for clip in judged.values() for frame in clip]
    names = list(frames[0].hits) if frames else []
    summary = {}
    for row, of in {**judged, ALL: frames}.items():
        counts = {name: count(of, name) for name in names}
        summary[row] = {
            name: {"hits": hits, "marks": marks, "interval": wilson(hits, marks) if marks else None}
            for name, (hits, marks) in counts.items()
        }
    each = {
        clip: {frame.marks.index: {name: [*map(int, hits)] for name, hits in frame.hits.items()} for frame in of}
        for clip, of in judged.items()
    }
    again = {name: redrawn(frames, name) for name in names if count(frames, name)[1]}
    return {"model": model, "summary": summary, REDRAWN: again, "frames": each}


def count(frames: Sequence[Judged], name: str) -> tuple[int, int]:
    """Number of hits and of marks of a measure."""
    return sum(sum(frame.hits[name]) for frame in frames), sum(len(frame.hits[name]) for frame in frames)


def wilson(hits: int, marks: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval of a share.

    Source: Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", 1927.
    """
    rate, slack = hits / marks, z * z / marks
    half = z * sqrt(rate * (1 - rate) / marks + slack / (4 * marks))
    return max(0.0, (rate + slack / 2 - half) / (1 + slack)), min(1.0, (rate + slack / 2 + half) / (1 + slack))


def redrawn(frames: Sequence[Judged], name: str) -> tuple[float, float]:
    """Bootstrap interval of a share that draws whole frames, of those that have such marks."""
    sums = np.array([[[hits], [marks]] for hits, marks in (count([each], name) for each in frames) if marks], float)
    return bootstrap([({name: sums},)], lambda drawn: error_of(drawn[name]), block=1)[0][0]


def _cell(hits: int, marks: int) -> str:
    return f"{hits}/{marks} {100 * hits / marks:.0f} % {_span(*wilson(hits, marks))}" if marks else "–"


def _span(low: float, high: float) -> str:
    return f"[{100 * low:.0f}, {100 * high:.0f}]"
