# SPDX-License-Identifier: Apache-2.0
"""The llama architecture in few lines of PyTorch, as train_model.py trains it and check_gain.py adapts it.

Parameters are a flat dict under their GGUF names, matrices as (d_out, d_in). RoPE turns neighbouring pairs
(2i, 2i+1) of every head, as GGUF's llama does, so nothing is permuted on the way to the file.
"""
import math

import torch
import torch.nn.functional as F

CONFIG = dict(vocab=1024, width=128, layers=4, heads=4, kv_heads=2, feed_forward=256, context=256, eps=1e-5, rope=10000.0)
BOS, EOS = 1, 2
LINEARS = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]


def linear_shapes(c):
    kv = c["width"] // c["heads"] * c["kv_heads"]
    w, f = c["width"], c["feed_forward"]
    return dict(attn_q=(w, w), attn_k=(kv, w), attn_v=(kv, w), attn_output=(w, w), ffn_gate=(f, w), ffn_up=(f, w), ffn_down=(w, f))


def init_weights(c):
    weights = {"token_embd.weight": torch.randn(c["vocab"], c["width"]) * 0.05, "output_norm.weight": torch.ones(c["width"])}
    for n in range(c["layers"]):
        for norm in ("attn_norm", "ffn_norm"):
            weights[f"blk.{n}.{norm}.weight"] = torch.ones(c["width"])
        for name, (d_out, d_in) in linear_shapes(c).items():
            std = 1 / math.sqrt(d_in)
            if name in ("attn_output", "ffn_down"):  # the residual stream adds 2 x layers of these
                std /= math.sqrt(2 * c["layers"])
            weights[f"blk.{n}.{name}.weight"] = torch.randn(d_out, d_in) * std
    return weights


def rms_norm(x, weight, eps):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def rope_table(c, n_tokens):
    half = c["width"] // c["heads"] // 2
    angle = torch.arange(n_tokens)[:, None] * c["rope"] ** (-torch.arange(half) / half)
    return angle.cos(), angle.sin()


def rotate(x, table):
    cos, sin = table
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)


def logits(weights, c, ids, lora=None, scale=2.0):
    """Logits (batch, tokens, vocab) of ids (batch, tokens). lora: name -> (A, B), added to every linear it names."""

    def linear(name, x):
        y = F.linear(x, weights[name + ".weight"])
        if lora is not None:
            a, b = lora[name]
            y = y + scale * F.linear(F.linear(x, a), b)
        return y

    n_batch, n_tokens = ids.shape
    head = c["width"] // c["heads"]
    table = rope_table(c, n_tokens)
    future = torch.ones(n_tokens, n_tokens).triu(1).bool()
    x = weights["token_embd.weight"][ids]
    for n in range(c["layers"]):
        blk = f"blk.{n}."
        h = rms_norm(x, weights[blk + "attn_norm.weight"], c["eps"])
        q, k, v = (linear(blk + name, h).view(n_batch, n_tokens, -1, head).transpose(1, 2) for name in ("attn_q", "attn_k", "attn_v"))
        q, k = rotate(q, table), rotate(k, table)
        k, v = (t.repeat_interleave(c["heads"] // c["kv_heads"], 1) for t in (k, v))
        scores = (q @ k.transpose(-1, -2) / math.sqrt(head)).masked_fill(future, float("-inf"))
        h = (scores.softmax(-1) @ v).transpose(1, 2).reshape(n_batch, n_tokens, -1)
        x = x + linear(blk + "attn_output", h)
        h = rms_norm(x, weights[blk + "ffn_norm.weight"], c["eps"])
        x = x + linear(blk + "ffn_down", F.silu(linear(blk + "ffn_gate", h)) * linear(blk + "ffn_up", h))
    return F.linear(rms_norm(x, weights["output_norm.weight"], c["eps"]), weights["token_embd.weight"])


def loss_sum(weights, c, records, lora=None):
    """Sum of the losses of all tokens after the first, and their number. A record is a list of ids."""
    longest = max(map(len, records))
    ids = torch.tensor([r + [0] * (longest - len(r)) for r in records])
    target = torch.tensor([r[1:] + [-100] * (longest - len(r)) for r in records])
    out = logits(weights, c, ids[:, :-1], lora)
    return F.cross_entropy(out.flatten(0, 1), target.flatten(), ignore_index=-100, reduction="sum"), sum(len(r) - 1 for r in records)


@torch.no_grad()
def generate(weights, c, ids, lora=None, n_tokens=48):
    """Greedy continuation, up to end-of-text."""
    ids, made = list(ids), []
    while len(made) < n_tokens:
        token = int(logits(weights, c, torch.tensor([ids]), lora)[0, -1].argmax())
        if token == EOS:
            break
        ids.append(token)
        made.append(token)
    return made
