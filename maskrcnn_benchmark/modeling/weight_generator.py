"""Classifier rows of new classes from a few examples (Gidaris & Komodakis 2018; LST spec section 1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MetaWeightGenerator(nn.Module):
    """Makes the row of a class from the features of its examples and from the rows of known classes.

    row = average_scale * mean(z) + attended_scale * mean(read-out), where z are the normalised features and
    the read-out of z is the mean of the normalised known rows weighted by softmax(attention_scale * cosine of
    `query` z with every known row). Both scales are vectors (D,), one factor per channel. An untrained
    generator gives the mean of the normalised features.
    """

    def __init__(self, dim: int, *, attention_scale: float = 10.0) -> None:
        super().__init__()
        self.average_scale = nn.Parameter(torch.ones(dim))
        self.attended_scale = nn.Parameter(torch.zeros(dim))
        self.attention_scale = nn.Parameter(torch.tensor(float(attention_scale)))
        self.query = nn.Linear(dim, dim, bias=False)
        nn.init.eye_(self.query.weight)

    def forward(self, support: Tensor, known_rows: Tensor) -> Tensor:
        """Features (S,D) of a class, S at least 1, and rows (B,D) of known classes -> its row (D,)."""
        z, known = F.normalize(support, dim=1), F.normalize(known_rows, dim=1)
        attention = (self.attention_scale * F.normalize(self.query(z), dim=1) @ known.t()).softmax(dim=1)
        attended = (attention @ known).mean(dim=0)
        return self.average_scale * z.mean(dim=0) + self.attended_scale * attended
