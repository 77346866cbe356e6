"""The whole model as it is trained."""

import torch

import dense
from decoder import Decoder
from tower import Tower


class PaliGemma(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.tower, self.dense, self.decoder = Tower(), dense.DenseHeads(), Decoder()

    def forward(self, patches, ids, positions, mask, wanted, exact: bool, pictures: int):
        """Logits of the tokens wanted, and the outputs of the dense heads.

        The first `pictures` of all have texts, and as many rows of `ids` each: one, or more if `exact`.
        """
        features = self.tower(patches)
        rows = features[:pictures].repeat_interleave(len(ids) // pictures, 0) if exact else features[:pictures]
        return self.decoder(rows, ids, positions, mask, wanted, exact), self.dense(features)
