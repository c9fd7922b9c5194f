#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""LoRA dropout in the small models of architectures.py: losses and gradients of peft in float64, where the dropout
modules are replaced by the factors that client/engine/dropout.c makes. It writes tests/vectors/dropout.json:

    tests/reference/dropout.py > tests/vectors/dropout.json

Needs what architectures.py needs. Gradients are those of the summed loss, as there."""
import json
import sys

import numpy as np
import torch

from architectures import M64, cases, encoder_cases

SEED, STEP, RECORD = 2024, 7, 3
SHARES = (0.25, 0.1, 0.5)  # the cases take turns
GOLDEN, LABEL = 0x9E3779B97F4A7C15, 0x64726F706F757431
LINEARS = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
HEAD = ("cls", "cls.output")  # behind those of all layers


def mix(z):
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & M64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & M64
    return z ^ (z >> 31)


def absorb(key, value):
    return mix(key + GOLDEN * (value + 1) & M64)


def factors(share, matrix, n_tokens, n_columns):
    """What the input of a matrix is multiplied by, (n_tokens, n_columns)."""
    threshold = min(max(round(share * 65536), 1), 65535)
    key = LABEL
    for value in (SEED, STEP, RECORD, matrix):
        key = absorb(key, value)
    rows = []
    for token in range(n_tokens):
        state, bits = absorb(key, token), []
        for _ in range(0, n_columns, 4):
            state = state + GOLDEN & M64
            word = mix(state)
            bits += [word >> shift & 0xFFFF for shift in (0, 16, 32, 48)]
        rows.append(bits[:n_columns])
    return (np.array(rows) >= threshold) * (65536 / (65536 - threshold))


class Masked(torch.nn.Module):
    def __init__(self, share, matrix):
        super().__init__()
        self.share, self.matrix = share, matrix

    def forward(self, x):
        n_tokens = x.shape[1] if x.dim() == 3 else 1  # the head sees one
        return x * torch.tensor(factors(self.share, self.matrix, n_tokens, x.shape[-1]))


def matrix_of(case, layer, stem):
    """The number of the first linear that a matrix holds."""
    if stem in HEAD:
        return case.n_layers * len(LINEARS) + HEAD.index(stem)
    first = {"attn_qkv": "attn_q"}.get(stem, stem)
    if stem == "ffn_up" and case.file.architecture == "phi3":
        first = "ffn_gate"  # in one with it
    return layer * len(LINEARS) + LINEARS.index(first)


def run(case, share):
    case.write_tensors()
    case.load()
    peft_model, lora = case.adapt()
    modules = dict(peft_model.named_modules())
    for stem, (module, *_) in case.modules.items():
        for layer in range(1 if stem in HEAD else case.n_layers):
            path = module if stem in HEAD else f"{case.layers}.{layer}.{module}"
            modules[f"base_model.model.{path}"].lora_dropout["default"] = Masked(share, matrix_of(case, layer, stem))
    got = case.differentiate(peft_model, lora, case.ids())
    for gradient in got["gradients"]:
        gradient["a"], gradient["b"] = gradient["a"][:2], gradient["b"][-2:]
    return {"name": case.name, "share": share, "loss": sum(got["losses"]), "gradients": got["gradients"]}


def main():
    out = [run(case, SHARES[i % len(SHARES)]) for i, case in enumerate([*cases(), *encoder_cases()])]
    text = json.dumps({"seed": SEED, "step": STEP, "record": RECORD, "cases": out})
    sys.stdout.write(text.replace('{"name"', '\n{"name"') + "\n")


if __name__ == "__main__":
    main()
