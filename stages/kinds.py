"""Kinds of dense tasks: what the values of a task are, and how they are stored, filled, coloured and compared.

A task is data: its kind supplies all of this, so no code depends on a task's name. A *value* is the natural form of a
prediction (class ids, metres, unit vectors, probabilities); *stored* is its compact form on disk.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from deltascene.stages import colours
from deltascene.stages.errors import UnsupportedKind

Array = NDArray[Any]
Activation = Literal["argmax", "identity", "exp", "unit", "sigmoid"]
Resample = Literal["nearest", "linear"]

ALL_WRONG = {"vector": 90.0}  # drift of a kind that counts as 1; degrees, where the others are shares already


@dataclass(frozen=True, slots=True)
class Stored:
    """Form of a value on disk: round(value * scale) for integers, value * scale for floats.

    Attributes:
        dtype: numpy name of the stored type.
        scale: stored units per natural unit.
        fill: stored number where nothing was predicted; whether a frame was predicted is decided by the `valid` array.

    Raises:
        UnsupportedKind: `fill` isn't a number of `dtype`, or `scale` isn't positive.
    """

    dtype: str
    scale: float = 1.0
    fill: float = 0.0

    def __post_init__(self) -> None:
        dtype = np.dtype(self.dtype)
        if not 0 < self.scale < float("inf"):
            raise UnsupportedKind(f"stored.scale: expected a positive number; found {self.scale}")
        if dtype.kind != "f" and not (np.iinfo(dtype).min <= self.fill <= np.iinfo(dtype).max):
            raise UnsupportedKind(f"stored.fill: expected a number of {self.dtype}; found {self.fill}")

    def encode(self, value: Array) -> Array:
        """Stored form of natural values; integers are rounded and clipped to their type's range, NaN becomes `fill`."""
        dtype = np.dtype(self.dtype)
        scaled = value if self.scale == 1.0 else value * np.float32(self.scale)
        if dtype.kind == "f" or scaled.dtype == dtype:
            return scaled.astype(dtype)
        limits = np.iinfo(dtype)
        known = np.where(np.isnan(scaled), self.fill, np.rint(scaled))
        return np.clip(known, limits.min, limits.max).astype(dtype)

    def decode(self, stored: Array) -> Array:
        """Natural values of stored ones, float32."""
        value: Array = stored.astype(np.float32) / np.float32(self.scale)
        return value


class Kind(Protocol):
    """Interface of a task's kind."""

    @property
    def name(self) -> str:
        """Name of the kind in a bundle."""

    @property
    def channels(self) -> int:
        """Channels of the head's output."""

    @property
    def components(self) -> int:
        """Values per pixel: 1 gives arrays [H, W], more [H, W, components]."""

    @property
    def activation(self) -> Activation:
        """Function that turns the head's output into natural values."""

    @property
    def stored(self) -> Stored:
        """Form on disk."""

    @property
    def resample(self) -> Resample:
        """Interpolation with which values may be resized or warped."""

    @property
    def drift_unit(self) -> str:
        """Unit of `drift`."""

    def decode(self, stored: Array) -> Array:
        """Natural values of the stored form."""

    def colour(self, value: Array) -> NDArray[np.uint8]:
        """A picture of the values: RGB [H, W, 3]."""

    def drift(self, value: Array, reference: Array) -> float:
        """Distance between two predictions of one frame in `drift_unit`; 0 when they agree."""


