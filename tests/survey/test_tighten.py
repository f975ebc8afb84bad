"""How many copies a subject is measured on: more tokens, as long as they bring dimension and nullity closer."""

import pytest
import torch
from survey_parts import examine
from survey_parts.build import Subject
from torch import nn


class OfTheToken(nn.Module):
    """A function of the token alone: of few tokens it is any, and more is free than symmetries say. hides: and a constant
    singular map, of which no rule knows what it hides."""

    def __init__(self, tokens: int, hides: bool) -> None:
        super().__init__()
        self.table, self.read, self.out = nn.Embedding(tokens, 3), nn.Linear(3, 4), nn.Linear(4, 7)
        self.hides = hides

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        x = self.read(self.table(input_ids))
        return self.out(torch.tanh(x @ torch.tensor(SINGULAR).to(x) if self.hides else x))


SINGULAR = [[1.0, 2, 0, 1], [0, 1, 1, 0], [1, 3, 1, 1], [1, 0, 0, 2]]


@pytest.mark.parametrize(
    ("vocabularies", "hides", "count"),
    [((4, 6, 29, 31), False, 3), ((29, 31, 37), True, 2), ((29, 31), False, 1)],
)
def test_more_tokens_have_the_last_word(monkeypatch, vocabularies, hides, count):
    def copies(kind, name):
        for tokens in vocabularies:
            torch.manual_seed(0)
            yield Subject(name, OfTheToken(tokens, hides), (), {"input_ids": torch.arange(tokens)[None]}, tokens)

    monkeypatch.setattr(examine, "small_copies", copies)
    record: dict = {}
    examine.tighten("causal", "tokens", record, patched=False)
    assert len(record["copies"]) == count
    assert (record["gap"] > 0) == hides
