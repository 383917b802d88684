"""Rewrites models so that ONNX Runtime runs them faster on CPUs, without changing their results.

ONNX Runtime keeps channels in blocks (NCHWc; of 16 with AVX-512, of 8 otherwise) from one convolution
to the next. A layer without a blocked implementation costs two conversions of the whole picture, and
an addition or activation after such a layer is a separate pass. These rules replace such layers by
blocked ones, and move operations before an upscaling where that is exact.

    python3 -m venv venv && venv/bin/pip install -r requirements.txt
    venv/bin/python rewrite.py             writes ../NAME.onnx for every originals/NAME.onnx
    venv/bin/python rewrite.py --compare   writes nothing; prints the difference of both on noise, and their times on one thread, alternating

It works on any graph; it does not know the purpose of a model.
"""

import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnxscript.rewriter import RewriteRuleClassBase, rewrite

HERE = Path(__file__).resolve().parent
# Channels per block: 16 with AVX-512, 8 otherwise; the larger of both.
BLOCK = 16


def is_pointwise(convolved):
    """Returns whether a value comes from a pointwise (1x1) convolution with one group and no
    strides.
    """
    attributes = convolved.producer().attributes
    weights = convolved.producer().inputs[1]
    strides = attributes["strides"].as_ints() if "strides" in attributes else [1, 1]
    group = attributes["group"].as_int() if "group" in attributes else 1
    return list(weights.shape)[2:] == [1, 1] and group == 1 and list(strides) == [1, 1]


def pixels(value):
    """Returns rows and columns if they are known; those of a value that a rule has just made are
    not.
    """
    return list(value.shape)[2:] if value.shape is not None else []


def stretched(op, big, small, scales):
    """Returns `small`, upscaled in the same way as `big`."""
    return op.Resize(small, None, scales, **big.producer().attributes)


def matrix(weights):
    return weights.const_value.numpy()[:, :, 0, 0].astype(np.float64)


class Rule(RewriteRuleClassBase):
    constants = 0

    def constant(self, op, like, array):
        """Returns a tensor of the model with a unique name."""
        self.constants += 1
        return op.initializer(ir.tensor(np.ascontiguousarray(array, np.float32)), name=f"{like}_{type(self).__name__}_{self.constants}")


class ConvolveFirst(Rule):
    """Moves a pointwise convolution before an upscaling. That is exact because the weights of
    interpolation add up to 1.
    """

    def pattern(self, op, x, scales, w, b):
        return op.Conv(op.Resize(x, None, scales, mode="linear", _outputs=["big"]), w, b, _outputs=["y"])

    def check(self, context, y, **_):
        return is_pointwise(y)

    def rewrite(self, op, x, scales, w, b, big, **_):
        return stretched(op, big, op.Conv(x, w, b, kernel_shape=[1, 1]), scales)


class MeanOfSum(Rule):
    """Replaces the mean of a sum that nothing else uses by the sum of the means."""

    def pattern(self, op, a, b):
        return op.GlobalAveragePool(op.Add(a, b))

    def check(self, context, a, b, **_):
        return pixels(a) not in ([], [1, 1]) and pixels(a) == pixels(b)

    def rewrite(self, op, a, b):
        return op.Add(op.GlobalAveragePool(a), op.GlobalAveragePool(b))


class MeanOfStretched(Rule):
    """Replaces the mean of a picture upscaled by two by the mean of the picture before."""

    def __init__(self):
        super().__init__(remove_nodes=False)

    def pattern(self, op, x, scales):
        return op.GlobalAveragePool(op.Resize(x, None, scales, mode="linear", coordinate_transformation_mode="half_pixel"))

    def check(self, context, scales, **_):
        return scales.const_value.numpy().tolist() == [1, 1, 2, 2]

    def rewrite(self, op, x, scales):
        return op.GlobalAveragePool(x)


class MeanFirst(Rule):
    """Replaces the mean of a pointwise convolution by the convolution of the mean."""

    def __init__(self):
        super().__init__(remove_nodes=False)

    def pattern(self, op, x, w, b):
        return op.GlobalAveragePool(op.Conv(x, w, b, _outputs=["y"]))

    def check(self, context, y, **_):
        return is_pointwise(y)

    def rewrite(self, op, x, w, b, **_):
        return op.Conv(op.GlobalAveragePool(x), w, b, kernel_shape=[1, 1])


