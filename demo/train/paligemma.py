"""The whole model as it is trained."""

import torch

import dense
from decoder import Decoder
from tower import Tower


class PaliGemma(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.tower, self.dense, self.decoder = Tower(), dense.DenseHeads(), Decoder()

    def forward(self, patches, ids, positions, mask, wanted, exact: bool):
        """Logits of the tokens wanted, and the outputs of the dense heads. Texts of a picture are neighbours."""
        features = self.tower(patches)
        rows = features.repeat_interleave(len(ids) // len(patches), 0) if exact else features
        return self.decoder(rows, ids, positions, mask, wanted, exact), self.dense(features)
