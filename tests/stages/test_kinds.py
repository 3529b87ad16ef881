import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from deltascene.stages.errors import UnsupportedKind
from deltascene.stages.kinds import (
    KINDS,
    Classes,
    Heatmaps,
    Scalar,
    Stored,
    Vector,
    describe_kind,
    kind_from_description,
    stored_shape,
    unit_vectors,
)

SIZE = (4, 6)
EVERY = [
    Classes(("a", "b", "c")),
    Classes(tuple(map(str, range(300))), stored=Stored("uint16", fill=65535)),
    Scalar("m", (0.3, 12.0), log=True),
    Scalar("K", (250.0, 350.0), stored=Stored("uint16", scale=100.0)),
    Vector(),
    Vector(2, unit_length=False, stored=Stored("float32")),
    Heatmaps(),
    Heatmaps(("left", "right"), stored=Stored("uint8", scale=255.0)),
]


def natural(kind, seed=0):
    """Values such as the kind's head would give."""
    rng = np.random.default_rng(seed)
    shape = stored_shape(kind, SIZE)
    if kind.name == "classes":
        return rng.integers(0, kind.channels, shape).astype(kind.stored.dtype)
    if kind.name == "scalar":
        return rng.uniform(*kind.range, shape).astype(np.float32)
    if kind.name == "vector":
        value = rng.normal(size=shape).astype(np.float32)
        return unit_vectors(value) if kind.unit_length else value
    return rng.uniform(0, 1, shape).astype(np.float32)


def test_every_kind_is_known_by_its_own_name():
    assert {kind.name for kind in EVERY} == set(KINDS)
    assert all(type(kind) is KINDS[kind.name] for kind in EVERY)


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: f"{kind.name}-{kind.stored.dtype}")
def test_every_kind_stores_shows_and_compares(kind):
    value, other = natural(kind), natural(kind, seed=1)
    stored = kind.stored.encode(value)
    assert stored.dtype == kind.stored.dtype
    assert stored.shape == stored_shape(kind, SIZE)
    back = kind.decode(stored)
    assert back.shape == value.shape
    assert back.dtype == (value.dtype if kind.name == "classes" else np.float32)
    for shown in (value, back, np.full_like(stored, kind.stored.fill)):
        picture = kind.colour(shown)
        assert picture.shape == (*SIZE, 3)
        assert picture.dtype == np.uint8
    assert kind.drift(value, value) == pytest.approx(0, abs=1e-5)
    assert kind.drift(value, other) > 0
    assert kind.drift(back, value) < 0.01 if kind.name != "vector" else kind.drift(back, value) < 0.4
    assert kind.drift_unit


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: f"{kind.name}-{kind.stored.dtype}")
def test_a_description_gives_the_kind_back(kind):
    description = json.loads(json.dumps(describe_kind(kind), allow_nan=False))
    found = kind_from_description(description)
    assert describe_kind(found) == describe_kind(kind)


def test_a_description_of_nothing_is_refused():
    with pytest.raises(UnsupportedKind, match="expected one of classes, scalar, vector, heatmaps"):
        kind_from_description({"kind": "boxes", "stored": {"dtype": "uint8", "scale": 1, "fill": 0}})


def test_activations_follow_the_kind():
    assert Classes(("a",)).activation == "argmax"
    assert Scalar().activation == "identity"
    assert Scalar(range=(1, 2), log=True).activation == "exp"
    assert Vector().activation == "unit"
    assert Vector(unit_length=False).activation == "identity"
    assert Heatmaps().activation == "sigmoid"


def test_channels_and_components():
    assert (Classes(("a", "b")).channels, Classes(("a", "b")).components) == (2, 1)
    assert (Vector(4).channels, Vector(4).components) == (4, 4)
    assert (Heatmaps(("a", "b")).channels, Heatmaps(("a", "b")).components) == (2, 2)
    assert stored_shape(Scalar(), SIZE) == SIZE
    assert stored_shape(Vector(), SIZE) == (*SIZE, 3)


def test_fills_are_what_the_contract_says():
    assert Classes(("a",)).stored == Stored("uint8", fill=255)
    assert np.isnan(Scalar().stored.fill)
    assert Vector().stored.fill == 0
    assert np.isnan(Heatmaps().stored.fill)


def test_labels_above_254_need_16_bits():
    kind = EVERY[1]
    ids = np.array([[0, 254, 255, 299]], np.uint16)
    np.testing.assert_array_equal(kind.decode(kind.stored.encode(ids)), ids)
    assert kind.stored.fill == 65535
    with pytest.raises(UnsupportedKind, match="stored: expected uint16 for 300 labels; found uint8"):
        Classes(tuple(map(str, range(300))))
    assert Classes(tuple(map(str, range(254)))).stored.dtype == "uint8"


