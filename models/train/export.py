"""Exports the student as an ONNX file: with its contrast adjusted to the teacher's, and with
dynamic height and width.
"""

import numpy as np
import onnx
import torch

from network import DEVIATION, LEAST_VARIANCE, Exported, Student

# An opset version that both ONNX Runtime and rten support.
OPSET = 14
# Number of frames from which the contrast is measured, and number of corrections.
FRAMES = 48
ROUNDS = 4


def export(weights, frames, paintings, path):
    student = Student()
    student.load_state_dict(weights)
    student.eval()
    calibrate(student, frames, paintings)
    torch.onnx.export(
        Exported(student),
        torch.zeros(1, 3, 216, 384),
        path,
        input_names=["image"],
        output_names=["stylized"],
        opset_version=OPSET,
        dynamo=False,
        dynamic_axes={"image": {2: "height", 3: "width"}, "stylized": {2: "height", 3: "width"}},
    )
    model = onnx.load(path)
    # The tracer loses the first two dimensions of the output.
    first, second = model.graph.output[0].type.tensor_type.shape.dim[:2]
    first.dim_value, second.dim_value = 1, 3
    model.producer_name, model.producer_version = "", ""
    for node in model.graph.node:
        node.ClearField("doc_string")
    onnx.checker.check_model(model)
    onnx.save(model, path)


@torch.no_grad()
def calibrate(student, frames, paintings):
    """Gives each colour the teacher's mean and standard deviation by a gain and an offset before
    the sigmoid, folded into the last layer.
    """
    chosen = np.linspace(0, len(frames) - 1, min(FRAMES, len(frames))).astype(int)
    target = paintings[chosen].astype(np.float64) / 255
    image = torch.from_numpy(frames[chosen].astype(np.float32) / 255).permute(0, 3, 1, 2)
    sample = image[:, :, 2::4, 2::4]
    means = sample.mean((2, 3), keepdim=True)
    variance = ((sample - means) ** 2).mean((1, 2, 3), keepdim=True)
    logits = student.logits((image - means) * (DEVIATION / torch.sqrt(variance + LEAST_VARIANCE)))
    logits = logits.unflatten(1, (3, 16)).permute(1, 0, 2, 3, 4).flatten(1)
    for channel in range(3):
        wanted_mean, wanted_deviation = target[..., channel].mean(), deviation_within(target[..., channel].reshape(len(chosen), -1))
        gain, offset = 1.0, 0.0
        for _ in range(ROUNDS):
            painted = torch.sigmoid(logits[channel] * gain + offset)
            gain *= wanted_deviation / deviation_within(painted.reshape(len(chosen), -1).double().numpy())
            painted = torch.sigmoid(logits[channel] * gain + offset)
            slope = (painted * (1 - painted)).mean().item()
            offset += (wanted_mean - painted.mean().item()) / max(slope, 0.02)
        rows = slice(16 * channel, 16 * channel + 16)
        student.head.weight[rows] *= gain
        student.head.bias[rows] = student.head.bias[rows] * gain + offset


def deviation_within(values):
    """Returns the standard deviation of the pixels of each frame, averaged over the frames."""
    return float(values.std(1).mean())
