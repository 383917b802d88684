"""Loss terms of the training. A student that only minimises the distance to the teacher's pixels
paints the mean of all possible strokes, which is flat and grey. So most terms ask for strokes of
the right kind and strength, and leave their exact positions open.
"""

import cv2
import numpy as np
import torch
from torch.nn import functional as F

from network import REACH

WEIGHTS = {
    "pixel": 0.6,
    "lowpass": 1.5,
    "gradient": 0.35,
    "energy": 1.0,
    "texture": 0.4,
    "spread": 1.5,
    "ripple": 8.0,
    "agreement": 1.6,
}


def losses(painted, target, seen, shifts, filters):
    """Returns the loss terms of a batch whose second half shows the first half, shifted by
    `shifts`. `seen` is 1 for pixels with enough context for the student.
    """
    every = (..., slice(REACH, -REACH), slice(REACH, -REACH))
    # The two views show nearly the same, so the expensive terms use only the first one.
    inner = (slice(0, len(shifts)), slice(None), *every[1:])
    apart = painted - target
    return {
        "pixel": (((apart**2 + 1e-4).sqrt() * seen).mean() / seen.mean()),
        "lowpass": sum(F.avg_pool2d(apart * seen, side).abs().mean() for side in (4, 16)),
        "gradient": gradient(apart, seen),
        "energy": energy(painted, target, seen),
        "texture": texture(painted[inner], target[inner], filters),
        "spread": spread(painted[every], target[every]),
        "ripple": ripple(painted[inner], target[inner]),
        "agreement": agreement(painted, seen, shifts),
    }


def gradient(apart, seen):
    """Compares differences of neighbouring pixels that were both seen, so that the edge of the seen
    area has no influence.
    """
    down = apart.diff(dim=2).abs() * seen[:, :, 1:] * seen[:, :, :-1]
    across = apart.diff(dim=3).abs() * seen[..., 1:] * seen[..., :-1]
    return down.mean() + across.mean()


def energy(painted, target, seen):
    """Compares the local strength of strokes of each size, except the finest, where the teacher
    paints a pattern of 4 px.
    """

    def bands(x):
        share = seen
        for window in (16, 8, 8):
            small = F.avg_pool2d(x, 2)
            band = x - F.interpolate(small, scale_factor=2)
            yield (F.avg_pool2d(band * band * share, window, window // 2) + 5e-4).sqrt()
            x, share = small, F.avg_pool2d(share, 2)

    return sum((a - b).abs().mean() for a, b in list(zip(bands(painted), bands(target), strict=True))[1:])


def texture(painted, target, filters):
    """Compares which patches occur and which occur together, averaged over small windows."""
    total = 0
    for scale, bank in enumerate(filters):
        painted, target = F.avg_pool2d(painted, 2), F.avg_pool2d(target, 2)
        both = torch.cat([painted, target]).contiguous(memory_format=torch.channels_last)
        with torch.autocast(both.device.type, dtype=torch.bfloat16):
            answer = F.relu(F.conv2d(both, bank) - 0.3)
        answer = answer.float()
        window = (12, 8, 6)[scale]
        a, b = F.avg_pool2d(answer, window, window // 2).chunk(2)
        total = total + (a - b).abs().mean() / b.abs().mean()
        flat = answer.flatten(2)
        a, b = (flat @ flat.transpose(1, 2) / flat.shape[2]).chunk(2)
        total = total + (a - b).abs().mean() / b.abs().mean()
    return total / (2 * len(filters))


def texture_filters(pictures, count=32, side=7):
    """Returns decorrelated patches of the teacher's pictures at a half, a quarter and an eighth of
    their size: common structures give weak responses.
    """
    random, banks = np.random.default_rng(3), []
    for scale in (2, 4, 8):
        patches = []
        for picture in pictures[::4]:
            height, width = picture.shape[0] // scale, picture.shape[1] // scale
            small = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
            for _ in range(40):
                y, x = int(random.integers(0, height - side + 1)), int(random.integers(0, width - side + 1))
                patches.append(small[y : y + side, x : x + side].transpose(2, 0, 1).ravel())
        patches = np.array(patches)
        patches -= patches.mean(0)
        axes, variances, _ = np.linalg.svd(patches.T @ patches / len(patches))
        whiten = axes / np.sqrt(variances + 0.002 * variances[0]) @ axes.T
        bank = patches[random.permutation(len(patches))[:count]] @ whiten @ whiten
        bank -= bank.reshape(count, 3, -1).mean(2).repeat(side * side, 1)
        bank /= np.abs(patches[:2000] @ bank.T).mean(0)[:, None]
        banks.append(torch.from_numpy(bank.reshape(count, 3, side, side).astype(np.float32)))
    return banks


def spread(painted, target):
    """Compares mean and contrast of each channel."""
    means = painted.mean((2, 3)) - target.mean((2, 3))
    deviations = painted.std((2, 3)) - target.std((2, 3))
    return means.abs().mean() + deviations.abs().mean()


def ripple(painted, target):
    """Penalises patterns that repeat every 4 px. The student paints cells of 4x4 pixels: structure
    at the same position in all neighbouring cells is not a stroke.
    """

    def repeating(x):
        fine = x - F.avg_pool2d(x, 5, 1, 2, count_include_pad=False)
        number, channels, height, width = fine.shape
        cells = fine.reshape(number, channels, height // 4, 4, width // 4, 4).permute(0, 1, 3, 5, 2, 4).flatten(1, 3)
        return F.avg_pool2d(cells, 5, 2)

    smooth = F.avg_pool2d(F.avg_pool2d(target, 2, 1), 2, 1, 1)
    return (repeating(painted) - repeating(smooth)).abs().mean()


def agreement(painted, seen, shifts):
    """Requires the same painting for two views of one scene that are shifted and disturbed
    differently.
    """
    first, second = painted.chunk(2)
    sure, also_sure = seen.chunk(2)
    size, total = painted.shape[-1], 0
    for index, (dy, dx) in enumerate(shifts):
        a = (index, slice(None), slice(max(dy, 0), size + min(dy, 0)), slice(max(dx, 0), size + min(dx, 0)))
        b = (index, slice(None), slice(max(-dy, 0), size + min(-dy, 0)), slice(max(-dx, 0), size + min(-dx, 0)))
        total = total + ((first[a] - second[b]).abs() * sure[a] * also_sure[b]).mean()
    return total / len(shifts)
