"""The parts of a run that compute, on their own: what they carry, and from where on they carry nothing."""

from dataclasses import replace

import numpy as np
import pytest

from deltascene.cache.segment import SegmentInfo
from deltascene.pipeline.bundles.bundle import read_bundle
from deltascene.pipeline.bundles.scene_model import handing_over, load_model
from deltascene.pipeline.config import load_config
from deltascene.pipeline.engine.engine import Engine
from deltascene.pipeline.workers.engine_part import EnginePart
from deltascene.pipeline.workers.jobs import ArchiveJob, Segment, SpanFrames, VideoJob, plan_spans
from deltascene.stages.types import Frame

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = (48, 64)


@pytest.fixture(scope="module")
def engine(tiny_delta):
    config = load_config("balanced", overrides=["numerics.dtype=float32", "segment.frames=4", "input.size=48"])
    bundle = read_bundle(tiny_delta)
    return Engine(handing_over(load_model(bundle, tuple(bundle.entry.tasks)), config), config)


@pytest.fixture(scope="module")
def job(engine):
    """A video's job, with what the computing parts look at."""
    plan = engine.plan(SIZE)
    grid = engine.model.backbone.grid(plan.model_size)
    unseen = dict.fromkeys(("spec", "info", "files", "key", "fence", "archive"))
    kinds = engine.model.bundle.kinds
    return VideoJob(engine.config, **unseen, frames=11, plan=plan, grid=grid, kinds=kinds, base="parts")


def picture(number, size=SIZE):
    image = np.full((*size, 3), 90, np.uint8)
    image[8:24, 3 * number : 3 * number + 16] = (230, 40, 90)
    return Frame("clip", number, number / 25, image)


def run(part, job, segment, span_frames):
    """What a part makes of a segment, span by span."""
    outputs = []
    for span in plan_spans(segment, span_frames):
        begin = segment.start + len(outputs)
        read = SpanFrames(span, [(picture(number), 0.0) for number in range(begin, begin + span.frames)])
        outputs += part.run(job, read).frames
    return outputs


@pytest.mark.parametrize("start", [0, 4], ids=["inside a segment", "at a segment's start"])
def test_a_frame_of_another_shape_has_the_input_of_the_video(engine, job, start):
    part = EnginePart(engine.model, engine.config)
    (span,) = plan_spans(Segment(start, 2, start, 2), 2)
    read = SpanFrames(span, [(picture(0, (96, 64)), 0.0), (picture(1), 0.0)])
    outputs = part.run(job, read).frames
    assert [output.record.cause for output in outputs] == ["", "resized"]
    assert {output.tasks["height"].stored.shape for output in outputs} == {(48, 64)}


def test_what_is_archived_has_to_be_handed_over(engine, job):
    info = SegmentInfo((3, 4), "float32", 13, 1, 64, (3, 4), 16, SIZE, SIZE, job.plan.content)
    archiving = replace(job, archive=ArchiveJob(info, {}))
    (made,) = run(EnginePart(engine.model, engine.config), archiving, Segment(0, 1, 0, 1), 1)
    assert sorted(made.record.activations) == [3, 4]
    lacking = EnginePart(replace(engine.model, hand_over=(3,)), engine.config)
    with pytest.raises(AssertionError, match="what is archived is handed over"):
        run(lacking, archiving, Segment(0, 1, 0, 1), 1)