@dataclass(frozen=True, slots=True)
class Classes:
    """One of a list of labels per pixel; natural values are ids (uint8, or uint16 above 254 labels)."""

    labels: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...] = ()
    stored: Stored = Stored("uint8", fill=255)
    resample: Resample = "nearest"
    name: str = field(default="classes", init=False)
    activation: Activation = field(default="argmax", init=False)
    drift_unit: str = field(default="share of pixels", init=False)
    components: int = field(default=1, init=False)

    def __post_init__(self) -> None:
        if self.palette and len(self.palette) != len(self.labels):
            raise UnsupportedKind(f"colours: expected one per label, {len(self.labels)}; found {len(self.palette)}")
        dtype = np.dtype(self.stored.dtype)
        if dtype.kind != "u" or len(self.labels) >= np.iinfo(dtype).max:
            expected = "uint8" if len(self.labels) <= 254 else "uint16"
            raise UnsupportedKind(f"stored: expected {expected} for {len(self.labels)} labels; found {dtype}")

    @property
    def channels(self) -> int:
        """One score per label."""
        return len(self.labels)

    def decode(self, stored: Array) -> Array:
        """The stored ids, which are natural values already."""
        return stored

    def colour(self, value: Array) -> NDArray[np.uint8]:
        """Each id in its label's colour; ids outside the list are black."""
        table = np.array([*(self.palette or colours.distinct(self.channels)), (0, 0, 0)], np.uint8)
        return table[np.where((value >= 0) & (value < self.channels), value, self.channels)]

    def drift(self, value: Array, reference: Array) -> float:
        """Share of pixels with another label."""
        return float(np.mean(value != reference))


@dataclass(frozen=True, slots=True)
class Scalar:
    """One number per pixel.

    Attributes:
        unit: unit of the number, shown to users.
        range: smallest and largest number expected; the colours span it.
        log: True when the head's output is the logarithm of a positive quantity.
    """

    unit: str = ""
    range: tuple[float, float] = (0.0, 1.0)
    log: bool = False
    stored: Stored = Stored("float16", fill=float("nan"))
    resample: Resample = "linear"
    name: str = field(default="scalar", init=False)
    channels: int = field(default=1, init=False)
    components: int = field(default=1, init=False)
    drift_unit: str = field(default="mean |difference| / |reference|", init=False)

    def __post_init__(self) -> None:
        low, high = self.range
        if not low < high or (self.log and low <= 0):
            raise UnsupportedKind(
                f"range: expected low < high{', both positive' if self.log else ''}; found {self.range}"
            )

    @property
    def activation(self) -> Activation:
        """The exponential where the head's output is a logarithm, else the identity."""
        return "exp" if self.log else "identity"

    def decode(self, stored: Array) -> Array:
        """Numbers in `unit`, float32."""
        return self.stored.decode(stored)

    def colour(self, value: Array) -> NDArray[np.uint8]:
        """Low numbers (near) in warm colours, high ones (far) in cold ones; on a logarithmic scale with `log`."""
        low, high = self.range
        if self.log:
            value, low, high = np.log(np.maximum(value, 1e-6)), np.log(low), np.log(high)
        return colours.ramp(1.0 - (value - low) / (high - low))

    def drift(self, value: Array, reference: Array) -> float:
        """Mean relative difference."""
        return float(np.mean(np.abs(value - reference) / np.maximum(np.abs(reference), 1e-6)))


@dataclass(frozen=True, slots=True)
class Vector:
    """A vector per pixel, a unit vector with `unit_length`."""

    channels: int = 3
    unit_length: bool = True
    stored: Stored = Stored("int8", scale=127.0, fill=0)
    resample: Resample = "linear"
    name: str = field(default="vector", init=False)
    drift_unit: str = field(default="degrees", init=False)

    @property
    def components(self) -> int:
        """As many as channels; vectors are stored whole."""
        return self.channels

    @property
    def activation(self) -> Activation:
        """Normalisation for unit vectors, else the identity."""
        return "unit" if self.unit_length else "identity"

    def decode(self, stored: Array) -> Array:
        """Vectors [..., channels] float32; unit vectors are renormalised, and zero, which is invalid, stays zero."""
        value = self.stored.decode(stored)
        return unit_vectors(value) if self.unit_length else value

    def colour(self, value: Array) -> NDArray[np.uint8]:
        """Components mapped from [-1, 1] to the colour channels; y and z are flipped, as usual for camera normals."""
        shown = np.zeros((*value.shape[:-1], 3), np.float32)
        shown[..., : min(3, self.channels)] = (
            value[..., :3] * np.array([1, -1, -1], np.float32)[: min(3, self.channels)]
        )
        return np.rint(np.clip(shown * 0.5 + 0.5, 0, 1) * 255).astype(np.uint8)

    def drift(self, value: Array, reference: Array) -> float:
        """Mean angle between the vectors."""
        return float(angles_deg(value, reference).mean())


