#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Train the base model on the base corpus and write it as a Q8_0 GGUF.

The tokenizer is a SentencePiece BPE of the same corpus. While training, a small share of its merges is left out at
random (BPE dropout), so that the pieces and letters that new names and words are spelled with are learned too: their
embeddings are frozen later, and an adapter could not make up for them.
"""
import argparse
import math
import pathlib
import random
import time

import gguf
import numpy as np
import sentencepiece
import torch

from tiny_llama import BOS, CONFIG, EOS, generate, init_weights, loss_sum

PROMPTS = ["Morning", "Evening", "Slept", "Took the", "Tomorrow", "Walked"]


def train_tokenizer(corpus, prefix, vocab):
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus), model_prefix=str(prefix), model_type="bpe", vocab_size=vocab, byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, add_dummy_prefix=True, split_digits=True,
        character_coverage=1.0, unk_id=0, bos_id=1, eos_id=2, pad_id=-1, num_threads=1, minloglevel=2)
    return sentencepiece.SentencePieceProcessor(model_file=str(prefix) + ".model")


def batches(tokenizer, notes, rng, batch, dropout):
    """Endless batches of notes of similar length."""
    while True:
        rng.shuffle(notes)
        for start in range(0, len(notes) - 16 * batch + 1, 16 * batch):
            pool = tokenizer.encode(notes[start:start + 16 * batch], enable_sampling=True, alpha=dropout, nbest_size=-1, num_threads=1)
            pool = sorted(([BOS] + ids + [EOS] for ids in pool), key=len)
            groups = [pool[i:i + batch] for i in range(0, len(pool), batch)]
            rng.shuffle(groups)
            yield from groups


def train(tokenizer, notes, held_out, args):
    torch.manual_seed(args.seed)
    sentencepiece.set_random_generator_seed(args.seed)  # of BPE dropout
    weights = {name: w.requires_grad_() for name, w in init_weights(CONFIG).items()}
    matrices = [w for w in weights.values() if w.dim() == 2]
    norms = [w for w in weights.values() if w.dim() == 1]
    optimizer = torch.optim.AdamW([dict(params=matrices, weight_decay=0.1), dict(params=norms, weight_decay=0.0)], betas=(0.9, 0.98))
    source, start = batches(tokenizer, notes, random.Random(args.seed), args.batch, args.dropout), time.time()
    for step in range(args.steps):
        rate = args.rate * min(1, (step + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / args.steps)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        total, count = loss_sum(weights, CONFIG, next(source))
        optimizer.zero_grad()
        (total / count).backward()
        torch.nn.utils.clip_grad_norm_(weights.values(), 1.0)
        optimizer.step()
        if step % 200 == 0 or step == args.steps - 1:
            with torch.no_grad():
                total, count = loss_sum(weights, CONFIG, held_out)
            print(f"step {step:5d}  held-out loss {total / count:.4f}  {time.time() - start:.0f} s", flush=True)
    return {name: w.detach() for name, w in weights.items()}


def write_gguf(path, weights, tokenizer):
    c = CONFIG
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("linnet-notes")
    writer.add_author("linnet")
    writer.add_license("Apache-2.0")
    writer.add_description("Micro language model for the linnet demo; texts, recipe and weights made by the linnet project")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(c["vocab"])
    writer.add_context_length(c["context"])
    writer.add_embedding_length(c["width"])
    writer.add_block_count(c["layers"])
    writer.add_feed_forward_length(c["feed_forward"])
    writer.add_head_count(c["heads"])
    writer.add_head_count_kv(c["kv_heads"])
    writer.add_layer_norm_rms_eps(c["eps"])
    writer.add_rope_dimension_count(c["width"] // c["heads"])
    writer.add_rope_freq_base(c["rope"])
    types = []
    for i in range(c["vocab"]):
        kind = gguf.TokenType.NORMAL
        if tokenizer.is_unknown(i):
            kind = gguf.TokenType.UNKNOWN
        elif tokenizer.is_control(i):
            kind = gguf.TokenType.CONTROL
        elif tokenizer.is_byte(i):
            kind = gguf.TokenType.BYTE
        types.append(int(kind))
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([tokenizer.id_to_piece(i) for i in range(c["vocab"])])
    writer.add_token_scores([tokenizer.get_score(i) for i in range(c["vocab"])])
    writer.add_token_types(types)
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOS)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(True)
    q8_0 = gguf.GGMLQuantizationType.Q8_0
    for name, weight in weights.items():
        values = weight.numpy().astype(np.float32)
        if values.ndim == 2:  # blocks of 32 along a row: a float16 scale max|x|/127, then 32 int8
            writer.add_tensor(name, gguf.quants.quantize(values, q8_0), raw_dtype=q8_0)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=pathlib.Path, required=True, help="base notes, one a line")
    parser.add_argument("--work", type=pathlib.Path, required=True, help="folder for the tokenizer's files")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="the GGUF to write")
    parser.add_argument("--steps", type=int, default=1800)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=4e-3)
    parser.add_argument("--dropout", type=float, default=0.05, help="share of BPE merges left out while training")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)  # sums in the same order every time

    tokenizer = train_tokenizer(args.corpus, args.work / "tokenizer", CONFIG["vocab"])
    notes = args.corpus.read_text().splitlines()
    held_out = [[BOS] + ids + [EOS] for ids in tokenizer.encode(notes[:400])]
    weights = train(tokenizer, notes[400:], held_out, args)
    write_gguf(args.out, weights, tokenizer)
    for prompt in PROMPTS:
        ids = tokenizer.encode(prompt)
        print(tokenizer.decode(ids + generate(weights, CONFIG, [BOS] + ids)))


if __name__ == "__main__":
    main()
