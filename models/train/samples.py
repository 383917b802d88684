"""Training samples: pairs of views of one frame, each disturbed like the picture of a camera and a
codec, with the teacher's painting of the clean frame for both. The batch of a step does not
depend on earlier steps, so an interrupted training continues as if it had not been interrupted.
"""

import queue
import threading

import cv2
import numpy as np
import torch

from network import DEVIATION, LEAST_VARIANCE, REACH

CROP = 160
PAIRS = 4
MOST_SHIFT = 6
NOISE_BANK = 4_000_000


class Samples:
    """Batches of (views, paintings, seen, shifts), beginning with step `first`."""

    def __init__(self, frames, paintings, seed, first):
        self.frames, self.paintings, self.seed = frames, paintings, seed
        sample = frames[:, 2::4, 2::4].astype(np.float32) / 255
        self.means = sample.mean((1, 2))
        variances = ((sample - self.means[:, None, None]) ** 2).mean((1, 2, 3))
        self.deviations = np.sqrt(variances + LEAST_VARIANCE)
        self.bank = np.random.default_rng(seed).standard_normal(NOISE_BANK).astype(np.float32)
        self.ready = queue.Queue(6)
        threading.Thread(target=self.fill, args=(first,), daemon=True).start()

    def next(self):
        return self.ready.get()

    def fill(self, step):
        while True:
            self.ready.put(self.batch(np.random.default_rng([self.seed, step])))
            step += 1

    def batch(self, random):
        pairs = [self.pair(random) for _ in range(PAIRS)]
        columns = [[views[half][kind] for half in (0, 1) for views, _ in pairs] for kind in range(3)]
        tensors = [torch.from_numpy(np.stack(column).transpose(0, 3, 1, 2).copy()) for column in columns]
        return *tensors, [shift for _, shift in pairs]

    def pair(self, random):
        index = int(random.integers(len(self.frames)))
        height, width = self.frames.shape[1:3]

        def within(value, side):
            return int(np.clip(value, 0, side - CROP))

        # The frames' own edges are drawn more often than at random, because the student must learn
        # them.
        y, x = within(random.integers(-16, height - CROP + 17), height), within(random.integers(-40, width - CROP + 41), width)
        dy, dx = random.integers(-MOST_SHIFT, MOST_SHIFT + 1, 2) if random.random() < 0.7 else (0, 0)
        other_y, other_x = within(y + dy, height), within(x + dx, width)
        views = [self.view(random, index, top, left) for top, left in ((y, x), (other_y, other_x))]
        return views, (other_y - y, other_x - x)

    def view(self, random, index, top, left):
        height, width = self.frames.shape[1:3]
        place = (index, slice(top, top + CROP), slice(left, left + CROP))
        seen = np.zeros((CROP, CROP, 1), np.float32)
        bottom, right = CROP - REACH * (top + CROP < height), CROP - REACH * (left + CROP < width)
        seen[REACH * (top > 0) : bottom, REACH * (left > 0) : right] = 1
        painting = self.paintings[place].astype(np.float32) / 255
        return self.disturbed(random, self.frames[place].astype(np.float32) / 255, index), painting, seen

    def disturbed(self, random, x, index):
        gain, offset = np.float32(random.uniform(0.9, 1.1)), np.float32(random.uniform(-0.03, 0.03))
        x = x * gain + offset
        if random.random() < 0.8:
            x = x + self.noise(random, CROP) * np.float32(random.uniform(0, 0.03))
        if random.random() < 0.5:
            x = x + cv2.resize(self.noise(random, CROP // 4) * np.float32(random.uniform(0, 0.025)), (CROP, CROP))
        if random.random() < 0.4:
            picture = (np.clip(x, 0, 1) * 255).astype(np.uint8)
            _, code = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, int(random.integers(40, 92))])
            x = cv2.imdecode(code, cv2.IMREAD_COLOR).astype(np.float32) / 255
        # The mean and deviation of a frame drift from one frame of a clip to the next.
        means = self.means[index] * gain + offset + random.normal(0, 0.008, 3)
        deviation = self.deviations[index] * gain * random.uniform(0.96, 1.04)
        return ((np.clip(x, 0, 1) - means) * (DEVIATION / deviation)).astype(np.float32)

    def noise(self, random, side):
        count = side * side * 3
        start = int(random.integers(0, NOISE_BANK - count))
        return self.bank[start : start + count].reshape(side, side, 3)
