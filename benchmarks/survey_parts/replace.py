"""Replacements from outside for the few pieces of library code that cannot be built or traced as they are."""

from __future__ import annotations

import contextlib
import importlib
import math
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor

DRAFTS = (
    "transformers.models.gemma4.configuration_gemma4.Gemma4TextConfig",
    "transformers.models.gemma4_unified.configuration_gemma4_unified.Gemma4UnifiedTextConfig",
)


@contextlib.contextmanager
def repaired() -> Iterator[None]:
    """Draft models, all of whose layers read another model's keys and values: their own sharing check forbids them."""
    with contextlib.ExitStack() as stack:
        for path in DRAFTS:
            cls = find(path)
            modes = property(_sharing(cls.kv_sharing_modes.fget))
            stack.enter_context(mock.patch.object(cls, "kv_sharing_modes", modes))
        yield


@contextlib.contextmanager
def traceable() -> Iterator[None]:
    """Loops over data, replaced by equivalents: expert dispatch becomes dense, and a sparse indexer whose budget
    exceeds the sequence returns every visible token, as it would."""
    with contextlib.ExitStack() as stack:
        for path, method in REPLACED.items():
            owner, name = path.rsplit(".", 1)
            stack.enter_context(mock.patch.object(find(owner), name, method))
        yield


def select_all_visible(indexer: Any, hidden: Tensor, positions: Any, attention_mask: Tensor, cache: Any) -> Tensor:
    if indexer.token_budget < hidden.shape[1]:
        raise ValueError(f"the budget of {indexer.token_budget} tokens is below the sequence of {hidden.shape[1]}")
    return attention_mask if attention_mask.dtype == torch.bool else attention_mask == 0


def dense_experts(experts: Any, hidden: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """Every expert on every token (t), weighted by its router's weight or zero; experts beyond those with weights
    return their input."""
    routed = experts.num_routed_experts
    share = spread(chosen, weights, experts.total_experts)
    gate, up = torch.einsum("td,efd->tef", hidden, experts.gate_up_proj[:routed]).chunk(2, dim=-1)
    out = torch.einsum("tef,edf->ted", experts.act_fn(gate) * up, experts.down_proj)
    return torch.einsum("ted,te->td", out, share[:, :routed]) + hidden * share[:, routed:].sum(-1, keepdim=True)


def dense_glu_experts(experts: Any, hidden: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """The same for experts stored as rows of three flat matrices."""
    tokens = hidden.reshape(-1, experts.hidden_size)
    share = spread(chosen, weights, experts.num_experts)
    gate, up, down = (
        w.view(experts.num_experts, experts.ffn_hidden_size, experts.hidden_size)
        for w in (experts.mlp.w1, experts.mlp.v1, experts.mlp.w2)
    )
    inner = experts.mlp.activation_fn(torch.einsum("td,efd->tef", tokens, gate))
    inner = inner * torch.einsum("td,efd->tef", tokens, up)
    return torch.einsum("tef,efd,te->td", inner, down, share).view(hidden.shape)


def ungrouped_gating(router: Any, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Routing without grouping tokens by expert: each choice (t, k) stays in its place and carries its expert."""
    logits = router.layer(hidden).float()
    top, chosen = logits.topk(router.top_k, dim=1)
    places = torch.arange(chosen.numel())
    gates = torch.softmax(top, dim=1).type_as(hidden).flatten()
    return places, places // router.top_k, gates, chosen.flatten(), logits


def ungrouped_experts(experts: Any, inputs: Tensor, chosen: Tensor) -> Tensor:
    return torch.bmm(experts.weight[chosen], inputs.unsqueeze(-1)).squeeze(-1)


def one_language(output: Any, lang_ids: Tensor, hidden: Tensor) -> Tensor:
    """An adapter chosen by language, where there is one language."""
    (adapter,) = output.adapter_modules.values()
    residual = hidden if not output.ln_before_adapter else None
    normed = _adapter_norm(output, hidden)
    return output.dropout(adapter(normed)) + (normed if residual is None else residual)


def _adapter_norm(output: Any, hidden: Tensor) -> Tensor:
    if output.adapter_layer_norm is not None:
        return output.adapter_layer_norm(hidden)
    return output.LayerNorm(hidden) if output.adapter_reuse_layer_norm else hidden


def whole_table(table: Any, positions: Tensor) -> Tensor:
    """Axial positions out of the whole table, not out of the columns that these positions need."""
    shape = tuple(table.axial_pos_shape)
    rows = torch.cat([w.expand((1, *shape, w.shape[-1])) for w in table.weights], dim=-1)
    return rows.reshape(math.prod(shape), -1)[positions]


def reversible(hidden: Tensor, layers: Any, mask: Any, hashes: Any, *rest: Any) -> Tensor:
    """Reversible layers, differentiated as they stand rather than run without gradients and undone."""
    *_, length, _, _ = rest
    hidden, attended = hidden.chunk(2, dim=-1)
    for layer in layers:
        attended = attended + layer.attention(hidden, mask, hashes, orig_sequence_length=length).hidden_states
        hidden = hidden + layer.feed_forward(attended)
    return torch.cat([attended, hidden], dim=-1)


def sorted_back(vectors: Tensor, logits: Tensor, _: Tensor, back: Tensor) -> tuple[Tensor, Tensor]:
    return vectors.gather(2, back.unsqueeze(-1).expand(vectors.shape)), logits.gather(2, back)


def spread(chosen: Tensor, weights: Tensor, experts: int) -> Tensor:
    """Router weights (t, k) of chosen experts as a table (t, experts) with zeros elsewhere."""
    return weights.new_zeros(weights.shape[0], experts).scatter(1, chosen, weights)


def _sharing(original: Callable[[Any], list[str | None]]) -> Callable[[Any], list[str | None]]:
    def modes(config: Any) -> list[str | None]:
        layers = config.num_hidden_layers
        return ["reuse"] * layers if config.num_kv_shared_layers == layers else original(config)

    return modes


def find(path: str) -> Any:
    module, name = path.rsplit(".", 1)
    return getattr(importlib.import_module(module), name)


REPLACED = {
    "transformers.models.qwen4_exp.modeling_qwen4_exp.Qwen4ExpTextQSAIndexer.forward": select_all_visible,
    "transformers.models.longcat_flash.modeling_longcat_flash.LongcatFlashExperts.forward": dense_experts,
    "transformers.models.dbrx.modeling_dbrx.DbrxExperts.forward": dense_glu_experts,
    "transformers.models.jetmoe.modeling_jetmoe.JetMoeTopKGating.forward": ungrouped_gating,
    "transformers.models.jetmoe.modeling_jetmoe.JetMoeParallelExperts.forward": ungrouped_experts,
    "transformers.models.reformer.modeling_reformer.AxialPositionEmbeddings.forward": whole_table,
    "transformers.models.reformer.modeling_reformer._ReversibleFunction.apply": reversible,
    "transformers.models.reformer.modeling_reformer.ReverseSort.apply": sorted_back,
    "transformers.models.xmod.modeling_xmod.XmodOutput.lang_adapter": one_language,
}
