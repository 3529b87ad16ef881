"""Materials of a body as flat tables, and their colour at many points at once."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deltascene.pipeline.training.rooms.soup import Material, Soup, spread

LEVELS = 6
GAMMA = 2.2


@dataclass(frozen=True)
class Palette:
    """M materials with their textures at L sizes, each half the one before.

    Attributes:
        rgb_M3: colour of each material, linear 0..1.
        glow_M: emitted light of each, as a multiple of its colour.
        textured_M: whether it has a texture.
        texels_P3: all textures at all sizes one after the other, sRGB bytes.
        start_ML: first texel of each material's texture at each size.
        size_ML2: height and width of it.
        linear_256: linear value of each sRGB byte.
    """

    rgb_M3: NDArray[np.float32]
    glow_M: NDArray[np.float32]
    textured_M: NDArray[np.bool_]
    texels_P3: NDArray[np.uint8]
    start_ML: NDArray[np.int64]
    size_ML2: NDArray[np.int64]
    linear_256: NDArray[np.float32]


def make_palette(materials: tuple[Material, ...]) -> Palette:
    """Tables of a body's materials; a texture that several share is stored once."""
    count = len(materials)
    start_ML = np.zeros((count, LEVELS), dtype=np.int64)
    size_ML2 = np.ones((count, LEVELS, 2), dtype=np.int64)
    chunks: list[NDArray[np.uint8]] = [np.full((1, 3), 255, dtype=np.uint8)]
    known: dict[int, int] = {}
    used = 1
    for row, material in enumerate(materials):
        if material.texture is None:
            continue
        twin = known.setdefault(id(material.texture), row)
        if twin != row:
            start_ML[row], size_ML2[row] = start_ML[twin], size_ML2[twin]
            continue
        for level, image in enumerate(_pyramid(material.texture)):
            start_ML[row, level], size_ML2[row, level] = used, image.shape[:2]
            chunks.append(image.reshape(-1, 3))
            used += image.shape[0] * image.shape[1]
    return Palette(
        rgb_M3=np.array([m.rgb for m in materials], dtype=np.float32) ** np.float32(GAMMA),
        glow_M=np.array([m.glow for m in materials], dtype=np.float32),
        textured_M=np.array([m.texture is not None for m in materials]),
        texels_P3=np.concatenate(chunks),
        start_ML=start_ML,
        size_ML2=size_ML2,
        linear_256=((np.arange(256) / 255) ** GAMMA).astype(np.float32),
    )


def _pyramid(image: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    levels = [np.ascontiguousarray(image)]
    while len(levels) < LEVELS:
        last = levels[-1]
        height, width = last.shape[0] // 2, last.shape[1] // 2
        if min(height, width) < 1:
            levels.append(last)
            continue
        even = last[: height * 2, : width * 2].astype(np.float32)
        columns = even[:, 0::2] + even[:, 1::2]
        levels.append(np.round((columns[0::2] + columns[1::2]) / 4).astype(np.uint8))
    return levels


def texture_density(soup: Soup) -> NDArray[np.float32]:
    """Texture repeats per metre on each triangle [F], the root of the ratio of areas."""
    uv_a, uv_b = soup.uvs_F32[:, 1] - soup.uvs_F32[:, 0], soup.uvs_F32[:, 2] - soup.uvs_F32[:, 0]
    uv_area = np.abs(uv_a[:, 0] * uv_b[:, 1] - uv_a[:, 1] * uv_b[:, 0])
    across_F3 = spread(soup.corners_F33)
    area = np.sqrt(np.einsum("ij,ij->i", across_F3, across_F3))
    return np.asarray(np.sqrt(uv_area / np.maximum(area, 1e-12)), dtype=np.float32)


def albedo(
    palette: Palette, material_R: NDArray[np.int32], uv_R2: NDArray[np.float32], repeats_R: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Linear colour at R points [R, 3].

    Args:
        palette: the body's materials.
        material_R: material of each point.
        uv_R2: texture coordinate of each point.
        repeats_R: number of texture repeats that one sample covers; selects the texture size that is read.
    """
    out_R3 = palette.rgb_M3[material_R]
    rows = np.flatnonzero(palette.textured_M[material_R])
    if len(rows) == 0:
        return out_R3
    material_K, uv_K2 = material_R[rows], uv_R2[rows]
    side_K = np.sqrt(palette.size_ML2[material_K, 0].prod(axis=1))
    level_K = np.clip(np.log2(np.maximum(repeats_R[rows] * side_K, 1e-6)) + 0.5, 0, LEVELS - 1).astype(np.int64)
    size_K2 = palette.size_ML2[material_K, level_K]
    x_K = ((uv_K2[:, 0] % 1.0) * size_K2[:, 1]).astype(np.int64) % size_K2[:, 1]
    y_K = ((uv_K2[:, 1] % 1.0) * size_K2[:, 0]).astype(np.int64) % size_K2[:, 0]
    texel_K = palette.start_ML[material_K, level_K] + y_K * size_K2[:, 1] + x_K
    out_R3[rows] *= palette.linear_256[palette.texels_P3[texel_K]]
    return out_R3
