#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Show in PyTorch, without linnet, what the demo has to gain: base, local-only, federated and centralised losses.

Reads the GGUF as a device would (Q8_0 decoded to float32, tokenizer from its metadata) and runs the default recipe of
linnet: LoRA of rank 8 and alpha 16 on all seven linears, A of orthonormal rows times 1/sqrt(3), B zero; AdamW with
fresh moments in every round, warm-up of 3 steps, clip 1, the rate falling by round on a cosine to 2 %; even rounds
train B, odd rounds A; the server takes the mean, weighted by tokens. Local-only is the same with every owner alone,
centralised the same schedule on the pooled notes, one run with as many batches as the whole fleet.
"""
import argparse
import json
import math
import pathlib
import random
import time

import gguf
import numpy as np
import torch

from tiny_llama import BOS, EOS, LINEARS, generate, linear_shapes, loss_sum

HERE = pathlib.Path(__file__).resolve().parent
RANK, ALPHA, BATCH, WARM_UP = 8, 16, 4, 3


class Tokenizer:
    """SPM in its simplest form: split into characters, then merge the neighbours whose union scores best."""

    def __init__(self, pieces, scores):
        self.pieces, self.ids = pieces, {piece: i for i, piece in enumerate(pieces)}
        self.scores = dict(zip(pieces, scores))

    def encode(self, text):
        symbols = list("\u2581" + text.replace(" ", "\u2581"))
        while True:
            pairs = [(self.scores[a + b], -i) for i, (a, b) in enumerate(zip(symbols, symbols[1:])) if a + b in self.ids]
            if not pairs:
                break
            i = -max(pairs)[1]
            symbols[i:i + 2] = [symbols[i] + symbols[i + 1]]
        ids = []
        for symbol in symbols:
            ids += [self.ids[symbol]] if symbol in self.ids else [self.ids[f"<0x{byte:02X}>"] for byte in symbol.encode()]
        return ids

    def decode(self, ids):
        return "".join(self.pieces[i] for i in ids).replace("\u2581", " ").strip()


def read_model(path):
    reader = gguf.GGUFReader(path)

    def value(key):
        return reader.fields[key].contents()

    config = dict(width=value("llama.embedding_length"), layers=value("llama.block_count"), heads=value("llama.attention.head_count"),
                  kv_heads=value("llama.attention.head_count_kv"), feed_forward=value("llama.feed_forward_length"),
                  vocab=value("llama.vocab_size"), eps=value("llama.attention.layer_norm_rms_epsilon"), rope=value("llama.rope.freq_base"))
    weights = {t.name: torch.from_numpy(gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32)) for t in reader.tensors}
    return config, weights, Tokenizer(value("tokenizer.ggml.tokens"), value("tokenizer.ggml.scores"))


def read_notes(path, tokenizer):
    """client -> records of ids"""
    clients = {}
    for line in open(path):
        record = json.loads(line)
        clients.setdefault(record["client"], []).append([BOS] + tokenizer.encode(record["text"]) + [EOS])
    return clients


def start_adapter(config, seed):
    """name -> [A, B]"""
    torch.manual_seed(seed)
    adapter = {}
    for n in range(config["layers"]):
        for name in LINEARS:
            d_out, d_in = linear_shapes(config)[name]
            rows = torch.linalg.qr(torch.randn(d_in, RANK))[0].T / math.sqrt(3)
            adapter[f"blk.{n}.{name}"] = [rows.contiguous(), torch.zeros(d_out, RANK)]
    return adapter


class Feed:
    """Shuffled passes over one owner's records."""

    def __init__(self, records, seed):
        self.records, self.rng, self.queue = records, random.Random(seed), []

    def batch(self):
        while len(self.queue) < BATCH:
            self.queue += self.rng.sample(self.records, len(self.records))
        taken, self.queue = self.queue[:BATCH], self.queue[BATCH:]
        return taken


def train_round(weights, config, adapter, feed, factors, rate, n_steps):
    """A copy of the adapter after n_steps; factors: which of A (0) and B (1) move."""
    adapter = {name: [t.clone() for t in pair] for name, pair in adapter.items()}
    moving = [pair[f].requires_grad_() for pair in adapter.values() for f in factors]
    optimizer = torch.optim.AdamW(moving, weight_decay=0.0)
    for step in range(n_steps):
        optimizer.param_groups[0]["lr"] = rate * min(1, (step + 1) / WARM_UP)
        total, count = loss_sum(weights, config, feed.batch(), adapter)
        optimizer.zero_grad()
        (total / count).backward()
        torch.nn.utils.clip_grad_norm_(moving, 1.0)
        optimizer.step()
    return {name: [t.detach() for t in pair] for name, pair in adapter.items()}


