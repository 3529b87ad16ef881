"""Curves from what a flow leaves unexplained to what a warped frame loses: `python benchmarks/evidence.py`.

    python benchmarks/evidence.py --clips CLIPS --parts val life_val --store RECORDS

prints the section `evidence.policy` of a bundle, and, for every clip, the residuals at which it alone, and all others
without it, would reach the bounds: how far one curve serves all clips. The clips are those of docs/quality.md. Records
in `--store` are reused, also after changes of the code.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from clip_sets import CLIPS, rendered

from deltascene.pipeline.config import load_config
from deltascene.pipeline.engine.bounds import LAST_TO_MEAN, residual_at
from deltascene.pipeline.engine.engine import Engine
from deltascene.pipeline.evaluation.clip_scores import MOVING, REGIONS, WHOLE
from deltascene.pipeline.evaluation.clips import open_clip
from deltascene.pipeline.evaluation.evidence import Observed, fit, observe, warping_only
from deltascene.pipeline.numerics.plain_torch import plain_torch
from deltascene.pipeline.numerics.settle import settle
from deltascene.pipeline.safe_yaml import render_yaml

BOUNDS = {WHOLE: 1.0, MOVING: 5.0}  # percent, of `balanced`


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, fits and prints; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, required=True, help="folder of rendered clips")
    parser.add_argument("--parts", nargs="+", choices=list(CLIPS), default=["val"], help="which clips of the folder")
    parser.add_argument("--model", default="rooms", help="packaged bundle or folder")
    parser.add_argument("--frames", type=int, default=150, help="maximum number of each clip")
    parser.add_argument("--store", type=Path, required=True, help="folder where records are kept and found again")
    request = parser.parse_args(arguments)
    names = [spec.name for part in request.parts for spec in rendered(request.clips, part)]
    found = {name: recorded(request, name) for name in names}
    curves = {region: fit([clip[region] for clip in found.values()]) for region in REGIONS}
    print(render_yaml({"policy": {"whole": curves[WHOLE], "moving": curves[MOVING]}}))
    print("| clip | " + " | ".join(f"{region}: alone | without it | loss there %" for region in REGIONS) + " |")
    for name in names:
        cells = []
        for region in REGIONS:
            others = fit([clip[region] for other, clip in found.items() if other != name])
            at = residual_at(others, LAST_TO_MEAN * BOUNDS[region])
            alone = residual_at(fit([found[name][region]]), LAST_TO_MEAN * BOUNDS[region])
            cells.append(f"{alone:.2f} | {at:.2f} | {mean_below(found[name][region], at):+.1f}")
        print(f"| {name} | " + " | ".join(cells) + " |")
    return 0


def mean_below(clip: Observed, most: float) -> float:
    """Mean loss, in percent, of the warped frames that leave no more than this unexplained."""
    below = clip["residual"] <= most
    weight = clip["pixels"][below]
    return float(np.average(clip["loss"][below], weights=weight)) if weight.sum() else float("nan")


@plain_torch()
def recorded(request: argparse.Namespace, name: str) -> dict[str, Observed]:
    """The warped frames of a clip, from its record or measured."""
    path = request.store / f"{name}.npz"
    if not path.is_file():
        request.store.mkdir(parents=True, exist_ok=True)
        model = Engine.load(request.model).model
        exact = settle(load_config("exact", values={"model": request.model}))
        warping = warping_only(
            settle(load_config("defaults", overrides=["policy.flow=onward"], values={"model": request.model}))
        )
        clip = open_clip(request.clips / f"{name}.mp4", model.bundle.kinds)
        observed = observe(clip, model, exact, warping, request.frames)
        np.savez(
            path, **{f"{region}/{column}": values for region in REGIONS for column, values in observed[region].items()}
        )
        print(f"measured {name}", flush=True)
    with np.load(path) as stored:
        return {
            region: {key.partition("/")[2]: stored[key] for key in stored if key.startswith(region)}
            for region in REGIONS
        }


if __name__ == "__main__":
    raise SystemExit(main())
