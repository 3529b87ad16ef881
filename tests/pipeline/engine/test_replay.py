"""A stream cut into segments: one rule for all that run or judge it, and decisions by its pixels alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltascene import Engine, Frame
from deltascene.pipeline.bundles.bundle import read_bundle
from deltascene.pipeline.bundles.scene_model import sketch_model
from deltascene.pipeline.config import load_config
from deltascene.pipeline.engine.replay import begins_segment, decide_frames, in_segments
from deltascene.pipeline.engine.step import StreamState, step
from deltascene.pipeline.sources.find import find_sources
from deltascene.pipeline.sources.reader import open_source
from deltascene.pipeline.workers.jobs import plan_segments, plan_spans

pytestmark = pytest.mark.usefixtures("one_thread")


class Counter:
    """Carries how many frames of its segment it has seen."""

    def __init__(self, segment_frames):
        self.segment_frames = segment_frames
        self.seen = 99

    def reset(self):
        self.seen = 0

    def __call__(self, frame):
        self.seen += 1
        return self.seen


@given(st.integers(0, 60), st.integers(1, 20), st.integers(1, 20))
def test_every_carrier_starts_anew_where_its_own_segments_begin(frames, length, other):
    one, two = Counter(length), Counter(other)
    found = [(one(frame), two(frame)) for frame in in_segments(range(frames), one, two)]
    assert found == [(number % length + 1, number % other + 1) for number in range(frames)]


@given(st.integers(1, 80), st.integers(1, 30), st.integers(1, 20), st.integers(1, 5), st.randoms())
def test_a_video_in_spans_has_the_same_segments(frames, length, span_frames, stride, random):
    """However a run cuts it, in whatever order its segments come, and also where one is done twice."""
    segments = plan_segments(range(7, 7 + frames * stride, stride), length)
    assert [segment.start for segment in segments] == [n for n in range(frames) if begins_segment(n, length)]
    carrier, order = Counter(length), random.choices(segments, k=len(segments) + 1)
    for segment in order:
        found = []
        for span in plan_spans(segment, span_frames):
            found += [carrier(frame) for frame in in_segments(range(span.frames), carrier, start=span.start)]
            assert span.first == (len(found) == span.frames)
            assert span.last == (len(found) == segment.frames)
        assert found == list(range(1, segment.frames + 1))


def test_a_stride_applies_before_segments_are_counted(tiny, make_clip):
    overrides = ["numerics.dtype=float32", "segment.frames=4", "source.stride=3", "policy.refresh=1000"]
    engine = Engine.load(tiny, "balanced", overrides=overrides)
    results = list(engine.run(make_clip(30)))
    assert [result.index for result in results if result.reason == "reset"] == [0, 12, 24]
    (spec,) = find_sources([str(make_clip(30))])
    with open_source(engine.config.source, spec) as reader:
        decided = list(decide_frames(engine.model, [engine.config], reader))
    assert [each.frame.index for each in decided if each.decisions[0].reason == "reset"] == [0, 12, 24]


def test_images_that_a_program_hands_over_are_cut_into_segments_as_a_file_is(tiny, make_clip):
    engine = Engine.load(tiny, "balanced", overrides=["numerics.dtype=float32", "segment.frames=4"])
    (spec,) = find_sources([str(make_clip(10))])
    with open_source(engine.config.source, spec) as reader:
        images = [frame.image for frame in reader]

    def resets(source):
        return [place for place, result in enumerate(engine.run(source)) if result.reason == "reset"]

    assert resets(str(spec.path)) == resets(iter(images)) == [0, 4, 8]
    assert resets([images[0], spec.path, *images[:5]]) == [0, 1, 5, 9, 11, 15]


def film():
    """Two sizes, a bad frame, and things that move, rest and come back."""
    still = np.tile(np.linspace(20, 220, 64, dtype=np.uint8), (48, 1))[..., None].repeat(3, -1)
    for number in range(40):
        image = still.copy()
        left = 2 * (number if number < 20 else 20)
        image[17:29, left : left + 12] = (240, 40, 90)
        image = image[:, :60] if number in range(25, 31) else image
        bad = number in (5, 11)
        yield Frame("a", number, number / 25, image, valid=not bad, cause="corrupt" if bad else "")


def test_decisions_by_pixels_alone_are_those_of_the_walk(tiny):
    """Of several configs at once, and each as it would be on its own."""
    plain = ["numerics.dtype=float32", "segment.frames=11", "policy.refresh=9"]
    configs = [load_config(preset, overrides=plain) for preset in ("exact", "balanced", "fast")]
    evidence = [
        "policy.every=null",
        "policy.camera_price=0.01",
        "policy.flow=onward",
        "policy.max_age_s=0.07",
        "policy.rolling=0.1",
    ]
    configs.append(load_config("balanced", overrides=[*plain, *evidence]))
    engine = Engine.load(tiny, overrides=["numerics.dtype=float32", "numerics.kernel=torch"])
    bundle = read_bundle(tiny)
    decided = list(decide_frames(sketch_model(bundle, tuple(bundle.entry.tasks)), configs, film()))
    for place, config in enumerate(configs):
        state, told = StreamState(), []
        for number, (frame, each) in enumerate(zip(film(), decided, strict=True)):
            state = StreamState() if number % 11 == 0 else state
            state, result = step(engine.model, config, state, frame)
            if not result.valid:
                assert (each.grid, each.decisions) == (None, ())
                continue
            decision, record = each.decisions[place], result.record
            assert (decision.policy, decision.reason) == (record.policy, record.reason)
            computed = range(each.grid.tokens) if decision.rows is None else decision.rows.tolist()
            assert list(computed) == record.rows.tolist()
            told.append(record.policy)
        assert set(told) == ({"dense", "rows", "warped", "held"} if config.policy.reuse else {"dense", "held"})


def test_decisions_keep_the_grid_of_the_first_frame_as_a_run_does(tiny):
    overrides = ["numerics.dtype=float32", "segment.frames=2", "input.resize=aspect"]
    engine = Engine.load(tiny, "balanced", overrides=overrides)
    images = [np.full((*size, 3), 90, np.uint8) for size in ((54, 96), (96, 54), (96, 54), (54, 96))]
    frames = [Frame("a", number, number / 25, image) for number, image in enumerate(images)]
    decided = list(decide_frames(engine.model, [engine.config], frames))
    assert [(each.grid.height, each.grid.width) for each in decided] == [(3, 5)] * 4
    rows = [16 if each.decisions[0].rows is None else len(each.decisions[0].rows) for each in decided]
    assert rows == [len(result.record.rows) for result in engine.run(images)]


def test_configs_that_see_other_pixels_are_refused(tiny):
    configs = [load_config("balanced", overrides=[f"segment.frames={frames}"]) for frames in (8, 9)]
    bundle = read_bundle(tiny)
    with pytest.raises(AssertionError, match="pixels are shared"):
        next(decide_frames(sketch_model(bundle, tuple(bundle.entry.tasks)), configs, film()))
