"""Untying: the same function, a larger group, and a config that says so."""

import pytest
import torch

from regauge import act
from regauge.act.recipe import After
from regauge.act.untie import config_patches, patched
from regauge.check.sound import sound
from regauge.errors import InputError
from tests.act.models import distance, subject
from tests.zoo.language import llama_dim
from tests.zoo.registry import load


def test_the_group_of_the_untied_model() -> None:
    s = subject("llama-gqa-tied")
    u = act.untie(s.gauge, s.state)
    assert dict(u.copies) == {"lm_head.weight": "model.embed_tokens.weight"}
    assert u.gauge.dim == llama_dim(2, 8, 4, 2, False)
    free = load()["llama-gqa"].make()
    free.model.load_state_dict(u.state)
    assert sound(free.model, free.args, u.gauge, observe=free.observe).ok


def test_then_the_stream_rotates() -> None:
    s, free = subject("llama-gqa-tied"), subject("llama-gqa")
    only_first = {n: t for n, t in s.state.items() if n != "lm_head.weight"}  # as files store it
    u = act.untie(s.gauge, only_first)
    assert torch.equal(u.state["lm_head.weight"], u.state["model.embed_tokens.weight"])
    folded = act.fold(u.gauge, u.state)
    image = (act.rotate(u.gauge, After(folded, u.state), "stream") @ folded).apply(u.state)
    assert distance(free.run(image), s.outputs) < 1e-9
    assert not torch.equal(image["lm_head.weight"], image["model.embed_tokens.weight"])
    assert bool((image["model.norm.weight"] == 1).all())


def test_nothing_to_untie() -> None:
    s = subject("llama-gqa")
    with pytest.raises(InputError, match="no tensor has two roles"):
        act.untie(s.gauge, s.state)
    one = subject("tied-layernorm-positions")
    with pytest.raises(InputError, match="used twice"):
        act.untie(one.gauge, one.state)


def test_config_is_patched_wherever_it_says_so() -> None:
    config = {
        "tie_word_embeddings": True,
        "vocab_size": 17,
        "text_config": {"tie_word_embeddings": True, "hidden": [1, 2]},
        "parts": [{"tie_embeddings": True}, {"tie_word_embeddings": False}],
        "attention_is_tied_to_nothing": True,
    }
    patches = config_patches(config)
    assert {p.path for p in patches} == {
        ("tie_word_embeddings",),
        ("text_config", "tie_word_embeddings"),
        ("parts", 0, "tie_embeddings"),
    }
    new = patched(config, patches)
    assert config_patches(new) == ()
    assert new["attention_is_tied_to_nothing"] is True and new["text_config"]["hidden"] == [1, 2]
    assert list(new) == list(config) and config["tie_word_embeddings"] is True
    (absent,) = config_patches({"vocab_size": 17})
    assert str(absent) == "tie_word_embeddings: absent -> False"
