#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Small random models of every architecture, run and differentiated by transformers and peft in float64. It writes
tests/vectors/architectures.json:

    tests/reference/architectures.py > tests/vectors/architectures.json

needs torch, transformers and peft (made with 2.15.0, 5.24.0, 0.21.2). A case lists the keys and tensors of a GGUF file;
weights follow from a tensor's name, so that the test makes the same file without storing it: element i of a tensor is

    centre + spread (2 u - 1),  u = top 24 bits of splitmix64(FNV-1a(name), i) / 2^24,  as float32.

Names and rows are GGUF's. Gradients are those of the summed loss of all tokens after the first, with factors of LoRA
made by the same rule from the names NAME.lora_a and NAME.lora_b."""
import json
import math
import sys

import numpy as np
import torch
import transformers
from peft import LoraConfig, get_peft_model

VOCABULARY, RANK, ALPHA = 48, 3, 6.0
SPREAD_A, SPREAD_B = 0.4, 0.4
M64 = (1 << 64) - 1


def uniform(name, n):
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = (seed ^ byte) * 0x100000001B3 & M64
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + (np.arange(1, n + 1, dtype=np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float64) / 2.0**24


class File:
    """The GGUF side of a case."""

    def __init__(self, architecture):
        self.architecture, self.keys, self.tensors, self.values = architecture, [], [], {}

    def key(self, name, kind, value):
        self.keys.append([f"{self.architecture}.{name}", kind, value])

    def tensor(self, name, shape, spread=None, centre=0.0, values=None):
        """shape: (columns,) or (rows, columns), as numpy has it."""
        entry = {"name": name, "dims": list(reversed(shape))}
        if values is None:
            spread = spread if spread is not None else 1.5 / math.sqrt(shape[-1])
            entry["spread"], entry["centre"] = spread, centre
            values = np.float32(centre + spread * (2 * uniform(name, int(np.prod(shape))) - 1))
        else:
            values = np.float32(values)
            entry["values"] = [float(v) for v in values]
        self.tensors.append(entry)
        self.values[name] = values.reshape(shape)
        return torch.tensor(self.values[name].astype(np.float64))


def rounded(values):
    return [float(f"{float(x):.9g}") for x in values]


def hf_rows(n_rows, n_heads):
    """Row of GGUF's order that holds each of Hugging Face's, for q and k that turn in pairs."""
    head = n_rows // n_heads
    half = head // 2
    return [h * head + 2 * (i % half) + i // half for h in range(n_heads) for i in range(head)]


def token_losses(logits, ids):
    return -torch.log_softmax(logits[0, :-1], -1)[torch.arange(len(ids) - 1), torch.tensor(ids[1:])]


def permuted(t, rows):
    return t[rows] if rows is not None else t


class Case:
    def __init__(self, name, architecture, config, n_ids, **options):
        self.name, self.file, self.config, self.n_ids = name, File(architecture), config, n_ids
        self.options = options
        self.vocabulary = config.vocab_size
        config._attn_implementation = "eager"
        torch.manual_seed(0)
        self.model = self.make_model().double().eval()
        self.state = {}
        self.modules = {}  # GGUF stem -> module name in a block, permutation
        self.write_keys()

    def make_model(self):
        return transformers.AutoModelForCausalLM.from_config(self.config)

    # ---- keys ----
    def write_keys(self):
        c, f = self.config, self.file
        is_gpt2 = f.architecture == "gpt2"
        self.n_layers = c.n_layer if is_gpt2 else c.num_hidden_layers
        self.width = c.n_embd if is_gpt2 else c.hidden_size
        self.n_heads = c.n_head if is_gpt2 else c.num_attention_heads
        self.n_kv_heads = getattr(c, "num_key_value_heads", self.n_heads)
        self.ffn_width = 4 * self.width if is_gpt2 else c.intermediate_size
        self.head = getattr(c, "head_dim", None) or self.width // self.n_heads
        self.context = c.n_positions if is_gpt2 else c.max_position_embeddings
        f.key("block_count", "u32", self.n_layers)
        f.key("embedding_length", "u32", self.width)
        f.key("feed_forward_length", "u32", self.ffn_width)
        f.key("context_length", "u32", self.context)
        f.key("attention.head_count", "u32", self.n_heads)
        if self.n_kv_heads != self.n_heads:
            f.key("attention.head_count_kv", "u32", self.n_kv_heads)
        if self.head * self.n_heads != self.width:
            f.key("attention.key_length", "u32", self.head)
            f.key("attention.value_length", "u32", self.head)
        if is_gpt2:
            f.key("attention.layer_norm_epsilon", "f32", c.layer_norm_epsilon)
        elif f.architecture in ("phi2", "bert"):
            f.key("attention.layer_norm_epsilon", "f32", c.layer_norm_eps)
        elif f.architecture == "starcoder2":
            f.key("attention.layer_norm_epsilon", "f32", c.norm_epsilon)
        else:
            f.key("attention.layer_norm_rms_epsilon", "f32", c.rms_norm_eps)
        for name, kind, value in self.options.get("keys", []):
            f.key(name, kind, value)

    # ---- tensors ----
    def linear(self, layer, stem, module, rows, columns, bias=False, heads=None, transposed=False):
        prefix = f"blk.{layer}.{stem}"
        order = hf_rows(rows, heads) if heads else None
        w = permuted(self.file.tensor(prefix + ".weight", (rows, columns)), order)
        path = f"{self.layers}.{layer}.{module}"
        self.state[path + ".weight"] = w.T if transposed else w
        if bias:
            self.state[path + ".bias"] = permuted(self.file.tensor(prefix + ".bias", (rows,), 0.3), order)
        self.modules[stem] = (module, order, columns, rows)

    def norm(self, stem, path, n, bias=False, less_one=False):
        w = self.file.tensor(stem + ".weight", (n,), 0.4, 1.0)
        self.state[path + ".weight"] = w - 1 if less_one else w
        if bias:
            self.state[path + ".bias"] = self.file.tensor(stem + ".bias", (n,), 0.3)

    def write_tensors(self):
        a, f, w = self.file.architecture, self.file, self.width
        qw, kw = self.head * self.n_heads, self.head * self.n_kv_heads
        gemma, is_llama = a.startswith("gemma"), a in ("llama", "granite")
        self.layers = "transformer.h" if a == "gpt2" else "model.layers"
        o = self.options
        embed = f.tensor("token_embd.weight", (self.vocabulary, w), o.get("embedding_spread", 1.0))
        if a == "gpt2":
            self.state["transformer.wte.weight"] = embed
            self.state["transformer.wpe.weight"] = f.tensor("position_embd.weight", (self.context, w), 0.5)
            self.norm("output_norm", "transformer.ln_f", w, bias=True)
        elif a == "phi2":
            self.state["model.embed_tokens.weight"] = embed
            self.norm("output_norm", "model.final_layernorm", w, bias=True)
        else:
            self.state["model.embed_tokens.weight"] = embed
            self.norm("output_norm", "model.norm", w, bias=a == "starcoder2", less_one=gemma)
        if self.config.tie_word_embeddings:
            self.state["lm_head.weight"] = embed
        else:
            self.state["lm_head.weight"] = f.tensor("output.weight", (self.vocabulary, w))
        if a == "phi2":
            self.state["lm_head.bias"] = f.tensor("output.bias", (self.vocabulary,), 0.3)
        for n, values in o.get("vectors", {}).items():
            f.tensor(n, (len(values),), values=values)
        for i in range(self.n_layers):
            b, m = f"blk.{i}", f"{self.layers}.{i}"
            if a == "gpt2":
                self.norm(b + ".attn_norm", m + ".ln_1", w, bias=True)
                self.norm(b + ".ffn_norm", m + ".ln_2", w, bias=True)
                self.linear(i, "attn_qkv", "attn.c_attn", 3 * w, w, True, transposed=True)
                self.linear(i, "attn_output", "attn.c_proj", w, w, True, transposed=True)
                self.linear(i, "ffn_up", "mlp.c_fc", self.ffn_width, w, True, transposed=True)
                self.linear(i, "ffn_down", "mlp.c_proj", w, self.ffn_width, True, transposed=True)
                continue
            if a == "phi2":
                self.norm(b + ".attn_norm", m + ".input_layernorm", w, bias=True)
                for stem, module, rows in (("attn_q", "q_proj", qw), ("attn_k", "k_proj", kw), ("attn_v", "v_proj", kw)):
                    self.linear(i, stem, "self_attn." + module, rows, w, True)
                self.linear(i, "attn_output", "self_attn.dense", w, qw, True)
                self.linear(i, "ffn_up", "mlp.fc1", self.ffn_width, w, True)
                self.linear(i, "ffn_down", "mlp.fc2", w, self.ffn_width, True)
                continue
            if a == "starcoder2":
                self.norm(b + ".attn_norm", m + ".input_layernorm", w, bias=True)
                self.norm(b + ".ffn_norm", m + ".post_attention_layernorm", w, bias=True)
                for stem, module, rows in (("attn_q", "q_proj", qw), ("attn_k", "k_proj", kw), ("attn_v", "v_proj", kw)):
                    self.linear(i, stem, "self_attn." + module, rows, w, True)
                self.linear(i, "attn_output", "self_attn.o_proj", w, qw, True)
                self.linear(i, "ffn_up", "mlp.c_fc", self.ffn_width, w, True)
                self.linear(i, "ffn_down", "mlp.c_proj", w, self.ffn_width, True)
                continue
            self.norm(b + ".attn_norm", m + ".input_layernorm", w, less_one=gemma)
            if gemma:
                self.norm(b + ".post_attention_norm", m + ".post_attention_layernorm", w, less_one=True)
                self.norm(b + ".ffn_norm", m + ".pre_feedforward_layernorm", w, less_one=True)
                self.norm(b + ".post_ffw_norm", m + ".post_feedforward_layernorm", w, less_one=True)
            else:
                self.norm(b + ".ffn_norm", m + ".post_attention_layernorm", w)
            if a in ("qwen3", "gemma3"):
                self.norm(b + ".attn_q_norm", m + ".self_attn.q_norm", self.head, less_one=gemma)
                self.norm(b + ".attn_k_norm", m + ".self_attn.k_norm", self.head, less_one=gemma)
            if a == "phi3":
                self.linear(i, "attn_qkv", "self_attn.qkv_proj", qw + 2 * kw, w)
                self.linear(i, "ffn_up", "mlp.gate_up_proj", 2 * self.ffn_width, w)
            else:
                bias = a == "qwen2" or o.get("attention_bias", False)
                heads = (self.n_heads, self.n_kv_heads) if is_llama else (None, None)
                self.linear(i, "attn_q", "self_attn.q_proj", qw, w, bias, heads[0])
                self.linear(i, "attn_k", "self_attn.k_proj", kw, w, bias, heads[1])
                self.linear(i, "attn_v", "self_attn.v_proj", kw, w, bias)
                self.linear(i, "ffn_gate", "mlp.gate_proj", self.ffn_width, w, o.get("mlp_bias", False))
                self.linear(i, "ffn_up", "mlp.up_proj", self.ffn_width, w, o.get("mlp_bias", False))
            self.linear(i, "attn_output", "self_attn.o_proj", w, qw, o.get("attention_bias", False))
            self.linear(i, "ffn_down", "mlp.down_proj", w, self.ffn_width, o.get("mlp_bias", False))

    # ---- running ----
    def load(self):
        missing, unexpected = self.model.load_state_dict(self.state, strict=False)
        missing = [m for m in missing if "rotary" not in m and not m.endswith(("attn.bias", "masked_bias"))]
        assert not missing and not unexpected, (self.name, missing, unexpected)

    def logits(self, logits):
        """What is compared of a model's logits: those behind the last token."""
        return logits[0, -1]

    def losses(self, logits, ids):
        return token_losses(logits, ids)

    def more(self):
        """Further fields of the case."""
        return {}

    def adapt(self):
        """The model with factors by the rule: a peft model, and {name: (A, B, order of B's rows)}."""
        targets = sorted({module for module, *_ in self.modules.values()})
        peft_model = get_peft_model(self.model, LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=targets,
                                                           fan_in_fan_out=self.file.architecture == "gpt2"))
        parameters = dict(peft_model.named_parameters())
        factors = {}
        for layer in range(self.n_layers + 1):
            for stem, (module, order, columns, rows) in self.modules.items():
                if stem.startswith("cls") != (layer == self.n_layers):
                    continue
                name, path = f"blk.{layer}.{stem}.weight", f"base_model.model.{self.layers}.{layer}.{module}"
                if stem.startswith("cls"):
                    name, path = f"{stem}.weight", f"base_model.model.{module}"
                a = np.float32(SPREAD_A * (2 * uniform(name + ".lora_a", RANK * columns) - 1)).reshape(RANK, columns)
                b = np.float32(SPREAD_B * (2 * uniform(name + ".lora_b", rows * RANK) - 1)).reshape(rows, RANK)
                pa, pb = parameters[path + ".lora_A.default.weight"], parameters[path + ".lora_B.default.weight"]
                pa.data = torch.tensor(a.astype(np.float64))
                pb.data = permuted(torch.tensor(b.astype(np.float64)), order)
                factors[name] = (pa, pb, order)
        return peft_model.eval(), factors

    def differentiate(self, peft_model, factors, ids):
        """Losses, and the norms and some elements of the gradients of their sum."""
        losses = self.losses(peft_model(torch.tensor([ids])).logits, ids)
        losses.sum().backward()
        gradients = []
        for name, (pa, pb, order) in factors.items():
            ga, gb = pa.grad, pb.grad
            if order is not None:
                back = torch.empty_like(gb)
                back[order] = gb
                gb = back
            gradients.append({
                "name": name, "norm_a": rounded([ga.norm()])[0], "norm_b": rounded([gb.norm()])[0],
                "a": rounded(ga.flatten()[:6]), "b": rounded(gb.flatten()[-6:])})
        return {"losses": rounded(losses.detach()), "gradients": gradients}

    def ids(self):
        return [int(u * self.vocabulary) for u in uniform("ids of " + self.name, self.n_ids)]

    def run(self):
        self.write_tensors()
        self.load()
        ids = self.ids()
        with torch.no_grad():
            logits = self.model(torch.tensor([ids])).logits
        case = {"name": self.name, "architecture": self.file.architecture, "context": self.options.get("run_context", self.context),
                "keys": self.file.keys, "tensors": self.file.tensors, "ids": ids,
                "logits": rounded(self.logits(logits)), "losses": rounded(self.losses(logits, ids))} | self.more()
        case["lora"] = {"rank": RANK, "alpha": ALPHA, "spread_a": SPREAD_A, "spread_b": SPREAD_B,
                        **self.differentiate(*self.adapt(), ids)}
        return case


