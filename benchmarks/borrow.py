"""Benefit of ECS's reuse between tasks, row by row: `python benchmarks/borrow.py`.

Where a row's input of a layer is close to the base's (within tau, relative to its norm), a sub-task could reuse the
base's product: y = W_0 x_0 + dW x instead of (W_0 + dW) x. Prints how many products would be reused, the share of the
sub-task's own MACs that this saves, and its error, on every tenth frame of the packaged clip, computed densely.
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from deltascene.pipeline.bundles.bundle import read_bundle
from deltascene.pipeline.bundles.scene_model import SceneModel, load_model
from deltascene.pipeline.config import load_config
from deltascene.pipeline.engine.step import grid_of
from deltascene.pipeline.evaluation.clip_scores import MOVING, WHOLE, Numbers, error_of, score_frame
from deltascene.pipeline.evaluation.clips import open_clip
from deltascene.pipeline.sources.find import find_sources
from deltascene.pipeline.sources.reader import read_frames
from deltascene.stages.delta import DeltaLinear
from deltascene.stages.heads import activate, assemble, lay_out, stack_taps
from deltascene.stages.preprocess import normalise, resize_frame
from deltascene.stages.rows import run_blocks

CLIP = Path(__file__).resolve().parent.parent / "configs" / "demo" / "room.mp4"
TAUS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4)
SITES = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")


class Lender:
    """Inputs and products of the base's layers in the current frame, by layer, and counts of their reuse."""

    def __init__(self, tau: float) -> None:
        self.tau, self.kept = tau, dict[str, tuple[Tensor, Tensor]]()
        self.borrowed_macs = self.macs = self.borrowed = self.rows = 0

    def keep(self, place: str, layer: nn.Linear) -> object:
        """Hooks a layer of the base, to keep its input and product."""
        return layer.register_forward_hook(
            lambda _, inputs, __: self.kept.update({place: (inputs[0], functional.linear(inputs[0], layer.weight))})
        )

    def lend(self, place: str, layer: DeltaLinear) -> object:
        """Hooks a layer of a sub-task, to reuse the base's product where inputs are close."""

        def borrow(_: nn.Module, inputs: tuple[Tensor, ...], own_RO: Tensor) -> Tensor:
            x_RI, (base_RI, product_RO) = inputs[0], self.kept[place]
            near_R = (x_RI - base_RI).norm(dim=-1) <= self.tau * base_RI.norm(dim=-1)
            size = layer.in_features * layer.out_features
            self.borrowed, self.rows = self.borrowed + int(near_R.sum()), self.rows + len(near_R)
            self.borrowed_macs += int(near_R.sum()) * size
            self.macs += len(near_R) * layer.macs_per_row()
            narrow_Rr = functional.linear(x_RI, layer.A)
            lent_RO = product_RO + layer.bias + functional.linear(narrow_Rr, layer.B)
            return torch.where(near_R[:, None], lent_RO, own_RO)

        return layer.register_forward_hook(borrow)


@contextmanager
def lending(model: SceneModel, task: str, tau: float) -> Iterator[Lender]:
    """Within this context a sub-task reuses the base's products."""
    lender, sub, hooks = Lender(tau), model.sub_tasks[task], []
    for number, block in enumerate(sub.blocks, start=sub.split):
        for site in SITES:
            layer, place = block.get_submodule(site), f"{number}.{site}"
            if isinstance(layer, DeltaLinear):
                hooks += [lender.keep(place, model.backbone.blocks[number].get_submodule(site))]
                hooks += [lender.lend(place, layer)]
    try:
        yield lender
    finally:
        for hook in hooks:
            hook.remove()  # type: ignore[attr-defined]


@torch.inference_mode()
def measure(model: SceneModel, task: str, tau: float, every: int) -> tuple[Lender, dict[str, Numbers]]:
    """Runs a sub-task over the clip; returns counts of reuse and sums of errors by region."""
    bundle, kind, head = model.bundle, model.bundle.kinds[task], model.heads[task]
    clip, sums, sub = open_clip(CLIP, bundle.kinds), dict[str, Numbers](), model.sub_tasks[task]
    taps = bundle.entry.tasks[task].taps
    with read_frames(find_sources([str(CLIP)])[0]) as reader, lending(model, task, tau) as lender:
        for number, frame in enumerate(reader):
            if number % every:
                continue
            assert frame.image is not None
            plan, grid = grid_of(model, load_config(), frame.image.shape[:2])
            image = normalise(resize_frame(frame.image, plan), bundle.entry.input.mean, bundle.entry.input.std)
            x_ND = model.backbone.embed(image, model.backbone.positions(grid))
            base = run_blocks(model.backbone.blocks, x_ND, {sub.split, max(taps)})
            own = run_blocks(sub.blocks, base[sub.split], set(taps), first=sub.split)
            cells = head.cells(stack_taps(own, taps, grid.prefix))
            value = lay_out(activate(assemble(cells, grid, kind.channels, head.side), kind.activation).numpy(), grid)
            truth = {task: clip.natural(bundle.kinds, number)[task]}
            for name, found in score_frame(bundle.kinds, truth, {task: value}, clip.moving[number], 0).items():
                sums[name] = sums[name] + found if name in sums else found
    return lender, sums


def main() -> None:
    """Prints a row for each task and tau."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=10, help="every so many frames of the clip")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    bundle = read_bundle("rooms")
    print("| task | tau | rows borrowed % | of the task's own MACs % | error, whole | moving | more, whole % |")
    print("|---|---|---|---|---|---|---|")
    for task, entry in bundle.entry.tasks.items():
        if entry.delta is None:
            continue
        model, plain = load_model(bundle, [task], merged=False), 0.0
        for tau in TAUS:
            lender, sums = measure(model, task, tau, options.every)
            whole, moving = (float(error_of(sums[f"{task}/{region}"])) for region in (WHOLE, MOVING))
            plain = plain or whole
            shares = f"{100 * lender.borrowed / lender.rows:.1f} | {100 * lender.borrowed_macs / lender.macs:.1f}"
            errors = f"{whole:.4f} | {moving:.4f} | {100 * (whole / plain - 1):+.1f}"
            print(f"| {task} | {tau:g} | {shares} | {errors} |", flush=True)


if __name__ == "__main__":
    main()
