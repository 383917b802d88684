"""Makes camera-like frames from photographs: 16:9 windows in different light, and people in front
of different backgrounds.
"""

import cv2
import numpy as np
import onnxruntime

WIDTH, HEIGHT = 384, 216
SEED = 1
# Number of windows per photograph, and of frames per person in front of backgrounds.
WINDOWS = 8
WINDOWS_OF_PEOPLE = 36
# Share of backgrounds that are out of focus, as with a camera at a desk.
OUT_OF_FOCUS = 0.5


def frames(photographs, segmenter):
    """Returns the frames as uint8 [n,216,384,3], RGB. `photographs` are pairs of a picture and
    whether it shows a person.
    """
    random = np.random.default_rng(SEED)
    pictures = [bounded(picture) for picture, _ in photographs]
    places = [picture for picture, (_, person) in zip(pictures, photographs, strict=True) if not person]
    people = [with_mask(picture, segmenter) for picture, (_, person) in zip(pictures, photographs, strict=True) if person]
    made = []
    for picture in pictures:
        made += [window(random, picture, as_it_is=number == 0) for number in range(WINDOWS)]
    for person in people:
        made += [composite(random, person, places[int(random.integers(len(places)))]) for _ in range(WINDOWS_OF_PEOPLE)]
    return np.stack(made)


def bounded(picture, most=2000):
    scale = min(1, most / max(picture.shape[:2]))
    return cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else picture


def window(random, picture, as_it_is=False):
    """Returns the largest 16:9 window, or a smaller one in different light."""
    height, width = picture.shape[:2]
    most = min(width, height * 16 / 9)
    wide = most if as_it_is else most * random.uniform(min(1, max(0.35, 220 / most)), 1)
    high = wide * 9 / 16
    x, y = int(random.uniform(0, width - wide)), int(random.uniform(0, height - high))
    cut = picture[y : y + max(1, int(high)), x : x + max(1, int(wide))]
    frame = cv2.resize(cut, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA if wide > WIDTH else cv2.INTER_CUBIC)
    # Mirrors before the teacher paints, not after, because its strokes have a direction.
    if random.random() < 0.5:
        frame = frame[:, ::-1]
    return np.ascontiguousarray(frame) if as_it_is else lit(random, frame)


def lit(random, frame):
    x = (frame.astype(np.float32) / 255) ** random.uniform(0.75, 1.35)
    x = x * random.uniform(0.65, 1.1) * random.uniform(0.9, 1.1, 3) + random.uniform(-0.02, 0.08)
    return (np.clip(x, 0, 1) * 255 + 0.5).astype(np.uint8)


def with_mask(picture, segmenter):
    """Returns the picture and the person's share of each pixel, from the model of
    `background_blur`.
    """
    session = onnxruntime.InferenceSession(segmenter, providers=["CPUExecutionProvider"])
    height, width = picture.shape[:2]
    # The model needs a wide frame: the photograph is in the middle, with its edges replicated on
    # both sides.
    beside = max(0, (height * 16 // 9 - width) // 2)
    wide = cv2.copyMakeBorder(picture, 0, 0, beside, beside, cv2.BORDER_REPLICATE)
    small = cv2.resize(wide, (256, 144), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    (mask,) = session.run(None, {"input": small.transpose(2, 0, 1)[None]})
    mask = cv2.resize(mask[0, 0], (wide.shape[1], height))[:, beside : beside + width]
    return picture, np.clip((mask - 0.3) / 0.5, 0, 1)[..., None]


def composite(random, person, place):
    """Returns a person as at a desk: head and shoulders, near or far, left or right of the middle.
    """
    picture, mask = person
    background = window(random, place)
    if random.random() < OUT_OF_FOCUS:
        background = cv2.GaussianBlur(background, (0, 0), random.uniform(2, 9))
    # Width of the photograph in the frame, in pixels.
    wide = WIDTH * random.uniform(0.5, 1.5)
    scale = wide / picture.shape[1]
    size = (int(wide), int(picture.shape[0] * scale))
    picture = lit(random, cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC))
    mask = cv2.resize(mask, size, interpolation=cv2.INTER_AREA)[..., None]
    x = int((WIDTH - wide) * random.uniform(0.2, 0.8))
    # Shows the person from the top of the head, or closer.
    y = int(-0.35 * max(0, size[1] - HEIGHT) * random.random()) if size[1] >= HEIGHT else HEIGHT - size[1]
    frame = background.astype(np.float32)
    left, right, top, bottom = max(0, x), min(WIDTH, x + size[0]), max(0, y), min(HEIGHT, y + size[1])
    part, share = picture[top - y : bottom - y, left - x : right - x], mask[top - y : bottom - y, left - x : right - x]
    frame[top:bottom, left:right] = share * part + (1 - share) * frame[top:bottom, left:right]
    frame = (frame + 0.5).astype(np.uint8)
    return np.ascontiguousarray(frame[:, ::-1]) if random.random() < 0.5 else frame
