"""Augmented batches by copying windows: the images of `data.Batches` bit for bit, faster on a CPU.

Every crop is a window of the padded image, and every flipped one a window of its mirror image. Both
are kept, and a batch is one copy of windows instead of a gather by pixel.
"""

import numpy as np
import torch
from torch import Generator, Tensor

from ticketlab.data import Augment, Batches, DataSet, Images, rotate


class WindowBatches(Batches):
    """As `Batches`, and from the same draws; twice its memory (uint8). Elsewhere than on a CPU, and
    without augmentation, it is `Batches`."""

    def __init__(self, images: Images, data: DataSet, augment: Augment | None = None) -> None:
        super().__init__(images, data, augment)
        self._windows: np.ndarray | None = None
        if images.x.device.type == "cpu" and (self.augment.crop or self.augment.flip):
            both = [self._store, self._store.flip(3)] if self.augment.flip else [self._store]
            height, width = self.shape[1:]
            # (mirrored, image, channel, top, left, row, column), no copy
            view = np.lib.stride_tricks.sliding_window_view(
                torch.stack(both).numpy(), (height, width), axis=(3, 4)
            )
            self._windows = view.transpose(0, 1, 3, 4, 2, 5, 6)

    def __call__(self, index: Tensor, generator: Generator | None = None) -> Tensor:
        """Batch the images at `index` int64 (B,); augmented iff a generator is given."""
        if self._windows is None or generator is None:
            return super().__call__(index, generator)
        x = self._cut(self._windows, index, generator)
        if self.augment.rotate:
            draw = torch.rand(len(index), generator=generator)
            return self._normalised(rotate(x.float(), (2 * draw - 1) * self.augment.rotate))
        return self._normalised(x.float())

    def _cut(self, windows: np.ndarray, index: Tensor, generator: Generator) -> Tensor:
        """Crop and flip, each image by its own draw: uint8 (B,C,H,W)."""
        n, pad = len(index), self.augment.crop
        flip = top = left = torch.zeros(n, dtype=torch.int64)
        if self.augment.flip:
            flip = torch.randint(2, (n, 1), generator=generator)[:, 0]
        if pad:
            top, left = torch.randint(2 * pad + 1, (2, n, 1), generator=generator)[..., 0]
        left = torch.where(flip.bool(), 2 * pad - left, left)  # seen in the mirror
        cut = windows[flip.numpy(), index.numpy(), top.numpy(), left.numpy()]
        return torch.from_numpy(cut)

    def _normalised(self, x: Tensor) -> Tensor:
        # in place where the result is the caller's own: the same two roundings
        if x.dtype == torch.float32 and self.augment.active:
            return x.sub_(self._shift).mul_(self._scale)
        return super()._normalised(x)
