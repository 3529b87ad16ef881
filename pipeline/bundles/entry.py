"""Schema of `bundle.yaml`, and the rules between its parts. Nothing here opens a file.

A bundle may come from an untrusted source, so every number that determines a size is bounded, and every file is a bare
name.
"""

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from deltascene.pipeline.text import first_problem
from deltascene.stages.input_plan import ResizeMode
from deltascene.stages.kinds import Resample

KIND_KEYS: dict[str, tuple[str, ...]] = {
    "classes": ("labels", "colours"),
    "scalar": ("unit", "range", "log"),
    "vector": ("unit_length",),
    "heatmaps": ("names",),
}

# Arrays of a run's `predictions.zarr` that aren't tasks.
_RESERVED = frozenset({"index", "pts_s", "valid", "age", "change"})
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\.safetensors")
_HEAD = re.compile(r"[A-Za-z_][\w.]{0,99}(:[A-Za-z_]\w{0,99})?")
_TASK = re.compile(r"[a-z][a-z0-9_]{0,31}")
_LARGEST_LAYER = 8192


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("expected printable text")
    return text


def _file_name(text: str) -> str:
    if not _FILE.fullmatch(text):
        raise ValueError("expected the bare name of a .safetensors file in the bundle's folder")
    return text


def _head_name(text: str) -> str:
    if not _HEAD.fullmatch(text):
        raise ValueError("expected the name of a head, or package.module:Class")
    return text


def check_task_name(text: str) -> str:
    """Checks a task's name and returns it.

    Raises:
        ValueError: it can't name an array of a run.
    """
    if not _TASK.fullmatch(text):
        raise ValueError("expected a name of a-z, 0-9 and _, at most 32, a letter first")
    if text in _RESERVED:
        raise ValueError(f"expected another name than {', '.join(sorted(_RESERVED))}, which a run's arrays have")
    return text


def _increasing(numbers: Sequence[int]) -> Sequence[int]:
    if list(numbers) != sorted(set(numbers)):
        raise ValueError("expected increasing numbers")
    return numbers


def _different(texts: Sequence[str]) -> Sequence[str]:
    if len(set(texts)) != len(texts):
        raise ValueError("expected each only once")
    return texts


Text = Annotated[str, Field(max_length=200), AfterValidator(_printable)]
TaskName = Annotated[str, AfterValidator(check_task_name)]
FileName = Annotated[str, AfterValidator(_file_name)]
Places = Annotated[tuple[Annotated[int, Field(ge=0)], ...], AfterValidator(_increasing)]
Names = Annotated[tuple[Text, ...], Field(max_length=65535), AfterValidator(_different)]
Byte = Annotated[int, Field(ge=0, le=255)]
Pixels = Annotated[int, Field(ge=1, le=16384)]
Deviation = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BackboneArgs(_Strict):
    """Arguments of `timm.create_model` that a bundle may set: shapes and switches of a plain vision transformer.

    Others are refused: some of them (`checkpoint_path`, `pretrained_cfg`) make timm open files or addresses.
    """

    img_size: Pixels | tuple[Pixels, Pixels] | None = None
    patch_size: Annotated[int, Field(ge=1, le=256)] | None = None
    embed_dim: Annotated[int, Field(ge=1, le=_LARGEST_LAYER)] | None = None
    depth: Annotated[int, Field(ge=1, le=128)] | None = None
    num_heads: Annotated[int, Field(ge=1, le=256)] | None = None
    mlp_ratio: Annotated[float, Field(gt=0, le=16)] | None = None
    init_values: FiniteFloat | None = None
    reg_tokens: Annotated[int, Field(ge=0, le=64)] | None = None
    class_token: bool = True
    no_embed_class: bool = False
    pre_norm: bool = False
    final_norm: bool = True
    qkv_bias: bool = True
    qk_norm: bool = False
    proj_bias: bool = True
    global_pool: Literal["", "avg", "token"] = "token"
    pos_embed: Literal["", "learn", "none"] = "learn"


def _known_args(args: dict[str, Any]) -> dict[str, Any]:
    try:
        BackboneArgs.model_validate(args)
    except ValidationError as error:
        raise ValueError(first_problem(error, BackboneArgs)) from error
    return args


class BackboneEntry(_Strict):
    """The base's network: its timm name, and the file of its weights."""

    timm: Text
    weights: FileName = "base.safetensors"
    args: Annotated[dict[str, Any], AfterValidator(_known_args)] = {}


class InputEntry(_Strict):
    """How frames become model input; exactly one of `size` and `short_side` is given."""

    size: tuple[Pixels, Pixels] | None = None
    short_side: Pixels | None = None
    multiple: Literal["patch"] = "patch"
    mean: tuple[FiniteFloat, FiniteFloat, FiniteFloat] = (0.485, 0.456, 0.406)
    std: tuple[Deviation, Deviation, Deviation] = (0.229, 0.224, 0.225)
    resize: ResizeMode = "stretch"

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if (self.size is None) == (self.short_side is None):
            found = "neither" if self.size is None else "both"
            raise ValueError(f"expected either size or short_side; found {found}")
        return self


