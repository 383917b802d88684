"""Measures a student and its teacher on pictures that were not used for training. This shows
whether a training succeeded; the authoritative table is that of the program (`make styles`),
which runs the program's own code.
"""

import time

import cv2
import numpy as np
import onnxruntime

# Replicated pixels on each side of a frame, as the program pads the input of a network
# (`SMALL_BORDER` of the effect).
BORDER = 24
SIZES = ((384, 216), (640, 360), (1280, 720))
# Standard deviation of the noise of a camera in an ordinary room, of 255 levels.
NOISE = 3.0
# Displacements in pixels of a swaying picture, for each frame.
SWAY = [(round(4 * np.sin(n / 3)), round(2 * np.sin(n / 2))) for n in range(16)]


class Painter:
    """A network of a single style; pads frames with a border that is cropped again."""

    def __init__(self, model, border=BORDER):
        self.border = border
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def paint(self, frame):
        """Returns the painting of a frame [h,w,3], 0..=255, in the same format."""
        height, width, border = *frame.shape[:2], self.border
        given = cv2.copyMakeBorder(frame, border, border, border, border, cv2.BORDER_REPLICATE)
        (painted,) = self.session.run(None, {"image": (given.astype(np.float32) / 255).transpose(2, 0, 1)[None]})
        inner = painted[0, :, border : border + height, border : border + width]
        return np.ascontiguousarray((np.clip(inner.transpose(1, 2, 0), 0, 1) * 255 + 0.5).astype(np.uint8))


def figures(model, teacher, pictures):
    """Returns the measurements by name: of the student, and also of the teacher where it applies.
    """
    student, bare = Painter(model), Painter(model, border=0)
    painted, taught = [student.paint(picture) for picture in pictures], [teacher.paint(picture) for picture in pictures]
    measured = {"bytes": model.stat().st_size}
    for size in SIZES:
        measured[f"ms {size[0]}x{size[1]}"] = milliseconds(bare, size)
    measured["flicker"] = [change(painter, pictures[0], SWAY) for painter in (student, teacher)]
    measured["noise gain"] = [change(painter, pictures[0], [(0, 0)] * 8) for painter in (student, teacher)]
    measured["spread"] = [deviation(painted), deviation(taught)]
    measured["ripple"] = [ripple(painted), ripple(taught)]
    return measured


def milliseconds(painter, size, rounds=9):
    frame = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        painter.paint(frame)
        times.append(time.perf_counter() - start)
    return float(np.median(times)) * 1000


def change(painter, picture, places):
    """Returns the change of the painting from frame to frame relative to that of the picture, which
    sways and has camera noise.
    """
    random, sums, last = np.random.default_rng(1), np.zeros(2), None
    for dx, dy in places:
        frame = np.roll(picture, (dy, dx), (0, 1)) + random.normal(0, NOISE, picture.shape)
        frame = np.clip(frame + 0.5, 0, 255).astype(np.uint8)
        pair = [frame.astype(np.int16), painter.paint(frame).astype(np.int16)]
        if last is not None:
            sums += [np.abs(new - old).mean() for new, old in zip(pair, last, strict=True)]
        last = pair
    return float(sums[1] / sums[0])


def deviation(pictures):
    return float(np.mean([picture.reshape(-1, 3).std(0).mean() for picture in pictures]))


def ripple(pictures):
    """Returns the pattern that cells of 4x4 pixels have in common within a picture, in levels."""
    fine = [np.stack([np.diff(picture.astype(np.float64)[..., 1], 2, axis)[:200, :368] for axis in (0, 1)]) for picture in pictures]
    return float(np.mean([np.abs(part.reshape(2, 50, 4, 92, 4).mean((1, 3))).mean() for part in fine]))
