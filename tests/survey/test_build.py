"""Types are built tiny and generic, and the replacements compute what they replace."""

import pytest
import torch
from survey_parts.build import build_causal, causal_types
from survey_parts.others import build_other
from survey_parts.plain import build_plain, plain_modules
from survey_parts.replace import traceable
from survey_parts.trace import parameter_operators, trace

FAMILIES = ("llama", "gpt2", "gemma2", "mixtral", "deepseek_v3", "bloom", "mamba", "rwkv", "qwen3_next", "opt")


@pytest.mark.parametrize("name", FAMILIES)
def test_a_tiny_model_is_generic_and_finite(name):
    subject = build_causal(name)
    with torch.no_grad():
        logits = subject.model(*subject.args, **subject.kwargs)
    assert torch.isfinite(logits).all() and logits.std() > 1e-3
    for parameter in subject.model.parameters():
        assert parameter.numel() == 1 or parameter.unique().numel() > 1, "a constant parameter is not generic"


@pytest.mark.slow
@pytest.mark.parametrize("name", causal_types())
def test_every_causal_type_is_built_small(name):
    subject = build_causal(name)
    assert sum(p.numel() for p in subject.model.parameters()) < 150_000
    with torch.no_grad():
        assert torch.isfinite(subject.model(**subject.kwargs)).all()


@pytest.mark.parametrize("name", ["dbrx", "longcat_flash", "qwen4_exp_text", "jetmoe", "xmod"])
def test_a_replaced_loop_computes_the_same(name):
    subject = build_causal(name)
    with torch.no_grad():
        own = subject.model(**subject.kwargs)
        with traceable():
            replaced = subject.model(**subject.kwargs)
    torch.testing.assert_close(replaced, own, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["bert", "t5", "vit", "whisper", "resnet"])
def test_other_kinds_are_built(name):
    subject = build_other(name)
    with torch.no_grad():
        assert torch.isfinite(subject.model(**subject.kwargs)).all()


def test_operators_are_those_of_the_parameters_alone():
    subject = build_plain("Tanh")
    assert dict(parameter_operators(trace(subject).program)) == {"linear": 2, "tanh": 1}


def test_every_plain_module_runs():
    for name in plain_modules():
        subject = build_plain(name)
        with torch.no_grad():
            assert torch.isfinite(subject.model(*subject.args)).all(), name


def test_tokens_come_from_the_whole_table():
    subject = build_causal("moshi", width=8, vocabulary=19, layers=1)
    assert subject.vocabulary == 20  # one row for padding, which the model reads like any other
