from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from deltascene.stages.backbone import Backbone
from deltascene.stages.rows import StreamRows, key_shapes, run_blocks
from deltascene.stages.scene_cache import allocate_cache


@pytest.fixture(scope="module", autouse=True)
def always_one_thread(one_thread: None) -> None:
    """All of these run small products."""


@pytest.fixture(scope="session")
def randomise() -> Callable[[nn.Module, int], None]:
    """Moves every parameter away from its trivial start, so that leaving out a term shows."""

    def draw(module: nn.Module, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                if parameter.ndim >= 2 and name.endswith("weight"):
                    parameter.copy_(noise * parameter[0].numel() ** -0.5)
                elif name.endswith(("weight", "gamma")):
                    parameter.copy_(1 + 0.3 * noise)
                else:
                    parameter.copy_(0.3 * noise)

    return draw


@pytest.fixture(scope="session")
def our_features() -> Callable[..., Tensor]:
    """timm's `forward_features` for one image, through this package's own code; by rows, into a cache, or plainly."""

    def run(backbone: Backbone, image_CHW: Tensor, *, by_rows: bool = False) -> Tensor:
        grid = backbone.grid((image_CHW.shape[1], image_CHW.shape[2]))
        x_ND = backbone.embed(image_CHW, backbone.positions(grid))
        cache = allocate_cache(key_shapes(backbone.blocks), grid.tokens, backbone.width, ()) if by_rows else None
        stream_rows = [StreamRows(grid.tokens, torch.arange(grid.tokens), cache)] if by_rows else None
        return backbone.final_norm(
            run_blocks(backbone.blocks, x_ND, [backbone.depth], stream_rows=stream_rows)[backbone.depth]
        )

    return run