class FirstToken(torch.nn.Module):
    """In place of a pooler: llama.cpp's converter leaves BERT's out, and its graph then goes on without."""

    def forward(self, hidden):
        return hidden[:, 0]


class BertCase(Case):
    """An encoder with labels: logits are those of the labels, and there is one loss, of the case's label."""
    label = 2

    def make_model(self):
        model = transformers.BertForSequenceClassification(self.config)
        if not self.options.get("pooler", True):
            model.bert.pooler = FirstToken()
        return model

    def head_linear(self, stem, module, rows):
        self.state[module + ".weight"] = self.file.tensor(stem + ".weight", (rows, self.width), 0.6)
        self.state[module + ".bias"] = self.file.tensor(stem + ".bias", (rows,), 0.3)
        self.modules[stem] = (module, None, self.width, rows)

    def write_tensors(self):
        f, w = self.file, self.width
        self.layers = "bert.encoder.layer"
        e = "bert.embeddings."
        self.state[e + "word_embeddings.weight"] = f.tensor("token_embd.weight", (self.vocabulary, w), 1.0)
        self.state[e + "position_embeddings.weight"] = f.tensor("position_embd.weight", (self.context, w), 0.5)
        self.state[e + "token_type_embeddings.weight"] = f.tensor("token_types.weight", (2, w), 0.5)
        self.norm("token_embd_norm", e + "LayerNorm", w, bias=True)
        for i in range(self.n_layers):
            b, m = f"blk.{i}", f"{self.layers}.{i}"
            self.norm(b + ".attn_output_norm", m + ".attention.output.LayerNorm", w, bias=True)
            self.norm(b + ".layer_output_norm", m + ".output.LayerNorm", w, bias=True)
            for stem, module in (("attn_q", "query"), ("attn_k", "key"), ("attn_v", "value")):
                self.linear(i, stem, "attention.self." + module, w, w, True)
            self.linear(i, "attn_output", "attention.output.dense", w, w, True)
            self.linear(i, "ffn_up", "intermediate.dense", self.ffn_width, w, True)
            self.linear(i, "ffn_down", "output.dense", w, self.ffn_width, True)
        if self.options.get("pooler", True):
            self.head_linear("cls", "bert.pooler.dense", w)
        self.head_linear("cls.output", "classifier", self.config.num_labels)

    def logits(self, logits):
        return logits[0]

    def losses(self, logits, ids):
        return -torch.log_softmax(logits[0], -1)[self.label:self.label + 1]

    def more(self):
        return {"label": self.label}


