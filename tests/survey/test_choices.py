"""What a choice is made by is part of the function, though no derivative sees it."""

import torch
from survey_parts.build import Subject
from survey_parts.nullity import nullity
from torch import nn

import regauge


class Chooses(nn.Module):
    """Two of five entries, by scores that nothing else reads."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.scores, self.read, self.count = nn.Linear(4, 5, bias=False), nn.Linear(5, 3), count

    def forward(self, x):
        with torch.no_grad():
            chosen = self.scores(x).topk(self.count, -1).indices
        mask = torch.zeros(x.shape[0], 5).scatter(-1, chosen, 1.0)
        return self.read(torch.tanh(x.repeat(1, 2)[:, :5]) * mask)


class Excludes(nn.Module):
    """A softmax over the scores that come close to one."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Linear(4, 5, bias=False)

    def forward(self, x):
        scores = self.scores(x)
        return torch.softmax(scores.masked_fill((1 - scores).abs() > 0.5, float("-inf")).clamp_min(-50), -1)


def subject(model):
    return Subject("choices", model.eval(), (torch.randn(30, 4),), {})


def test_a_choice_sees_all_but_a_shift_and_a_scale_of_its_scores():
    given = subject(Chooses(2))
    assert nullity(given).directions == 4 + 1 == regauge.infer(given.model, given.args).dim


def test_a_choice_of_all_sees_nothing():
    assert nullity(subject(Chooses(5))).unread == {"scores.weight": 20}


def test_an_exclusion_moves_with_its_scores():
    assert nullity(subject(Excludes())).directions == 0
