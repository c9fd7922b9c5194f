#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Blocks of random bytes of every quantised type and the float32 values that the gguf package says they stand for. It writes
tests/vectors/quants.json:

    tests/reference/quants.py > tests/vectors/quants.json

needs gguf and numpy (made with 0.19.0 and 2.4.6). Scales are halves of moderate size: any other byte is as it falls."""
import hashlib
import json

import numpy as np
from gguf import GGMLQuantizationType as T
from gguf import quants
from gguf.constants import GGML_QUANT_SIZES

# where halves stand in a block of each type
HALVES = {T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0], T.IQ4_NL: [0], T.Q2_K: [80, 82], T.Q3_K: [108],
          T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208], T.BF16: []}


def main():
    out = {}
    for kind, halves in HALVES.items():
        elements, n_bytes = GGML_QUANT_SIZES[kind]
        n_blocks = 64 if elements == 1 else 2 if elements == 256 else 4
        data = np.frombuffer(hashlib.shake_256(kind.name.encode()).digest(n_blocks * n_bytes), np.uint8).copy()
        data = data.reshape(n_blocks, n_bytes)
        for block in data:
            for at in halves:  # an exponent of 8 to 15: 2^-7 to 1
                block[at + 1] = (block[at + 1] & 0x83) | ((8 + (block[at + 1] >> 2 & 7)) << 2)
        if kind == T.BF16:
            data[:, 1] = (data[:, 1] & 0x80) | 0x3F  # no infinities
        values = quants.dequantize(data.reshape(-1), kind).astype("<f4").reshape(-1)
        out[kind.name] = {"bytes": data.tobytes().hex(), "values": values.tobytes().hex()}
    print(json.dumps(out).replace('"bytes"', '\n"bytes"'))


main()