def cases(vocabulary=VOCABULARY):
    T = transformers
    common = dict(hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                  max_position_embeddings=64, vocab_size=vocabulary, bos_token_id=1, eos_token_id=2, pad_token_id=0)

    def rope(**more):
        return dict(rope_type="default", rope_theta=10000.0) | more

    yield Case("llama with biases and heads of their own width", "llama",
               T.LlamaConfig(**common, head_dim=8, attention_bias=True, mlp_bias=True, tie_word_embeddings=False,
                             rope_parameters=rope(rope_theta=5000.0)), 21,
               attention_bias=True, mlp_bias=True, keys=[["rope.freq_base", "f32", 5000.0]])
    # Llama 3's factors, as its converter stores them
    config = T.LlamaConfig(**common, tie_word_embeddings=True, rms_norm_eps=1e-5,
                           rope_parameters=rope(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                                original_max_position_embeddings=32, rope_theta=500.0))
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    plain = 1.0 / 500.0 ** (torch.arange(0, 6, 2).double() / 6)
    yield Case("llama 3 with stretched frequencies", "llama", config, 40, keys=[["rope.freq_base", "f32", 500.0]],
               vectors={"rope_freqs.weight": (plain / scaled.double()).tolist()})
    yield Case("llama with linear scaling", "llama",
               T.LlamaConfig(**common, tie_word_embeddings=True, rope_parameters=rope(rope_type="linear", factor=4.0)), 30,
               keys=[["rope.scaling.type", "text", "linear"], ["rope.scaling.factor", "f32", 4.0]])
    yield Case("mistral with a window", "llama",
               T.MistralConfig(**common, head_dim=10, sliding_window=7, tie_word_embeddings=False, rope_parameters=rope()), 60,
               keys=[["attention.sliding_window", "u32", 7]])
    yield Case("qwen2", "qwen2", T.Qwen2Config(**common, tie_word_embeddings=True, rope_parameters=rope(rope_theta=1e6)), 25,
               keys=[["rope.freq_base", "f32", 1e6]])
    yield Case("qwen2 with YaRN", "qwen2",
               T.Qwen2Config(**common, tie_word_embeddings=False,
                             rope_parameters=rope(rope_type="yarn", factor=4.0, original_max_position_embeddings=16,
                                                  rope_theta=300.0)), 50,
               keys=[["rope.freq_base", "f32", 300.0], ["rope.scaling.type", "text", "yarn"],
                     ["rope.scaling.factor", "f32", 4.0], ["rope.scaling.original_context_length", "u32", 16]])
    yield Case("qwen3", "qwen3", T.Qwen3Config(**common, head_dim=16, tie_word_embeddings=True, rope_parameters=rope()), 25)
    yield Case("gemma2 with caps and windows", "gemma2",
               T.Gemma2Config(**common, head_dim=8, query_pre_attn_scalar=8, sliding_window=6, attn_logit_softcapping=3.0,
                              final_logit_softcapping=5.0, tie_word_embeddings=True, hidden_activation="gelu_pytorch_tanh",
                              rope_parameters=rope()), 55,
               keys=[["attention.sliding_window", "u32", 6], ["attn_logit_softcapping", "f32", 3.0],
                     ["final_logit_softcapping", "f32", 5.0]])
    layers = ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"]
    yield Case("gemma3 with local and global ropes", "gemma3",
               T.Gemma3TextConfig(**(common | dict(num_hidden_layers=4)), head_dim=10, query_pre_attn_scalar=10,
                                  sliding_window=5, layer_types=layers, final_logit_softcapping=4.0,
                                  tie_word_embeddings=True,
                                  hidden_activation="gelu_pytorch_tanh",
                                  rope_parameters={"full_attention": rope(rope_type="linear", factor=8.0, rope_theta=1e6),
                                                   "sliding_attention": rope()}), 52,
               keys=[["rope.freq_base", "f32", 1e6], ["rope.scaling.type", "text", "linear"],
                     ["rope.scaling.factor", "f32", 8.0], ["attention.sliding_window", "u32", 5],
                     ["attention.sliding_window_pattern", "u32", 3], ["final_logit_softcapping", "f32", 4.0]])
    yield Case("phi2", "phi2",
               T.PhiConfig(**(common | dict(hidden_size=32, num_key_value_heads=4)), layer_norm_eps=1e-5,
                           hidden_act="gelu_new", tie_word_embeddings=False,
                           rope_parameters=rope(partial_rotary_factor=0.5)), 25,
               keys=[["rope.dimension_count", "u32", 4]])
    short, long = [1.0, 1.1, 1.3], [1.0, 2.5, 6.0]

    def phi3():
        return T.Phi3Config(**(common | dict(hidden_size=32)), sliding_window=9, tie_word_embeddings=True,
                            original_max_position_embeddings=20,
                            rope_parameters=rope(rope_type="longrope", short_factor=short, long_factor=long,
                                                 original_max_position_embeddings=20, partial_rotary_factor=0.75))

    phi3_keys = [["rope.dimension_count", "u32", 6], ["attention.sliding_window", "u32", 9],
                 ["rope.scaling.original_context_length", "u32", 20],
                 ["rope.scaling.attn_factor", "f32", math.sqrt(1 + math.log(64 / 20) / math.log(20))]]
    vectors = {"rope_factors_short.weight": short, "rope_factors_long.weight": long}
    yield Case("phi3 in a short context", "phi3", phi3(), 18, keys=phi3_keys, vectors=vectors, run_context=20)
    yield Case("phi3 in a long context", "phi3", phi3(), 45, keys=phi3_keys, vectors=vectors)
    yield Case("gpt2", "gpt2",
               T.GPT2Config(n_embd=24, n_layer=2, n_head=3, n_positions=64, vocab_size=vocabulary, activation_function="gelu_new",
                            resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, bos_token_id=1, eos_token_id=2), 25)
    yield Case("starcoder2", "starcoder2",
               T.Starcoder2Config(**common, norm_epsilon=1e-5, hidden_act="gelu_pytorch_tanh", use_bias=True,
                                  sliding_window=None, residual_dropout=0, embedding_dropout=0, attention_dropout=0,
                                  tie_word_embeddings=True, rope_parameters=rope()), 25)
    yield Case("granite with its multipliers", "granite",
               T.GraniteConfig(**common, embedding_multiplier=3.0, residual_multiplier=0.4, attention_multiplier=0.3,
                               logits_scaling=2.0, tie_word_embeddings=True, rope_parameters=rope()), 25,
               keys=[["embedding_scale", "f32", 3.0], ["residual_scale", "f32", 0.4], ["attention.scale", "f32", 0.3],
                     ["logit_scale", "f32", 2.0]])


def encoder_cases(vocabulary=VOCABULARY):
    T = transformers
    bert = T.BertConfig(hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4, num_labels=4,
                        max_position_embeddings=64, vocab_size=vocabulary, layer_norm_eps=1e-3, hidden_act="gelu",
                        hidden_dropout_prob=0, attention_probs_dropout_prob=0, classifier_dropout=0)
    bert_keys = [["attention.causal", "bool", False], ["pooling_type", "u32", 4]]
    yield BertCase("bert with a pooler", "bert", bert, 60,
                   keys=[*bert_keys, ["classifier.output_labels", "texts", ["no", "a little", "much", "all of it"]]])
    yield BertCase("bert without a pooler", "bert", bert, 25, keys=bert_keys, pooler=False)


def main():
    out = [case.run() for case in (*cases(), *encoder_cases())]
    text = json.dumps({"made_with": {"torch": torch.__version__, "transformers": transformers.__version__}, "cases": out})
    sys.stdout.write(text.replace('{"name"', '\n{"name"') + "\n")


if __name__ == "__main__":
    main()
