"""The student: a small network that paints one style.

Its input for a pixel is the surrounding area and four numbers of the whole frame (the means of the
channels and one standard deviation). The teacher's instance normalisation, which makes every part of a
frame depend on all others, is the cause of its flicker.

    image [1,3,h,w] 0..=1, h and w multiples of 4
      -> minus the frame's means, divided by its standard deviation
      -> 8x8 convolution of stride 4, 32 channels at a quarter of the size
      -> three residual blocks of two 3x3 convolutions
      -> 3x3 convolution to 48 channels, spread over 4x4 pixels -> sigmoid
    -> stylized [1,3,h,w] 0..=1
"""

import torch
from torch import nn
from torch.nn import functional as F

CHANNELS = 32
# Dilation of each block; the last one has a larger receptive field.
DILATIONS = (1, 1, 2)
# Distance in pixels from the edge of a crop from which on the losses use a painting. The student
# sees twice as far; README.md describes the consequences.
REACH = 20
# Standard deviation to which a frame is normalised, and the minimum variance.
DEVIATION = 0.5
LEAST_VARIANCE = 0.0025


class Block(nn.Module):
    def __init__(self, dilation):
        super().__init__()
        self.first = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=dilation, dilation=dilation)
        self.second = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=dilation, dilation=dilation)

    def forward(self, x):
        return F.relu(x + self.second(F.relu(self.first(x))))


class Student(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, CHANNELS, 8, stride=4, padding=2)
        self.body = nn.Sequential(*[Block(dilation) for dilation in DILATIONS])
        self.head = nn.Conv2d(CHANNELS, 48, 3, padding=1)
        self.start()

    def start(self):
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)
        # Blocks that begin near the identity make up for the missing normalisation.
        for block in self.body:
            block.second.weight.data.mul_(0.3)
        # The head begins as one colour per cell, upscaled smoothly to the pixels, to avoid a
        # checkerboard pattern.
        weight = self.head.weight.data
        colours = 0.6 * weight[::16, :, 1:2, 1:2]
        weight.mul_(0.05).add_((colours.unsqueeze(1) * stretched()).flatten(0, 1))

    def logits(self, x):
        """Returns the logits of a normalised frame: [n,48,h/4,w/4]."""
        return self.head(self.body(F.relu(self.stem(x))))

    def forward(self, x):
        return torch.sigmoid(F.pixel_shuffle(self.logits(x).float(), 4))


def stretched():
    """Returns [16,1,3,3]: the weights of the neighbouring cells for each pixel of a 4x4 cell, for
    bilinear upscaling.
    """
    at = (torch.arange(4) + 0.5) / 4 - 0.5
    line = torch.stack([F.relu(-at), 1 - at.abs(), F.relu(at)], 1)
    return torch.einsum("ai,bj->abij", line, line).reshape(16, 1, 3, 3)


class Exported(nn.Module):
    """The student as the program runs it: the graph computes the frame's four numbers itself."""

    def __init__(self, student):
        super().__init__()
        self.student = student

    def forward(self, image):
        sample = image[:, :, 2::4, 2::4]
        means = sample.mean((2, 3), keepdim=True)
        variance = ((sample - means) ** 2).mean((1, 2, 3), keepdim=True)
        x = (image - means) * (DEVIATION / torch.sqrt(variance + LEAST_VARIANCE))
        return torch.sigmoid(spread(self.student.logits(x)))


def spread(x):
    """Pixel shuffle as two transposes, for which ONNX Runtime needs less than half the time of
    DepthToSpace.
    """
    _, _, height, width = x.shape
    y = x.reshape(12, 4, -1).permute(0, 2, 1).reshape(3, 4, height, width * 4)
    return y.permute(0, 2, 1, 3).reshape(1, 3, height * 4, width * 4)
