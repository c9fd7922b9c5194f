#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Small random checkpoints of llama, qwen2 and bert as transformers saves them, with tokenizers of all kinds, and what
transformers computes from them. It writes tests/vectors/checkpoints:

    tests/reference/checkpoints.py tests/vectors/checkpoints

needs torch, transformers and tokenizers (made with 2.15.0, 5.24.0, 0.23.3). Each folder is a checkpoint, with an
expected.json beside its files: ids of texts, and losses and last logits of one list of ids, in float64; of bert the loss
and the logits of labels."""
import json
import os
import sys

import torch
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from architectures import uniform

TEXT = ("The patient was seen in the morning and slept well. She takes no tablets, walks a mile a day, and asks whether "
        "the pain in her knee will go away. They're 12345 steps; we'll see. ")
TEXTS = [TEXT, "a", " two  spaces", "Grüße, 世界 🙂\n\n\ttabs", "knee's 007", "<|end|>the<|end|>"]
QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
LLAMA3 = QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")


def sentencepiece_merges(pieces):
    """All ways to make a piece of two others, pieces in their order: what transformers makes of SentencePiece's scores."""
    return [(p[:i], p[i:]) for p in pieces for i in range(1, len(p)) if p[:i] in pieces and p[i:] in pieces]


def spm(vocabulary=None):
    """Llama 2's kind. vocabulary: (pieces by id, pieces by score); without it, one is made."""
    if vocabulary is None:
        trained = Tokenizer(models.BPE())
        trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
        trained.train_from_iterator([TEXT] * 4, trainers.BpeTrainer(vocab_size=110, show_progress=False))
        learned = sorted(trained.get_vocab().items(), key=lambda item: item[1])
        learned = {piece: None for piece, _ in learned}
        by_id = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)] + list(learned)
        by_score = learned
    else:
        by_id, by_score = vocabulary
    t = Tokenizer(models.BPE(vocab={p: i for i, p in enumerate(by_id)}, merges=sentencepiece_merges(by_score),
                             unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                   decoders.Strip(" ", 1, 0)])
    t.add_special_tokens([AddedToken(p, normalized=False) for p in ("<unk>", "<s>", "</s>")])
    t.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    return t


def byte_level(expression, ignore_merges=False):
    t = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if expression == QWEN2:
        t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(expression), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    t.post_processor = processors.ByteLevel(trim_offsets=False)
    t.train_from_iterator([TEXT] * 4, trainers.BpeTrainer(vocab_size=330, show_progress=False, min_frequency=1,
                                                          initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    t.add_special_tokens([AddedToken("<|begin|>", normalized=False), AddedToken("<|end|>", normalized=False)])
    t.add_tokens([AddedToken("<think>", normalized=False)])
    return t


def wordpiece():
    """BERT's kind, without capitals and accents."""
    t = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    t.normalizer = normalizers.BertNormalizer(lowercase=True)
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.decoder = decoders.WordPiece()
    t.train_from_iterator([TEXT, "世 界"], trainers.WordPieceTrainer(
        vocab_size=150, show_progress=False, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]))
    t.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, t.token_to_id(name)) for name in ("[CLS]", "[SEP]")])
    return t


def randomise(model):
    """Weights from their names, as the vectors of architectures.py have them."""
    for name, p in model.named_parameters():
        u = torch.tensor(2 * uniform(name, p.numel()) - 1).reshape(p.shape)
        if "LayerNorm.bias" in name:
            p.data = 0.3 * u
            continue
        p.data = 1 + 0.4 * u if "norm" in name.lower() else 0.3 * u if name.endswith("bias") else 1.5 / p.shape[-1]**0.5 * u


def cases():
    common = dict(hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                  max_position_embeddings=64)
    t = spm()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=t, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    rope = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                original_max_position_embeddings=32, rope_theta=500.0)
    yield "llama", tokenizer, torch.float32, transformers.LlamaForCausalLM(transformers.LlamaConfig(
        **common, vocab_size=t.get_vocab_size(), head_dim=8, attention_bias=True, mlp_bias=True, tie_word_embeddings=True,
        rope_parameters=rope, bos_token_id=1, eos_token_id=2))
    t = byte_level(QWEN2)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=t, eos_token="<|end|>")
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    rope = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16, rope_theta=300.0)
    yield "qwen2", tokenizer, torch.bfloat16, transformers.Qwen2ForCausalLM(transformers.Qwen2Config(
        **common, vocab_size=t.get_vocab_size() + 5, tie_word_embeddings=False, rope_parameters=rope,
        use_sliding_window=True, sliding_window=9, max_window_layers=1, bos_token_id=None,
        eos_token_id=t.token_to_id("<|end|>")))
    t = wordpiece()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=t, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
                                                     pad_token="[PAD]", mask_token="[MASK]")
    common.pop("num_key_value_heads")
    yield "bert", tokenizer, torch.float32, transformers.BertForSequenceClassification(transformers.BertConfig(
        **common, vocab_size=t.get_vocab_size(), id2label={0: "well", 1: "ill", 2: "who knows"}))


def save(folder, tokenizer, dtype, model, shard="60kB"):
    randomise(model)
    model.to(dtype).save_pretrained(folder, max_shard_size=shard)
    tokenizer.save_pretrained(folder)
    for name in ("generation_config.json",):
        if os.path.exists(os.path.join(folder, name)):
            os.remove(os.path.join(folder, name))
    kind = transformers.AutoModelForSequenceClassification if model.config.model_type == "bert" else transformers.AutoModelForCausalLM
    return kind.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager").eval()


def main():
    for name, tokenizer, dtype, model in cases():
        folder = os.path.join(sys.argv[1], name)
        os.makedirs(folder, exist_ok=True)
        model = save(folder, tokenizer, dtype, model)
        ids = [int(u * model.config.vocab_size) for u in uniform("ids of " + name, 50)]
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0]
        is_encoder = name == "bert"
        if is_encoder:
            losses, logits = -torch.log_softmax(logits, -1)[1:2], logits[None]
        else:
            losses = -torch.log_softmax(logits[:-1], -1)[torch.arange(len(ids) - 1), torch.tensor(ids[1:])]
        expected = {"ids": ids, "losses": [float(f"{x:.9g}") for x in losses],
                    "logits": [float(f"{x:.9g}") for x in logits[-1]]} | ({"label": 1} if is_encoder else {}) | {
                    "texts": [{"text": text, "ids": tokenizer(text)["input_ids"]} for text in TEXTS]}
        with open(os.path.join(folder, "expected.json"), "w") as file:
            json.dump(expected, file)
            file.write("\n")


if __name__ == "__main__":
    main()