class ConvolveParts(Rule):
    """Replaces a pointwise convolution of a sum with an upscaled convolution: the two convolutions
    become one on the small picture, and the sum is applied to the results, where it is fused
    with the other convolution.
    """

    def pattern(self, op, a, low, v, c, scales, w, b):
        return op.Conv(op.Add(a, op.Resize(op.Conv(low, v, c, _outputs=["small"]), None, scales, mode="linear", _outputs=["big"])), w, b, _outputs=["y"])

    def check(self, context, y, small, **_):
        return is_pointwise(y) and is_pointwise(small)

    def rewrite(self, op, a, low, v, c, scales, w, b, big, **_):
        both = self.constant(op, "w", (matrix(w) @ matrix(v))[:, :, None, None])
        moved = self.constant(op, "b", matrix(w) @ c.const_value.numpy())
        part = stretched(op, big, op.Conv(low, both, moved, kernel_shape=[1, 1]), scales)
        return op.Add(op.Conv(a, w, b, kernel_shape=[1, 1]), part)


class GateAsPlane(Rule):
    """Replaces a factor per channel by one per pixel, because blocks are multiplied only with
    blocks of the same shape.
    """

    def pattern(self, op, x, gate):
        return op.Mul(x, gate)

    def check(self, context, x, gate, **_):
        return pixels(x) not in ([], [1, 1]) and pixels(gate) == [1, 1]

    def rewrite(self, op, x, gate):
        scales = self.constant(op, "scales", [1, 1, *pixels(x)])
        plane = op.Resize(gate, None, scales, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")
        return op.Mul(x, plane)


class PReluAsConvolutions(Rule):
    """Replaces max(x, 0) + slope·min(x, 0) by x + (1 - slope)·max(-x, 0): two pointwise
    convolutions per channel, with which the activation and the sum are fused.
    """

    def pattern(self, op, x, slope):
        return op.PRelu(x, slope)

    def rewrite(self, op, x, slope):
        slopes = slope.const_value.numpy().reshape(-1, 1, 1, 1)
        by_channel = {"group": len(slopes), "kernel_shape": [1, 1]}
        below = op.Relu(op.Conv(x, self.constant(op, "minus", -np.ones_like(slopes)), **by_channel))
        return op.Add(op.Conv(below, self.constant(op, "lift", 1 - slopes), **by_channel), x)


class ChannelsByConvolution(Rule):
    """Adds channels of zeros by a convolution."""

    def pattern(self, op, x, pads):
        return op.Pad(x, pads, _outputs=["y"])

    def check(self, context, pads, **_):
        sides = pads.const_value.numpy().tolist()
        return sides[:5] == [0] * 5 and sides[6:] == [0, 0]

    def rewrite(self, op, x, y, **_):
        identity = np.eye(y.shape[1], x.shape[1])[:, :, None, None]
        return op.Conv(x, self.constant(op, "identity", identity), kernel_shape=[1, 1])


class PoolIntoBlocks(Rule):
    """Inserts an identity convolution after a pool whose channels do not fill blocks, so that the
    following addition is computed in blocks.
    """

    def pattern(self, op, x, other):
        return op.Add(op.MaxPool(x, _outputs=["pool"]), other)

    def check(self, context, x, **_):
        return x.shape[1] % BLOCK != 0

    def rewrite(self, op, x, other, pool):
        identity = np.eye(x.shape[1])[:, :, None, None]
        same = op.MaxPool(x, **pool.producer().attributes)
        return op.Add(op.Conv(same, self.constant(op, "identity", identity), kernel_shape=[1, 1]), other)


# The order matters: later rules match the results of earlier ones.
RULES = [ConvolveFirst, MeanOfSum, MeanOfStretched, MeanFirst, ConvolveParts, GateAsPlane, PReluAsConvolutions, ChannelsByConvolution, PoolIntoBlocks]


def faster(model):
    for rule in RULES:
        model = rewrite(onnx.shape_inference.infer_shapes(model, strict_mode=True), [rule.rule()])
    # Removes the names of the rules, and shapes that can be inferred.
    for node in model.graph.node:
        node.ClearField("metadata_props")
    model.graph.ClearField("value_info")
    onnx.checker.check_model(model, full_check=True)
    return model


def compare(name, models):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    sessions = [onnxruntime.InferenceSession(model.SerializeToString(), options) for model in models]
    noise = np.random.default_rng(1)
    inputs = {i.name: noise.random(i.shape, dtype=np.float32) for i in sessions[0].get_inputs()}
    before, after = (session.run(None, inputs) for session in sessions)
    apart = max(np.abs(a - b).max() / max(1, np.abs(a).max()) for a, b in zip(before, after))
    times = [[], []]
    for _ in range(300):
        for session, taken in zip(sessions, times):
            start = time.perf_counter()
            session.run(None, inputs)
            taken.append(time.perf_counter() - start)
    before, after = (1000 * np.median(taken) for taken in times)
    print(f"{name}: at most {apart:.1e} apart (of the largest value, or of 1); {before:.2f} ms before, {after:.2f} ms after ({after / before:.2f})")


for original in sorted((HERE / "originals").glob("*.onnx")):
    model = onnx.load(original)
    if "--compare" in sys.argv:
        compare(original.name, [model, faster(model)])
    else:
        onnx.save(faster(model), HERE.parent / original.name)
