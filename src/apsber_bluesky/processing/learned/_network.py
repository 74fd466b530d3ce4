"""The network that denoises and segments: a U-Net over a few neighbouring slices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


class SliceNetwork(nn.Module):
    """A 2.5-dimensional U-Net: neighbouring slices are channels, the middle one is answered.

    O. Ronneberger, P. Fischer and T. Brox, MICCAI 2015, arXiv:1505.04597. The first and the last
    layer trade 2 x 2 pixels for channels (W. Shi et al., CVPR 2016, arXiv:1609.05158), which makes
    it four times cheaper. Without biases the network is homogeneous, ``f(a x) = a f(x)``, so that
    it knows no unit and carries over to noise it was not trained on (S. Mohan et al., ICLR 2020,
    arXiv:1906.05478).

    Parameters
    ----------
    slices : int
        Neighbouring slices that go in, odd.
    outputs : int
        Channels that come out.
    widths : sequence of int
        Channels of each level, from fine to coarse; each level halves rows and columns.
    biases : bool
        Whether layers add constants.
    residual : bool
        Whether the middle slice is added to what comes out.
    """

    def __init__(
        self, *, slices: int, outputs: int, widths: Sequence[int], biases: bool, residual: bool
    ) -> None:
        super().__init__()
        self.slices, self.outputs, self.residual = slices, outputs, residual
        self.multiple = 2 ** len(widths)
        self.fold, self.unfold = nn.PixelUnshuffle(2), nn.PixelShuffle(2)
        channels = 4 * slices
        self.down = nn.ModuleList()
        for width in widths:
            self.down.append(_block(channels, width, biases))
            channels = width
        self.up = nn.ModuleList()
        for width in reversed(widths[:-1]):
            self.up.append(_block(channels + width, width, biases))
            channels = width
        self.last = nn.Conv2d(channels, 4 * outputs, 1, bias=biases)
        if residual:
            # At first the answer is what went in.
            nn.init.zeros_(self.last.weight)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Answer the middle slices.

        Parameters
        ----------
        images : Tensor
            Shape ``(n, slices, rows, columns)``; rows and columns are multiples of `multiple`.

        Returns
        -------
        Tensor
            Shape ``(n, outputs, rows, columns)``.
        """
        x = self.fold(images)
        kept: list[torch.Tensor] = []
        for level, block in enumerate(self.down):
            x = block(nn.functional.max_pool2d(x, 2) if level else x)
            kept.append(x)
        kept.pop()
        for block in self.up:
            x = nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")
            x = block(torch.cat([x, kept.pop()], 1))
        answer: torch.Tensor = self.unfold(self.last(x))
        if self.residual:
            middle = self.slices // 2
            answer = answer + images[:, middle : middle + 1]
        return answer


def _block(inputs: int, outputs: int, biases: bool) -> nn.Sequential:
    layers: list[Any] = []
    for channels in (inputs, outputs):
        convolution = nn.Conv2d(channels, outputs, 3, padding=1, bias=biases)
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
        layers += [convolution, nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
