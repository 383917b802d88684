"""Trains one style, from a random start or from another style's student. An interrupted training
continues from its checkpoint.
"""

import math
import time

import torch

from losses import WEIGHTS, losses, texture_filters
from network import Student
from samples import Samples

RATE = 2.5e-3
LEAST_RATE = 1e-5
SEED = 0
SAVE_EVERY = 200


def train(frames, paintings, checkpoint, steps, start=None, agreement=None, log=print):
    """Returns the averaged weights after `steps` steps. `checkpoint` is the file for intermediate
    results; `start` are the initial weights; `agreement` is the weight of the agreement term if
    it differs from the default.
    """
    torch.manual_seed(SEED)
    steadiness = agreement or WEIGHTS["agreement"]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    student = Student()
    if start is not None:
        student.load_state_dict(start)
    student = student.to(device, memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(student.parameters(), RATE, betas=(0.9, 0.99), weight_decay=1e-4)
    average, step = {name: value.clone() for name, value in student.state_dict().items()}, 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location=device)
        student.load_state_dict(saved["student"])
        optimiser.load_state_dict(saved["optimiser"])
        average, step = saved["average"], saved["step"]
    filters = [bank.to(device).contiguous(memory_format=torch.channels_last) for bank in texture_filters(paintings)]
    samples, began, first = Samples(frames, paintings, SEED, step), time.monotonic(), step
    while step < steps:
        progress = step / steps
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * progress)) + LEAST_RATE
        views, targets, seen, shifts = samples.next()
        views, targets, seen = (tensor.to(device) for tensor in (views, targets, seen))
        with torch.autocast(device, dtype=torch.bfloat16):
            painted = student(views.contiguous(memory_format=torch.channels_last))
        parts = losses(painted.contiguous(), targets, seen, shifts, filters)
        # The agreement term is phased in, because it is useful only once there are strokes.
        weights = WEIGHTS | {"agreement": steadiness * min(1, 3 * progress)}
        optimiser.zero_grad(set_to_none=True)
        sum(weights[name] * part for name, part in parts.items()).backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimiser.step()
        step += 1
        keep = min(0.995, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, value in student.state_dict().items():
                average[name].mul_(keep).add_(value, alpha=1 - keep)
        if step % 100 == 0:
            pace = (time.monotonic() - began) / (step - first)
            figures = " ".join(f"{name} {float(part):.4f}" for name, part in parts.items())
            log(f"step {step}/{steps}, {pace * 1000:.0f} ms a step, {pace * (steps - step) / 60:.1f} min left: {figures}")
        if step % SAVE_EVERY == 0 or step == steps:
            saved = {"student": student.state_dict(), "optimiser": optimiser.state_dict(), "average": average, "step": step}
            partial = checkpoint.with_suffix(".part")
            torch.save(saved, partial)
            partial.replace(checkpoint)
    return {name: value.cpu() for name, value in average.items()}
