"""Scores a bundle on labelled images: `python -m deltascene.pipeline.training.evaluate DATA BUNDLE --part test`.

Prints one line per task, and as JSON what goes into the bundle's evidence. The side-by-side evaluation against
single-task and frozen-shared references isn't written yet.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

from deltascene.pipeline.engine import Engine
from deltascene.pipeline.training.data import LabelledFolder, open_labelled
from deltascene.stages.metrics import METRICS


def evaluate(
    engine: Engine, data: LabelledFolder, part: str, progress: Callable[[int, int], None] = lambda done, of: None
) -> dict[str, dict[str, float]]:
    """Metrics of every task over one part of a data set, each image a dense frame of its own.

    Args:
        engine: loaded model.
        data: images and truth, at the model's input size.
        part: `train`, `val` or `test`.
        progress: told done and total.
    """
    kinds = {task: engine.model.bundle.kinds[task] for task in engine.model.tasks}
    counters = {task: METRICS[kind.name]() for task, kind in kinds.items()}
    stream, stems = engine.open_stream("evaluation"), data.stems(part)
    for number, stem in enumerate(stems, start=1):
        stream.reset()
        result = stream(data.image(stem))
        for task, kind in kinds.items():
            counters[task].update(kind.decode(data.truth(task, stem)), result[task].array)
        progress(number, len(stems))
    return {task: counter.result() for task, counter in counters.items()}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Score a bundle on labelled images.")
    parser.add_argument("data", type=Path, help="folder with images/, one folder per task, split.csv")
    parser.add_argument("bundle", help="packaged name or folder")
    parser.add_argument("--part", default="test")
    options = parser.parse_args()
    data = open_labelled(options.data)
    numbers = evaluate(Engine.load(options.bundle), data, options.part)
    for task, metrics in numbers.items():
        print(f"{task}: " + ", ".join(f"{name} {value:.4f}" for name, value in metrics.items()))
    rounded = {task: {name: round(value, 4) for name, value in metrics.items()} for task, metrics in numbers.items()}
    print(json.dumps({"part": options.part, "images": len(data.stems(options.part)), **rounded}))


if __name__ == "__main__":
    main()