def mean_adapter(adapters, shares):
    return {name: [sum(w * a[name][f] for a, w in zip(adapters, shares)) for f in (0, 1)] for name in adapters[0]}


@torch.no_grad()
def evaluate(weights, config, records, adapter=None):
    """Sum of losses and number of tokens."""
    total, count = 0.0, 0
    for i in range(0, len(records), 32):
        part, n = loss_sum(weights, config, records[i:i + 32], adapter)
        total, count = total + float(part), count + n
    return total, count


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=HERE / "linnet-notes-Q8_0.gguf")
    parser.add_argument("--notes", type=pathlib.Path, default=HERE, help="folder of notes-train.jsonl and notes-test.jsonl")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rate", type=float, default=3e-2)
    parser.add_argument("--central-rate", type=float, default=5e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--base-only", action="store_true", help="base loss and samples, no training")
    args = parser.parse_args()
    torch.set_num_threads(1)

    config, weights, tokenizer = read_model(args.model)
    train, test = (read_notes(args.notes / f"notes-{split}.jsonl", tokenizer) for split in ("train", "test"))
    everyone = [record for records in test.values() for record in records]
    n_train = {client: sum(len(r) - 1 for r in records) for client, records in train.items()}
    print(f"{len(train)} owners, {sum(map(len, train.values()))} training notes of {sum(n_train.values())} scored tokens, "
          f"{len(everyone)} test notes of {sum(len(r) - 1 for r in everyone)}, longest {max(map(len, everyone))}")

    def loss_of(records, adapter=None):
        total, count = evaluate(weights, config, records, adapter)
        return total / count

    def show(adapter=None):
        for prompt in ("Evening", "Morning", "Pulse", "Lantern walk"):
            ids = tokenizer.encode(prompt)
            print("   ", tokenizer.decode(ids + generate(weights, config, [BOS] + ids, adapter)))

    base = loss_of(everyone)
    print(f"base         {base:.4f}")
    show()
    if args.base_only:
        return

    def rate_of(round_index, peak):
        return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * round_index / args.rounds)))

    clock = time.time()
    start = start_adapter(config, args.seed)
    feeds = {client: Feed(records, f"{args.seed} {client}") for client, records in train.items()}
    adapter, shares = start, [n / sum(n_train.values()) for n in n_train.values()]
    for r in range(args.rounds):
        sent = [train_round(weights, config, adapter, feeds[c], [1 - r % 2], rate_of(r, args.rate), args.steps) for c in train]
        adapter = mean_adapter(sent, shares)
        print(f"  round {r + 1}: {loss_of(everyone, adapter):.4f}", flush=True)
    federated, federated_adapter = loss_of(everyone, adapter), adapter
    print(f"federated    {federated:.4f}  ({time.time() - clock:.0f} s)")
    show(adapter)
    better_than_base = sum(loss_of(test[c], adapter) < loss_of(test[c]) for c in train)

    clock, total, count, better_than_local = time.time(), 0.0, 0, 0
    for client in train:
        adapter, feed = start, Feed(train[client], f"{args.seed} {client}")
        for r in range(args.rounds):
            adapter = train_round(weights, config, adapter, feed, [1 - r % 2], rate_of(r, args.rate), args.steps)
        part, n = evaluate(weights, config, test[client], adapter)
        total, count = total + part, count + n
        better_than_local += loss_of(test[client], federated_adapter) < part / n
    local = total / count
    print(f"local-only   {local:.4f}  ({time.time() - clock:.0f} s)")

    clock, pooled = time.time(), [record for records in train.values() for record in records]
    adapter, feed = start, Feed(pooled, args.seed)
    for r in range(args.rounds):
        adapter = train_round(weights, config, adapter, feed, [0, 1], rate_of(r, args.central_rate), args.steps * len(train))
    central = loss_of(everyone, adapter)
    print(f"centralised  {central:.4f}  ({time.time() - clock:.0f} s)")
    print(f"gap closed: federated {(base - federated) / (base - central):.1%}, local-only {(base - local) / (base - central):.1%}; "
          f"federated is better than the base for {better_than_base} and than local-only for {better_than_local} of {len(train)} owners")


if __name__ == "__main__":
    main()
