#!/usr/bin/env python3
"""Small models, good and bad, that the tests of effects of one's own are run on. It needs the PyPI package onnx (1.19.1 made what lies here).

usage: make_models.py            (run in this folder; writes beside itself)
"""
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, W, H = TensorProto.FLOAT, 64, 48
PICTURE = [1, 3, H, W]

def constant(name, values, dtype=np.float32):
    return numpy_helper.from_array(np.asarray(values, dtype), name)

def save(name, nodes, outputs, inputs=(("picture", PICTURE),), constants=(), check=True):
    infos = lambda tensors: [helper.make_tensor_value_info(tensor[0], tensor[2] if len(tensor) > 2 else FLOAT, tensor[1]) for tensor in tensors]
    graph = helper.make_graph(nodes, name, infos(inputs), infos(outputs), list(constants))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="ooblex tests")
    if check:
        onnx.checker.check_model(model, full_check=True)
    onnx.save_model(model, f"{name}.onnx")

node = helper.make_node

# Pictures: the negative, with channels first, and last; and a quarter of the size.
save("invert", [node("Sub", ["one", "picture"], ["negative"])], [("negative", PICTURE)], constants=[constant("one", 1)])
save("invert_nhwc", [node("Neg", ["picture"], ["negative"])], [("negative", [1, H, W, 3])], inputs=[("picture", [1, H, W, 3])])
save("quarter", [node("AveragePool", ["picture"], ["small"], kernel_shape=[2, 2], strides=[2, 2])], [("small", [1, 3, H // 2, W // 2])])
# Sizes are left open.
save("open", [node("Sub", ["one", "picture"], ["negative"])], [("negative", [1, 3, "h", "w"])], [("picture", [1, 3, "h", "w"])], [constant("one", 1)])

# Two channels of logits: the left half is marked in the second, by a ramp that does not look at the picture but for its size.
ramp = np.broadcast_to(np.where(np.arange(W) < W // 2, 8.0, -8.0), (1, 1, H, W))
save("left_half",
     [node("Mul", ["picture", "zeros"], ["nothing"]), node("ReduceSum", ["nothing", "channels"], ["flat"]), node("Add", ["flat", "ramp"], ["marked"]),
      node("Neg", ["marked"], ["unmarked"]), node("Concat", ["unmarked", "marked"], ["logits"], axis=1)],
     [("logits", [1, 2, H, W])], constants=[constant("zeros", 0), constant("channels", [1], np.int64), constant("ramp", ramp)])

# Boxes: rows of left, top, right, bottom (shares), and three scores. The first two are the same thing, the third another class, the fourth unsure.
boxes = [[[0.1, 0.1, 0.4, 0.5], [0.12, 0.1, 0.42, 0.5], [0.5, 0.5, 0.9, 0.9], [0.0, 0.0, 1.0, 1.0]]]
scores = [[[0.9, 0.0, 0.0], [0.8, 0.0, 0.0], [0.0, 0.1, 0.7], [0.1, 0.2, 0.1]]]
nothing = [node("ReduceMean", ["picture"], ["mean"], axes=[0, 1, 2, 3], keepdims=0), node("Mul", ["mean", "zero"], ["nothing"])]
save("boxes", nothing + [node("Add", ["nothing", "b"], ["boxes"]), node("Add", ["nothing", "s"], ["scores"])],
     [("boxes", [1, 4, 4]), ("scores", [1, 4, 3])], constants=[constant("zero", 0), constant("b", boxes), constant("s", scores)])
# The same in one tensor, a candidate a column: centre and size in pixels, then an objectness of 1, then scores.
b = np.asarray(boxes[0])
both = np.concatenate([(b[:, :2] + b[:, 2:]) / 2 * [W, H], (b[:, 2:] - b[:, :2]) * [W, H], np.ones((4, 1)), np.asarray(scores[0])], axis=1).T[None]
save("boxes_columns", nothing + [node("Add", ["nothing", "both"], ["found"])], [("found", [1, 8, 4])], constants=[constant("zero", 0), constant("both", both)])

# Labels: logits of four classes, the third far ahead.
save("labels", nothing + [node("Add", ["nothing", "l"], ["logits"])], [("logits", [1, 4])], constants=[constant("zero", 0), constant("l", [[0, 1, 4, 2]])])

# What goes wrong.
save("nan", [node("Sub", ["picture", "picture"], ["none"]), node("Div", ["none", "none"], ["nan"])], [("nan", PICTURE)])
save("nan_on_black", [node("ReduceMax", ["picture"], ["most"], axes=[1, 2, 3]), node("Div", ["picture", "most"], ["share"])], [("share", PICTURE)])
save("logits", [node("Mul", ["picture", "twenty"], ["twenties"]), node("Sub", ["twenties", "ten"], ["logits"])], [("logits", PICTURE)],
     constants=[constant("twenty", 20), constant("ten", 10)])
save("bytes_out", [node("Cast", ["picture"], ["bytes"], to=TensorProto.UINT8)], [("bytes", PICTURE, TensorProto.UINT8)])
save("no_shape", [node("Sub", ["picture", "picture"], ["any"])], [("any", None)], check=False)
save("two_inputs", [node("Mul", ["picture", "amount"], ["product"])], [("product", PICTURE)], [("picture", PICTURE), ("amount", [1])])
save("unknown_operator", [node("Frobnicate", ["picture"], ["result"])], [("result", PICTURE)], check=False)
# It asks for 12 TB: where memory is asked for without the chance to say no, the process ends.
save("greedy", [node("Shape", ["picture"], ["shape"]), node("Mul", ["shape", "much"], ["size"]), node("ConstantOfShape", ["size"], ["huge"]),
                node("ReduceMean", ["huge"], ["mean"], keepdims=0), node("Add", ["picture", "mean"], ["result"])],
     [("result", PICTURE)], constants=[constant("much", [1, 1, 1 << 14, 1 << 14], np.int64)])
# It counts to 2^62: at once, or as soon as the picture is green all over.
def hang(name, before, trips, constants):
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [node("Identity", ["going"], ["going_on"]), node("Add", ["sum", "step"], ["next"])], "body",
        [value("trip", TensorProto.INT64, []), value("going", TensorProto.BOOL, []), value("sum", FLOAT, [])],
        [value("going_on", TensorProto.BOOL, []), value("next", FLOAT, [])])
    after = [node("Loop", [trips, "", "zero"], ["counted"], body=body), node("Mul", ["counted", "zero"], ["nothing"]), node("Add", ["picture", "nothing"], ["result"])]
    constants = [*constants, constant("zero", 0), constant("step", 1e-30), constant("much", 1 << 62, np.int64)]
    save(name, before + after, [("result", PICTURE)], constants=constants, check=False)

hang("hang", [], "much", [])
hang("hang_on_green", [
    node("Split", ["picture"], ["red", "green", "blue"], axis=1), node("Add", ["red", "blue"], ["others"]), node("Sub", ["green", "others"], ["greener"]),
    node("ReduceMean", ["greener"], ["mean"], axes=[0, 1, 2, 3], keepdims=0), node("Greater", ["mean", "limit"], ["is_green"]),
    node("Cast", ["is_green"], ["one_if_green"], to=TensorProto.INT64), node("Mul", ["one_if_green", "much"], ["trips"]),
], "trips", [constant("limit", 0.3)])