@given(arrays(np.float32, (5, 7), elements=st.floats(0, 1, width=32)))
def test_a_byte_keeps_a_probability_to_half_a_step(value):
    stored = Stored("uint8", scale=255.0)
    assert np.abs(stored.decode(stored.encode(value)) - value).max() <= 0.5 / 255 + 1e-6


@given(arrays(np.float32, (5, 7), elements=st.floats(2**-14, 65504, width=32)))
def test_half_precision_keeps_eleven_bits(value):
    stored = Stored("float16")
    assert (np.abs(stored.decode(stored.encode(value)) - value) <= value * 2.0**-11).all()


@given(arrays(np.float32, (9, 3), elements=st.floats(-1, 1, width=32)).filter(lambda v: (abs(v).max(-1) > 0.01).all()))
def test_stored_normals_turn_by_less_than_four_tenths_of_a_degree(value):
    # half a step in each of three components: at most asin(sqrt(3) / 2 / 127) = 0.391 degrees
    kind, value = Vector(), unit_vectors(value)
    back = kind.decode(kind.stored.encode(value))
    np.testing.assert_allclose(np.linalg.norm(back, axis=-1), 1, atol=1e-6)
    cosine = np.clip((back.astype(np.float64) * value).sum(-1), -1, 1)
    assert np.degrees(np.arccos(cosine)).max() < 0.4


@given(
    arrays(np.float32, (6,), elements=st.floats(width=32)),
    st.sampled_from(["uint8", "int8", "uint16"]),
    st.sampled_from([1.0, 100.0, 0.5]),
)
def test_integers_clip_and_never_wrap(value, dtype, scale):
    with np.errstate(over="ignore"):
        scaled = value * np.float32(scale)
        stored = Stored(dtype, scale, fill=7).encode(value)
    limits = np.iinfo(dtype)
    assert (stored[scaled >= limits.max] == limits.max).all()
    assert (stored[scaled <= limits.min] == limits.min).all()
    assert (stored[np.isnan(value)] == 7).all()


def test_an_invalid_vector_stays_zero():
    kind = Vector()
    assert (kind.decode(np.zeros((2, 2, 3), np.int8)) == 0).all()
    assert (unit_vectors(np.zeros((4, 3))) == 0).all()


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: Stored("uint8", fill=256), "stored.fill: expected a number of uint8; found 256"),
        (lambda: Stored("uint8", fill=float("nan")), "stored.fill: expected a number of uint8; found nan"),
        (lambda: Stored("uint8", scale=0), "stored.scale: expected a positive number; found 0"),
        (lambda: Classes(("a", "b"), ((0, 0, 0),)), "colours: expected one per label, 2; found 1"),
        (lambda: Scalar(range=(2, 1)), r"range: expected low < high; found \(2, 1\)"),
        (lambda: Scalar(range=(0, 1), log=True), r"both positive; found \(0, 1\)"),
    ],
)
def test_nonsense_is_refused_by_name(build, text):
    with pytest.raises(UnsupportedKind, match=text):
        build()


def test_drift_by_hand():
    ids = np.array([[0, 1], [2, 2]], np.uint8)
    assert Classes(("a", "b", "c")).drift(ids, np.array([[0, 2], [2, 2]], np.uint8)) == 0.25
    assert Scalar().drift(np.array([1.1, 1.8]), np.array([1.0, 2.0])) == pytest.approx(0.1)
    right_angle = Vector().drift(np.array([[1.0, 0, 0], [0, 1, 0]]), np.array([[0.0, 1, 0], [0, 1, 0]]))
    assert right_angle == pytest.approx(45)
    assert Heatmaps().drift(np.array([0.5, 1.0]), np.array([0.0, 1.0])) == 0.25


def test_pictures_by_hand():
    named = Classes(("a", "b"), ((10, 20, 30), (40, 50, 60)))
    np.testing.assert_array_equal(
        named.colour(np.array([[1, 0, 2, 255]], np.uint8))[0], [[40, 50, 60], [10, 20, 30], [0, 0, 0], [0, 0, 0]]
    )
    np.testing.assert_array_equal(named.colour(np.array([[1, -1, 9]], np.int64))[0, 1:], np.zeros((2, 3)))
    facing = Vector().colour(np.array([[[0.0, 0, -1], [1, 0, 0]]], np.float32))
    np.testing.assert_array_equal(facing[0], [[128, 128, 255], [255, 128, 128]])
    np.testing.assert_array_equal(Heatmaps().colour(np.array([[0, 1, np.nan]]))[0], [[0] * 3, [255] * 3, [0] * 3])
    nowhere = Heatmaps(("a", "b")).colour(np.full((1, 1, 2), np.nan))
    np.testing.assert_array_equal(nowhere, np.zeros((1, 1, 3)))
    depth = Scalar("m", (0.3, 12.0), log=True)
    near, far, unknown = depth.colour(np.array([[0.3, 12.0, np.nan]]))[0]
    assert near[0] > near[2]
    assert far[2] > far[0]
    assert (unknown == 0).all()
