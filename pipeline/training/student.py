"""What a training step trains: a head and the blocks before it (all blocks, the last ones with deltas, or none).

Everything before a student's first own block belongs to the frozen base and may come from kept activations.

Shape letters: F images, N tokens, M tokens that a step uses, X channels times cells.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.func import functional_call

from deltascene.pipeline.bundles.bundle import Bundle
from deltascene.pipeline.bundles.networks import build_task_head
from deltascene.pipeline.bundles.scene_model import load_model
from deltascene.pipeline.bundles.weight_files import HEAD, load_part, weight_shapes
from deltascene.pipeline.errors import UsageError
from deltascene.pipeline.training.gates import Gates
from deltascene.pipeline.training.recipe import Recipe
from deltascene.stages.backbone import Backbone, Block
from deltascene.stages.delta import DeltaLinear, DeltaWeights, LowRank, difference, start_delta
from deltascene.stages.heads import HEADS, TokenHead
from deltascene.stages.sub_task import build_sub_task
from deltascene.stages.types import TokenGrid


@dataclass(frozen=True, slots=True, eq=False)
class Student:
    """A task in training.

    Attributes:
        bundle: the bundle of the task.
        task: name of the task.
        backbone: the base's backbone.
        first: number of blocks before its own.
        blocks: its own blocks, from `first` on.
        head: its head.
        embeds: whether the embedding is trained, too.
        gates: gates of its delta's tensors, or None.
        auxiliary: heads of other tasks that are trained with it.
    """

    bundle: Bundle
    task: str
    backbone: Backbone
    first: int
    blocks: tuple[Block, ...]
    head: TokenHead
    embeds: bool = False
    gates: Gates | None = None
    auxiliary: Mapping[str, TokenHead] = field(default_factory=dict)

    @property
    def taps(self) -> tuple[int, ...]:
        """Blocks whose activations the head reads."""
        return self.bundle.entry.tasks[self.task].taps

    @property
    def heads(self) -> dict[str, TokenHead]:
        """All heads in training, the task's own first."""
        return {self.task: self.head, **self.auxiliary}

    @property
    def points(self) -> tuple[int, ...]:
        """The numbers of blocks after which the base's activations are the input of `cells`."""
        earlier = [tap for tap in self.taps if tap < self.first]
        return tuple(sorted({*earlier, *([self.first] if self.blocks or self.first in self.taps else [])}))

    def parameters(self) -> dict[str, nn.Parameter]:
        """Trained parameters by name."""
        named = {f"head.{name}": parameter for name, parameter in self.head.named_parameters()}
        for task, head in self.auxiliary.items():
            named |= {f"head.{task}.{name}": parameter for name, parameter in head.named_parameters()}
        if self.embeds:
            named |= self.backbone.read_parameters()
        else:
            base = {id(parameter) for parameter in self.backbone.parameters()}
            for number, block in enumerate(self.blocks, start=self.first):
                named |= {
                    f"blocks.{number}.{name}": parameter
                    for name, parameter in block.named_parameters()
                    if id(parameter) not in base
                }
        if self.gates is not None:
            named["gates"] = self.gates.a_T
        return named

    def to(self, device: torch.device) -> "Student":
        """Moves everything to a device, in place."""
        self.backbone.to(device)
        for part in (
            *self.heads.values(),
            *self.blocks,
            *([] if self.gates is None else [self.gates]),
        ):
            part.to(device)
        return self

    def grid(self, size: tuple[int, int]) -> TokenGrid:
        """Token grid of an input."""
        return self.backbone.grid(size)

    def embed(self, input_FCHW: Tensor) -> dict[int, Tensor]:
        """Activations at `points` for pictures, [F, N, D] each; gradients flow only into a trained embedding."""
        positions = self.backbone.positions(self.grid((input_FCHW.shape[2], input_FCHW.shape[3])))
        with torch.set_grad_enabled(self.embeds and torch.is_grad_enabled()):
            x_FND = torch.stack([self.backbone.embed(image_CHW, positions) for image_CHW in input_FCHW])
            tapped = {0: x_FND}
            for number, block in enumerate(self.backbone.blocks[: max(self.points)], start=1):
                x_FND = tapped[number] = block(x_FND)
        return {point: tapped[point] for point in self.points}

    def cells(
        self,
        points: Mapping[int, Tensor],
        grid: TokenGrid,
        kept_FM: Tensor | None = None,
        gates: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Raw cells of the task's head [F, M, X]; arguments are those of `all_cells`."""
        return self.all_cells(points, grid, kept_FM, gates)[self.task]

    def all_cells(
        self,
        points: Mapping[int, Tensor],
        grid: TokenGrid,
        kept_FM: Tensor | None = None,
        gates: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Raw cells of every head [F, M, X], by task.

        Args:
            points: activations at `points`, [F, N, D] each.
            grid: token grid of the images.
            kept_FM: the patches of each image that are computed; None is all.
            gates: values of the gates; None is all open.
        """
        tapped = {point: _choose(x_FND, kept_FM, grid.prefix) for point, x_FND in points.items()}
        for number, block in enumerate(self.blocks, start=self.first):
            changed = {} if gates is None else self._gated(number, block, gates)
            x_FMD = tapped[number]
            tapped[number + 1] = functional_call(block, changed, (x_FMD,)) if changed else block(x_FMD)
        found = {}
        for task, head in self.heads.items():
            taps = self.bundle.entry.tasks[task].taps
            found[task] = head.cells(torch.stack([tapped[tap][:, grid.prefix :] for tap in taps], dim=2))
        return found

    def delta(self) -> DeltaWeights:
        """The current delta weights, multiplied by their gates; tensors with closed gates are left out."""
        found = difference(self.blocks, self.backbone.blocks, self.first)
        if self.gates is None:
            return found
        z = {name: value.item() for name, value in self.gates.final().items()}
        return DeltaWeights(
            {
                name: LowRank(delta.A, delta.B * z[name]) if isinstance(delta, LowRank) else delta * z[name]
                for name, delta in found.tensors.items()
                if z[name] > 0
            }
        )

    def _gated(self, number: int, block: Block, gates: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of a block whose deltas are multiplied by their gates."""
        changed, base = {}, dict(self.backbone.blocks[number].named_parameters())
        for name, module in block.named_modules():
            if isinstance(module, DeltaLinear):
                changed[f"{name}.B"] = module.B * gates[f"blocks.{number}.{name}.weight"]
        for name, value in block.named_parameters():
            if name in base and value is not base[name]:
                changed[name] = base[name] + gates[f"blocks.{number}.{name}"] * (value - base[name])
        return changed


def start_network(bundle: Bundle, task: str, recipe: Recipe) -> Student:
    """Student with the whole backbone and a head: the base, optionally with auxiliary heads, or a single-task network.

    Raises:
        UsageError: an auxiliary task isn't another task of the bundle.
    """
    others = [name for name in bundle.entry.tasks if name != task]
    for name in recipe.auxiliary:
        if name not in others:
            known = ", ".join(others) or "of which there are none"
            raise UsageError(f"auxiliary: expected other tasks, {known}; found {name!r}")
    backbone = load_model(bundle, ()).backbone
    backbone.requires_grad_(True)
    head, *auxiliary = (start_head(bundle, backbone, name, recipe) for name in (task, *recipe.auxiliary))
    heads = dict(zip(recipe.auxiliary, auxiliary, strict=True))
    return _ready(Student(bundle, task, backbone, 0, tuple(backbone.blocks), head, embeds=True, auxiliary=heads))


def start_frozen(bundle: Bundle, task: str, recipe: Recipe) -> Student:
    """Student with a head on the frozen base."""
    backbone = load_model(bundle, ()).backbone
    backbone.requires_grad_(False)
    last = max(bundle.entry.tasks[task].taps)
    return _ready(Student(bundle, task, backbone, last, (), start_head(bundle, backbone, task, recipe)))


def start_subtask(bundle: Bundle, task: str, recipe: Recipe) -> Student:
    """Student with deltas of zero from the task's split on, and a head.

    Raises:
        UsageError: the task is the base.
    """
    split = bundle.entry.tasks[task].split
    if split is None:
        known = ", ".join(name for name, entry in bundle.entry.tasks.items() if entry.split is not None)
        raise UsageError(
            f"--task: expected a sub-task of {bundle.name}, {known or 'which has none'}; found its base {task!r}"
        )
    backbone = load_model(bundle, ()).backbone
    backbone.requires_grad_(False)
    delta = start_delta(backbone.blocks, split, recipe.rank, torch.Generator().manual_seed(recipe.seed))
    blocks = build_sub_task(backbone, split, delta, merged=False).blocks
    gates = Gates(list(delta.tensors)) if recipe.gate_penalty > 0 else None
    head = start_head(bundle, backbone, task, recipe)
    return _ready(Student(bundle, task, backbone, split, blocks, head, gates=gates))


def open_blocks(delta: DeltaWeights) -> Sequence[int]:
    """Blocks that a delta changes."""
    return sorted({int(name.split(".")[1]) for name in delta.tensors})


def start_head(bundle: Bundle, backbone: Backbone, task: str, recipe: Recipe) -> TokenHead:
    """A task's head with the bundle's weights, for example of an auxiliary head of the base.

    It is a new head where the bundle's weights don't fit its description, or were trained together with a delta.

    Raises:
        UsageError: the head is a class of the user's own.
    """
    head, path = new_head(bundle, backbone, task, recipe), bundle.head_file(task)
    shapes = {f"{HEAD}{name}": tuple(tensor.shape) for name, tensor in head.state_dict().items()}
    if bundle.entry.tasks[task].delta is None and path.is_file() and weight_shapes(path) == shapes:
        load_part(head, path, HEAD)
    return head


def new_head(bundle: Bundle, backbone: Backbone, task: str, recipe: Recipe) -> TokenHead:
    """A task's untrained head, always the same for the same seed.

    Raises:
        UsageError: the head is a class of the user's own.
    """
    named = bundle.entry.tasks[task].head
    if ":" in named:
        raise UsageError(
            f"tasks.{task}.head: expected one of {', '.join(HEADS)}, as others aren't trained; found {named}"
        )
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        return build_task_head(bundle, backbone, task).requires_grad_(True)


def _ready(student: Student) -> Student:
    for parameter in student.parameters().values():
        parameter.requires_grad_(True)
    return student


def _choose(x_FND: Tensor, kept_FM: Tensor | None, prefix: int) -> Tensor:
    if kept_FM is None:
        return x_FND
    front_FP = torch.arange(prefix, device=x_FND.device).expand(len(x_FND), -1)
    rows_FM = torch.cat([front_FP, kept_FM + prefix], dim=1)
    return torch.gather(x_FND, 1, rows_FM[..., None].expand(-1, -1, x_FND.shape[2]))
