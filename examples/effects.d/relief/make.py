#!/usr/bin/env python3
"""Makes model.onnx, which shows a picture as a metal relief. It needs the PyPI package onnx (the file
here was made with 1.19.1).

In:  picture [1, 3, 180, 320], RGB, 0..1; depth [1], the depth of the relief.
Out: relief  [1, 3, 180, 320], RGB, 0..1.

The gradient of the grey picture towards the lower right, times the depth, is the light: 0.5 for a flat
area. It lightens or darkens the picture's own colours, at half of their saturation.
"""
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

def constant(name, values):
    return numpy_helper.from_array(np.asarray(values, np.float32), name)

SLOPE = [[-2, -1, 0], [-1, 0, 1], [0, 1, 2]]
GREY = [[[[0.299]], [[0.587]], [[0.114]]]]
# rten needs these attributes even where they have ONNX's default values.
PLAIN = dict(pads=[0, 0, 0, 0], strides=[1, 1], dilations=[1, 1])
nodes = [
    helper.make_node("Conv", ["picture", "to_grey"], ["grey"], **PLAIN),
    helper.make_node("Pad", ["grey", "border"], ["wider"], mode="edge"),
    helper.make_node("Conv", ["wider", "slope"], ["slopes"], **PLAIN),
    helper.make_node("Mul", ["slopes", "depth"], ["light"]),
    helper.make_node("Add", ["picture", "grey"], ["sum"]),
    helper.make_node("Mul", ["sum", "half"], ["pale"]),
    helper.make_node("Add", ["pale", "light"], ["lit"]),
    helper.make_node("Clip", ["lit", "zero", "one"], ["relief"]),
]
graph = helper.make_graph(
    nodes,
    "relief",
    [helper.make_tensor_value_info("picture", TensorProto.FLOAT, [1, 3, 180, 320]), helper.make_tensor_value_info("depth", TensorProto.FLOAT, [1])],
    [helper.make_tensor_value_info("relief", TensorProto.FLOAT, [1, 3, 180, 320])],
    [constant("to_grey", GREY), constant("slope", [[SLOPE]]), constant("half", 0.5), constant("zero", 0.0), constant("one", 1.0),
     numpy_helper.from_array(np.asarray([0, 0, 1, 1] * 2, np.int64), "border")],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="ooblex example")
onnx.checker.check_model(model, full_check=True)
onnx.save_model(model, "model.onnx")
