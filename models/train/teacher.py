"""The teacher: style26.onnx, with all its styles in one network."""

import cv2
import numpy as np
import onnxruntime

STYLES = 26
# The teacher's outermost pixels are wrong, so frames are padded by this many mirrored pixels.
BORDER = 8


class Teacher:
    def __init__(self, model, style):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 2
        self.session = onnxruntime.InferenceSession(model, options, providers=onnxruntime.get_available_providers())
        self.weights = np.zeros(STYLES, np.float32)
        self.weights[style] = 1

    def paint(self, frame):
        """Returns the painting of a frame [h,w,3], 0..=255, in the same format."""
        wide = cv2.copyMakeBorder(frame, BORDER, BORDER, BORDER, BORDER, cv2.BORDER_REFLECT_101)
        image = (wide.astype(np.float32) / 255).transpose(2, 0, 1)[None]
        (painted,) = self.session.run(None, {"image": image, "style_weights": self.weights})
        cut = painted[0][:, BORDER:-BORDER, BORDER:-BORDER].transpose(1, 2, 0)
        return (np.clip(cut, 0, 1) * 255 + 0.5).astype(np.uint8)