class ArchiveEntry(_Strict):
    """Points where activations may be archived and sub-tasks split off, as numbers of blocks run before."""

    blocks: Places = ()


class StoredEntry(_Strict):
    """A stored form in place of the kind's own."""

    dtype: Literal["uint8", "int8", "uint16", "float16", "float32"]
    scale: Deviation = 1.0
    fill: float = 0.0

    @model_validator(mode="after")
    def _fill_fits(self) -> Self:
        dtype = np.dtype(self.dtype)
        if dtype.kind != "f" and not (
            self.fill.is_integer() and np.iinfo(dtype).min <= self.fill <= np.iinfo(dtype).max
        ):
            raise ValueError(f"fill: expected a number that {self.dtype} holds; found {self.fill}")
        return self


class TaskEntry(_Strict):
    """Description of one task."""

    kind: Literal["classes", "scalar", "vector", "heatmaps"]
    channels: int | None = Field(default=None, ge=1, le=65535)
    labels: Names = ()
    colours: tuple[tuple[Byte, Byte, Byte], ...] = ()
    unit: Text = ""
    range: tuple[FiniteFloat, FiniteFloat] = (0.0, 1.0)
    log: bool = False
    unit_length: bool = True
    names: Names = ()
    split: int | None = None
    taps: Places = Field(min_length=1)
    delta: FileName | None = None
    head: Annotated[str, AfterValidator(_head_name)] = "token_mlp"
    head_args: dict[str, Any] = {}
    weights: FileName | None = None
    stored: StoredEntry | None = None
    resample: Resample | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        self._check_own_keys()
        self._check_head_args()
        if self.kind == "classes":
            self._check_ids()
        return self

    def _check_own_keys(self) -> None:
        for kind, keys in KIND_KEYS.items():
            foreign = sorted(self.model_fields_set.intersection(keys)) if kind != self.kind else []
            if foreign:
                raise ValueError(
                    f"{foreign[0]}: a key of kind {kind}; expected those of kind {self.kind}, "
                    f"{', '.join(KIND_KEYS[self.kind])}"
                )

    def _check_head_args(self) -> None:
        if ":" in self.head:
            return
        for name, value in self.head_args.items():
            if not isinstance(value, int) or not 1 <= value <= _LARGEST_LAYER:
                raise ValueError(f"head_args.{name}: expected a whole number, 1 to {_LARGEST_LAYER}; found {value!r}")

    def _check_ids(self) -> None:
        if self.resample == "linear":
            raise ValueError("resample: expected nearest, as ids have no mean; found linear")
        if self.stored is None:
            return
        count, form = len(self.labels) or self.channels or 0, self.stored
        if form.dtype not in ("uint8", "uint16") or form.scale != 1 or count > np.iinfo(form.dtype).max:
            raise ValueError(f"stored: expected uint8 or uint16 that holds {count} ids, unscaled; found {form.dtype}")
        if form.fill < count:
            raise ValueError(f"stored.fill: expected a number that is no id, {count} or more; found {form.fill:g}")


class BundleEntry(_Strict):
    """All of `bundle.yaml`."""

    format: Literal[1]
    name: Text = ""
    backbone: BackboneEntry
    input: InputEntry
    base: TaskName
    archive: ArchiveEntry = ArchiveEntry()
    tasks: dict[TaskName, TaskEntry] = Field(min_length=1)
    evidence: dict[str, Any] = {}

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.base not in self.tasks:
            raise ValueError(f"base: expected one of the tasks, {', '.join(self.tasks)}; found {self.base!r}")
        for name, task in self.tasks.items():
            self._check_place(name, task)
        return self

    def head_weights(self, task: str) -> str:
        """Name of the file with a task's head."""
        return self.tasks[task].weights or f"{task}.safetensors"

    def weight_names(self, tasks: Sequence[str] | None = None) -> list[str]:
        """Names of the weight files that some tasks need, the backbone's first; None is all of them."""
        names = [self.backbone.weights]
        for task in self.tasks if tasks is None else tasks:
            names += [self.head_weights(task), self.tasks[task].delta or self.head_weights(task)]
        return list(dict.fromkeys(names))

    def _check_place(self, name: str, task: TaskEntry) -> None:
        if name == self.base:
            if task.split is not None or task.delta is not None:
                raise ValueError(f"tasks.{name}: the base has no split and no delta")
            return
        if task.split not in self.archive.blocks:
            raise ValueError(
                f"tasks.{name}.split: expected one of archive.blocks {list(self.archive.blocks)}; found {task.split}"
            )
        if min(task.taps) < task.split:
            raise ValueError(
                f"tasks.{name}.taps: a head reads only at or after its split, {task.split}; found {list(task.taps)}"
            )