@dataclass(frozen=True, slots=True)
class Heatmaps:
    """Probabilities per pixel, one map per name; a single map is [H, W]."""

    names: tuple[str, ...] = ("probability",)
    stored: Stored = Stored("float16", fill=float("nan"))
    resample: Resample = "linear"
    name: str = field(default="heatmaps", init=False)
    activation: Activation = field(default="sigmoid", init=False)
    drift_unit: str = field(default="mean |difference|", init=False)

    @property
    def channels(self) -> int:
        """One per map."""
        return len(self.names)

    @property
    def components(self) -> int:
        """One per map."""
        return len(self.names)

    def decode(self, stored: Array) -> Array:
        """Probabilities in [0, 1], float32."""
        return self.stored.decode(stored)

    def colour(self, value: Array) -> NDArray[np.uint8]:
        """One map in grey; of several maps, the largest at each pixel in its own hue."""
        shown = np.clip(np.nan_to_num(value), 0, 1)
        if self.components == 1:
            picture = np.repeat(255 * shown[..., None], 3, axis=-1)
        else:
            hues = np.asarray(colours.distinct(self.components), np.float32)
            picture = shown.max(-1, keepdims=True) * hues[shown.argmax(-1)]
        rounded: NDArray[np.uint8] = np.rint(picture).astype(np.uint8)
        return rounded

    def drift(self, value: Array, reference: Array) -> float:
        """Mean absolute difference."""
        return float(np.mean(np.abs(value - reference)))


KINDS: Mapping[str, Callable[..., Kind]] = {
    "classes": Classes,
    "scalar": Scalar,
    "vector": Vector,
    "heatmaps": Heatmaps,
}


def unit_vectors(value: Array) -> Array:
    """Vectors [..., C] scaled to length 1; zero vectors stay zero."""
    length = np.sqrt(np.einsum("...c,...c->...", value, value))[
        ..., None
    ]  # takes less than half the time of linalg.norm
    scaled: Array = value / np.where(length > 0, length, value.dtype.type(1))
    return scaled


def angles_deg(a: Array, b: Array) -> NDArray[np.float64]:
    """Angles between vectors [..., C] in degrees [...]; 90 where one of them is zero, 0 where both are.

    Source: Kahan, "How Futile are Mindless Assessments of Roundoff", 2006: accurate for small angles, unlike arccos.
    """
    unit_a, unit_b = unit_vectors(a.astype(np.float64)), unit_vectors(b.astype(np.float64))
    apart, along = np.linalg.norm(unit_a - unit_b, axis=-1), np.linalg.norm(unit_a + unit_b, axis=-1)
    angle: NDArray[np.float64] = np.degrees(2 * np.arctan2(apart, along))
    return angle


def stored_shape(kind: Kind, size: tuple[int, int]) -> tuple[int, ...]:
    """Shape of one frame's array: [H, W], or [H, W, components]."""
    return size if kind.components == 1 else (*size, kind.components)


def describe_kind(kind: Kind) -> dict[str, Any]:
    """A kind as plain values; they are written beside its stored arrays, which can so be read without the bundle."""
    own = {item.name for item in fields(kind) if item.init}  # type: ignore[arg-type]
    data = {key: value for key, value in asdict(kind).items() if key in own}  # type: ignore[call-overload]
    data["stored"] = {**data["stored"], "fill": str(float(data["stored"]["fill"]))}  # NaN is no JSON number
    return {"kind": kind.name, **data}


def kind_from_description(data: Mapping[str, Any]) -> Kind:
    """The kind of a description made by `describe_kind`.

    Raises:
        UnsupportedKind: the description isn't one of a known kind.
    """
    try:
        values = {key: _tuples(value) for key, value in data.items() if key not in ("kind", "stored")}
        stored = data["stored"]
        return KINDS[data["kind"]](**values, stored=Stored(stored["dtype"], stored["scale"], float(stored["fill"])))
    except (KeyError, TypeError, ValueError) as error:
        known = ", ".join(KINDS)
        raise UnsupportedKind(f"kind: expected one of {known} with its fields; found {dict(data)}") from error


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, (list, tuple)) else value
