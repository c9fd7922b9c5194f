#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Models of the shapes that people run (widths, heads, vocabularies; two layers, random weights), in F32 and quantised by
linnet, beside transformers and llama.cpp: the same loss, the same greedy tokens in F32, and the peak of memory over the file.

usage: real_shapes.py LINNET_CLIENT VOCABULARY.gguf LLAMA_PEER [NAME...]"""
import os
import subprocess
import sys
import tempfile
import zlib

import gguf
import numpy as np
import transformers

import architectures
import interop

LAYERS = 2
TOKENS = 24
BEYOND_FILE_MAX = 32 << 20  # bytes of memory over file and cache
QUANTISED = {"F16": 2e-3, "Q8_0": 2e-2, "Q4_0": 0.1, "Q4_K": 0.1}  # llama.cpp rounds activations, linnet does not


def uniform(name, n):
    return np.random.default_rng(zlib.crc32(name.encode())).random(n, dtype=np.float32)


def configs():
    T = transformers

    def rope(**more):
        return dict(rope_type="default", rope_theta=10000.0) | more

    def shape(width, ffn, heads, kv_heads, vocabulary, context):
        return dict(hidden_size=width, intermediate_size=ffn, num_hidden_layers=LAYERS, num_attention_heads=heads,
                    num_key_value_heads=kv_heads, max_position_embeddings=context, vocab_size=vocabulary, bos_token_id=1,
                    eos_token_id=2, pad_token_id=0)

    yield ("TinyLlama 1.1B", "llama",
           T.LlamaConfig(**shape(2048, 5632, 32, 4, 32000, 2048), rms_norm_eps=1e-5, tie_word_embeddings=False, rope_parameters=rope()), [])
    yield ("SmolLM2 135M", "llama",
           T.LlamaConfig(**shape(576, 1536, 9, 3, 49152, 8192), rms_norm_eps=1e-5, tie_word_embeddings=True,
                         rope_parameters=rope(rope_theta=100000.0)), [["rope.freq_base", "f32", 100000.0]])
    yield ("Mistral 7B", "llama",
           T.MistralConfig(**shape(4096, 14336, 32, 8, 32000, 32768), head_dim=128, sliding_window=None, tie_word_embeddings=False,
                           rope_parameters=rope()), [])
    yield ("Qwen2.5 0.5B", "qwen2",
           T.Qwen2Config(**shape(896, 4864, 14, 2, 151936, 32768), tie_word_embeddings=True, rope_parameters=rope(rope_theta=1e6)),
           [["rope.freq_base", "f32", 1e6]])
    yield ("Qwen3 0.6B", "qwen3",
           T.Qwen3Config(**shape(1024, 3072, 16, 8, 151936, 40960), head_dim=128, tie_word_embeddings=True,
                         rope_parameters=rope(rope_theta=1e6)), [["rope.freq_base", "f32", 1e6]])
    yield ("Gemma 2 2B", "gemma2",
           T.Gemma2Config(**shape(2304, 9216, 8, 4, 64000, 8192), head_dim=256, query_pre_attn_scalar=256, sliding_window=4096,
                          attn_logit_softcapping=50.0, final_logit_softcapping=30.0, tie_word_embeddings=True,
                          hidden_activation="gelu_pytorch_tanh", rope_parameters=rope()),
           [["attention.sliding_window", "u32", 4096], ["attn_logit_softcapping", "f32", 50.0],
            ["final_logit_softcapping", "f32", 30.0]])
    yield ("Gemma 3 1B", "gemma3",
           T.Gemma3TextConfig(**shape(1152, 6912, 4, 1, 64000, 32768), head_dim=256, query_pre_attn_scalar=256, sliding_window=512,
                              layer_types=["sliding_attention", "full_attention"], tie_word_embeddings=True,
                              hidden_activation="gelu_pytorch_tanh",
                              rope_parameters={"full_attention": rope(rope_theta=1e6), "sliding_attention": rope()}),
           [["rope.freq_base", "f32", 1e6], ["attention.sliding_window", "u32", 512], ["attention.sliding_window_pattern", "u32", 2]])
    yield ("Phi 2", "phi2",
           T.PhiConfig(**shape(2560, 10240, 32, 32, 51200, 2048), layer_norm_eps=1e-5, hidden_act="gelu_new",
                       tie_word_embeddings=False, rope_parameters=rope(partial_rotary_factor=0.4)),
           [["rope.dimension_count", "u32", 32]])
    yield ("Phi 3 mini", "phi3",
           T.Phi3Config(**shape(3072, 8192, 32, 32, 32064, 4096), sliding_window=None, tie_word_embeddings=False,
                        original_max_position_embeddings=4096, rope_parameters=rope()),
           [["rope.dimension_count", "u32", 96]])
    yield ("DistilGPT-2", "gpt2",
           T.GPT2Config(n_embd=768, n_layer=LAYERS, n_head=12, n_positions=1024, vocab_size=50257, activation_function="gelu_new",
                        resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, bos_token_id=1, eos_token_id=2), [])
    yield ("StarCoder2 3B", "starcoder2",
           T.Starcoder2Config(**shape(3072, 12288, 24, 2, 49152, 16384), norm_epsilon=1e-5, hidden_act="gelu_pytorch_tanh",
                              use_bias=True, sliding_window=None, residual_dropout=0, embedding_dropout=0, attention_dropout=0,
                              tie_word_embeddings=True, rope_parameters=rope(rope_theta=999999.4420358813)),
           [["rope.freq_base", "f32", 999999.4420358813]])
    yield ("Granite 3 2B", "granite",
           T.GraniteConfig(**shape(2048, 8192, 32, 8, 49155, 4096), embedding_multiplier=12.0, residual_multiplier=0.22,
                           attention_multiplier=0.015625, logits_scaling=8.0, tie_word_embeddings=True, rope_parameters=rope()),
           [["embedding_scale", "f32", 12.0], ["residual_scale", "f32", 0.22], ["attention.scale", "f32", 0.015625],
            ["logit_scale", "f32", 8.0]])


def padded(vocabulary, n, path):
    """A file with a vocabulary of n tokens: the given one and unused pieces."""
    reader = gguf.GGUFReader(vocabulary)
    writer = gguf.GGUFWriter(path, "llama")
    more = {"tokenizer.ggml.tokens": lambda i: f"<unused_{i}>", "tokenizer.ggml.scores": lambda i: -1e9,
            "tokenizer.ggml.token_type": lambda i: 5}
    for field in reader.fields.values():
        if not field.name.startswith("tokenizer."):
            continue
        value, kinds = field.contents(), field.types
        if field.name in more:
            value = value[:n] + [more[field.name](i) for i in range(len(value), n)]
        writer.add_key_value(field.name, value, kinds[0], sub_type=kinds[-1] if len(kinds) > 1 else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def peak_of(client, model):
    """Bytes of memory over the file, when a prompt is run and tokens are drawn, and the cache's own."""
    out = subprocess.run(["/usr/bin/env", "python3", "-c",
                          "import resource, subprocess, sys; subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True); "
                          "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)",
                          client, "generate", "--model", model, "--prompt", interop.TEXT, "--tokens", str(TOKENS), "--quiet"],
                         capture_output=True, text=True, check=True)
    return int(out.stdout) - os.path.getsize(model)


