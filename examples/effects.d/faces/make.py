#!/usr/bin/env python3
"""Makes model.onnx from models/rewrite/originals/blazeface_back_160x256.onnx, whose boxes are offsets
to anchors: this script adds the anchors, so that the model outputs boxes. It needs the PyPI package
onnx (the file here was made with 1.19.1).

In:  input  [1, 3, 160, 256], RGB, -1..1, the frame letterboxed.
Out: faces  [1, 560, 4], centre x, centre y, width, height in pixels of the input; scores [1, 560, 1], logits.
"""
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTH, HEIGHT = 256, 160
model = onnx.load("../../../models/rewrite/originals/blazeface_back_160x256.onnx")
graph = model.graph
anchors = [
    [(x + 0.5) * stride, (y + 0.5) * stride, 0, 0]
    for stride, each in ((16, 2), (32, 6))
    for y in range(HEIGHT // stride)
    for x in range(WIDTH // stride)
    for _ in range(each)
]

def constant(name, values, dtype):
    graph.initializer.append(numpy_helper.from_array(np.asarray(values, dtype), name))

constant("anchors", [anchors], np.float32)
for name, value in (("first", [0]), ("fourth", [4]), ("last_axis", [2])):
    constant(name, value, np.int64)
graph.node.append(helper.make_node("Slice", ["boxes", "first", "fourth", "last_axis"], ["offsets"]))
graph.node.append(helper.make_node("Add", ["offsets", "anchors"], ["faces"]))
scores = [output for output in graph.output if output.name == "scores"][0]
del graph.output[:]
graph.output.append(helper.make_tensor_value_info("faces", TensorProto.FLOAT, [1, len(anchors), 4]))
graph.output.append(scores)
onnx.checker.check_model(model, full_check=True)
onnx.save_model(model, "model.onnx")
