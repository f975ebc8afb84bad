"""A directory of transformers' Llama kind as a GGUF file in single precision, with the writer of the `gguf` package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from models import tensors

BYTES = 256


def write(folder: Path, path: Path, like: Path | None = None) -> Path:
    """like: a GGUF file whose vocabulary is taken; else one of three special tokens and the bytes."""
    config = json.loads((folder / "config.json").read_text())
    heads = config["num_attention_heads"]
    groups = config.get("num_key_value_heads", heads)
    head = config.get("head_dim") or config["hidden_size"] // heads
    rope = config.get("rope_parameters") or config
    w = gguf.GGUFWriter(path, "llama")
    w.add_block_count(config["num_hidden_layers"])
    w.add_context_length(config["max_position_embeddings"])
    w.add_embedding_length(config["hidden_size"])
    w.add_feed_forward_length(config["intermediate_size"])
    w.add_head_count(heads)
    w.add_head_count_kv(groups)
    w.add_rope_dimension_count(head)
    w.add_rope_freq_base(float(rope["rope_theta"]))
    w.add_layer_norm_rms_eps(config["rms_norm_eps"])
    w.add_vocab_size(config["vocab_size"])
    vocabulary(w, like)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    for name, t in tensors(folder).items():
        array = t.float().numpy()
        for kind, n in (("q_proj", heads), ("k_proj", groups)):
            if name.endswith(f"{kind}.weight"):  # the format wants the two entries of a rotary plane side by side
                array = array.reshape(n, 2, head // 2, -1).swapaxes(1, 2).reshape(array.shape)
        known = names.get_name(name, try_suffixes=(".weight",))
        assert known is not None, name
        w.add_tensor(known, np.ascontiguousarray(array))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return path


def vocabulary(w: Any, like: Path | None) -> None:
    if like is not None:
        for name, f in gguf.GGUFReader(like).fields.items():
            if name.startswith("tokenizer.ggml."):
                w.add_key_value(name, f.contents(), f.types[0], f.types[-1] if len(f.types) > 1 else None)
        return
    kinds = gguf.TokenType
    w.add_tokenizer_model("llama")
    w.add_token_list(["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(BYTES))])
    w.add_token_scores([0.0] * (3 + BYTES))
    w.add_token_types([kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL, *[kinds.BYTE] * BYTES])