def run_case(run, name, architecture, config, keys):
    m = run.machine
    vocabulary, base = os.path.join(run.folder, "vocabulary.gguf"), os.path.join(run.folder, "base.gguf")
    print(name, flush=True)
    case = architectures.Case(name, architecture, config, 1, keys=keys, embedding_spread=0.05 if architecture != "gpt2" else 0.2)
    padded(run.vocabulary, config.vocab_size, vocabulary)
    case.write_tensors()
    case.load()
    case.state = {}
    interop.write_gguf(case, vocabulary, base)
    case.file.values = {}
    data = run.write_text("text", interop.TEXT)
    ids = [1] + m.linnet("tokenize", "--model", base, "--text", interop.TEXT)["ids"]
    loss = m.loss(base, data)
    run.compare("F32: linnet, transformers", loss, interop.torch_loss(case.model, ids))
    case.model = None
    other = m.llama(base, interop.TEXT, greedy=TOKENS)
    run.compare("F32: linnet, llama.cpp", loss, float(np.mean(other["losses"])))
    got = m.linnet("generate", "--model", base, "--prompt", interop.TEXT, "--tokens", str(TOKENS))["ids"]
    run.n_wrong += got != other["greedy"][:len(got)]
    print(f"    greedy tokens: {sum(a == b for a, b in zip(got, other['greedy']))} of {len(got)} are llama.cpp's", flush=True)
    heads, kv = config.num_attention_heads, getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head = getattr(config, "head_dim", None) or config.hidden_size // heads
    cache = 2 * 4 * LAYERS * kv * head * (len(ids) + TOKENS)
    for kind, tolerance in ({"F32": None} | QUANTISED).items():
        path = base if kind == "F32" else os.path.join(run.folder, "quantised.gguf")
        if kind != "F32":
            m.linnet("quantize", "--model", base, "--type", kind, "--out", path)
            run.compare(f"{kind}: linnet, llama.cpp", m.loss(path, data),
                        float(np.mean(m.llama(path, interop.TEXT)["losses"])), tolerance)
        over = peak_of(m.client, path) - cache
        good = over <= BEYOND_FILE_MAX
        run.n_wrong += not good
        print(f"    {kind}: peak of memory over file and cache: {over / 2**20:.1f} MiB {'' if good else 'TOO MUCH'}", flush=True)


def main():
    client, vocabulary, peer = sys.argv[1:4]
    wanted = sys.argv[4:]
    architectures.uniform = uniform
    with tempfile.TemporaryDirectory() as folder:
        run = interop.Run(interop.Machine(client, peer), folder, vocabulary)
        for name, architecture, config, keys in configs():
            if not wanted or name in wanted:
                run_case(run, name, architecture, config, keys)
    print(f"{run.n_wrong} differences")
    sys.exit(run.n_wrong > 0)


main()
