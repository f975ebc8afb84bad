"""What is observed: every float tensor of the output, logits, probabilities, or the caller's choice."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from regauge.check.observe import observed
from regauge.errors import InputError


@dataclass
class Output:
    logits: torch.Tensor
    extras: tuple
    loss: None = None


LOGITS = torch.randn(2, 3)
OUTPUT = Output(LOGITS, (torch.ones(2), {"ids": torch.ones(2, dtype=torch.long)}))


def test_everything_by_default():
    assert list(observed(OUTPUT)) == ["logits", "extras[0]"]


def test_logits_and_probabilities():
    assert torch.equal(observed(OUTPUT, "logits")["output"], LOGITS)
    assert torch.equal(observed((LOGITS, 1), "logits")["output"], LOGITS)
    assert torch.allclose(observed(OUTPUT, "probabilities")["output"].sum(-1), torch.ones(2))


def test_a_callable_chooses():
    assert list(observed(OUTPUT, lambda o: {"first": o.extras[0]})) == ["first"]


@pytest.mark.parametrize(
    "output, observe, match",
    [
        (OUTPUT, "hidden", "not known"),
        (torch.ones(2, dtype=torch.long), None, "no floating tensor"),
        ({"a": torch.ones(2)}, "logits", "has no logits"),
        ((torch.ones(2), object()), None, r"holds a object at \[1\]"),
    ],
)
def test_the_rest_is_refused(output, observe, match):
    with pytest.raises(InputError, match=match):
        observed(output, observe)
