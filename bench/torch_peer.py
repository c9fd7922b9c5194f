# SPDX-License-Identifier: Apache-2.0
"""Prefill, decode and LoRA training in PyTorch, tokens a second, for the shape of a GGUF model.

Reads `linnet-client inspect MODEL --json` on stdin; prints three numbers. The weights are random float32 values of the
model's shape, since time does not depend on them: a plain LLaMA with rotary positions, grouped heads and a key-value
cache, adapters of rank 8 on all seven matrices, AdamW, batch 1, as `linnet-client bench` measures.
usage: torch_peer.py THREADS RUNS
"""
import json
import statistics
import sys
import time

import torch
import torch.nn.functional as F

RANK, CONTEXT, DECODED = 8, 256, 64


def shape_of(inspected):
    dims = {tensor["name"]: tensor["dims"] for tensor in inspected["tensors"]}
    meta = inspected["metadata"]
    width, vocabulary = dims["token_embd.weight"]
    layers = sum(1 for name in dims if name.endswith(".attn_q.weight"))
    heads = meta["llama.attention.head_count"]
    per_head = dims["blk.0.attn_q.weight"][1] // heads
    return dims, width, vocabulary, layers, heads, per_head, min(CONTEXT, meta["llama.context_length"])


class Linear:
    def __init__(self, columns, rows):
        self.w = torch.randn(rows, columns) * 0.02
        self.a = (torch.randn(RANK, columns) * 0.02).requires_grad_()
        self.b = torch.zeros(rows, RANK).requires_grad_()

    def __call__(self, x, train):
        y = F.linear(x, self.w)
        return y + 2.0 * F.linear(F.linear(x, self.a), self.b) if train else y


class Llama:
    def __init__(self, inspected):
        dims, self.width, self.vocabulary, self.layers, self.heads, self.per_head, self.context = shape_of(inspected)
        self.embedding = torch.randn(self.vocabulary, self.width) * 0.02
        names = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
        self.blocks = [{n: Linear(*dims[f"blk.{i}.{n}.weight"]) for n in names} for i in range(self.layers)]
        angles = torch.outer(torch.arange(self.context).float(), 10000 ** (-torch.arange(0, self.per_head, 2) / self.per_head))
        self.turn = torch.polar(torch.ones_like(angles), angles)

    def parameters(self):
        return [p for block in self.blocks for linear in block.values() for p in (linear.a, linear.b)]

    def split(self, x, at, rotate):
        n = x.shape[0]
        x = x.view(n, -1, self.per_head)
        if rotate:
            pairs = torch.view_as_complex(x.reshape(n, x.shape[1], -1, 2).contiguous())
            x = torch.view_as_real(pairs * self.turn[at : at + n, None]).flatten(2)
        return x.transpose(0, 1)

    def logits(self, ids, cache=None, train=False):
        at = cache[0][0].shape[1] if cache and cache[0] is not None else 0
        x = self.embedding[ids]
        for i, block in enumerate(self.blocks):
            h = F.rms_norm(x, (self.width,))
            q, k, v = (self.split(block[n](h, train), at, n != "attn_v") for n in ("attn_q", "attn_k", "attn_v"))
            if cache is not None:
                if cache[i] is not None:
                    k, v = torch.cat((cache[i][0], k), 1), torch.cat((cache[i][1], v), 1)
                cache[i] = (k, v)
            groups = self.heads // k.shape[0]
            k, v = k.repeat_interleave(groups, 0), v.repeat_interleave(groups, 0)
            y = F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=len(ids) > 1)[0]
            x = x + block["attn_output"](y.transpose(0, 1).reshape(len(ids), -1), train)
            h = F.rms_norm(x, (self.width,))
            x = x + block["ffn_down"](F.silu(block["ffn_gate"](h, train)) * block["ffn_up"](h, train), train)
        return F.linear(F.rms_norm(x, (self.width,)) if train else F.rms_norm(x[-1:], (self.width,)), self.embedding)


def rate(n_tokens, run, n_runs):
    run()  # the first call allocates
    rates = []
    for _ in range(n_runs):
        start = time.perf_counter()
        run()
        rates.append(n_tokens / (time.perf_counter() - start))
    return statistics.median(rates)


def main():
    torch.set_num_threads(int(sys.argv[1]))
    torch.manual_seed(0)
    n_runs = int(sys.argv[2])
    model = Llama(json.loads(sys.stdin.read().splitlines()[-1]))
    ids = torch.randint(model.vocabulary, (model.context,))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    @torch.no_grad()
    def prefill():
        model.logits(ids, [None] * model.layers)

    @torch.no_grad()
    def decode():
        cache = [None] * model.layers
        for i in range(min(DECODED, model.context)):
            model.logits(ids[i : i + 1], cache)

    def train():
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model.logits(ids, train=True)[:-1], ids[1:]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    print(rate(model.context, prefill, n_runs), rate(min(DECODED, model.context), decode, n_runs), rate(model.context, train, n_runs))


main()
