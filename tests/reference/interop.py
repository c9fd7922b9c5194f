#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Adapters there and back: for every architecture, linnet trains one that peft and llama.cpp load, and peft makes one that
linnet and llama.cpp load; all must find the same loss on the same text. So must they of checkpoints that transformers saves
and of GGUF files that linnet makes of them. Run through script/interop, which says what is not
on the machine.

usage: interop.py LINNET_CLIENT VOCABULARY.gguf WORDPIECES.gguf [LLAMA_PEER]"""
import json
import os
import shutil
import subprocess
import sys
import tempfile

import gguf
import numpy as np
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import processors

import architectures
import checkpoints

TOLERANCE = 1e-4
TEXT = ("The patient was seen in the morning and slept well. She takes no tablets, walks a mile a day, and asks whether "
        "the pain in her knee will go away.")
SHORT = "She slept well."
# what llama.cpp leaves out, so that its loss is another one on a longer text, or on any
NO_WINDOW = "llama.cpp has no window for this architecture: on a short text only"
LLAMA_CPP = {"mistral with a window": NO_WINDOW, "phi3 in a long context": NO_WINDOW,
             "phi3 in a short context": None}  # its contexts start at 256 tokens: long factors
GELU_TOLERANCE = 1e-2  # of encoders: llama.cpp has gelu in its tanh form there


def copy_tokenizer(reader, writer):
    for field in reader.fields.values():
        if field.name.startswith("tokenizer."):
            kinds = field.types
            writer.add_key_value(field.name, field.contents(), kinds[0], sub_type=kinds[-1] if len(kinds) > 1 else None)


def write_gguf(case, vocabulary, path):
    writer = gguf.GGUFWriter(path, case.file.architecture)
    reader = gguf.GGUFReader(vocabulary)
    for name, kind, value in case.file.keys:
        {"u32": writer.add_uint32, "f32": writer.add_float32, "text": writer.add_string, "bool": writer.add_bool,
         "texts": writer.add_array}[kind](name, value)
    copy_tokenizer(reader, writer)
    for name, values in case.file.values.items():
        writer.add_tensor(name, np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class Machine:
    def __init__(self, client, peer):
        self.client, self.peer = client, peer

    def linnet(self, *arguments):
        out = subprocess.run([self.client, *arguments, "--json"], capture_output=True, text=True)
        if out.returncode != 0:
            raise SystemExit(f"linnet-client {' '.join(arguments)}: {out.stderr}")
        return json.loads(out.stdout.splitlines()[-1])

    def loss(self, model, data, adapter=None, context=None):
        more = (["--adapter", adapter] if adapter else []) + (["--context", str(context)] if context else [])
        return self.linnet("evaluate", "--model", model, "--data", data, "--end-token", "off", *more)["loss"]

    def llama(self, model, text, adapter=None, greedy=0):
        more = [adapter, "1"] if adapter else []
        out = subprocess.run([self.peer, model, text, str(greedy), *more], capture_output=True, text=True)
        if out.returncode != 0:
            raise SystemExit(f"llama_peer {model}: {out.stderr}")
        return json.loads(out.stdout)


def torch_loss(model, ids, losses=architectures.token_losses):
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits
    return float(losses(logits, ids).mean())


def label_loss(logits, label):
    return float(-torch.log_softmax(torch.tensor(logits, dtype=torch.float64), -1)[label])


class Run:
    def __init__(self, machine, folder, vocabulary, wordpieces):
        self.machine, self.folder, self.vocabulary, self.n_wrong = machine, folder, vocabulary, 0
        self.wordpieces = wordpieces  # of encoders

    def compare(self, what, got, want, tolerance=TOLERANCE):
        good = abs(got - want) <= tolerance * max(1.0, abs(want))
        self.n_wrong += not good
        print(f"    {what:44s} {got:.6f} {want:.6f} {'' if good else 'DIFFERS'}", flush=True)

    def write_text(self, name, text, **more):
        path = os.path.join(self.folder, name + ".jsonl")
        with open(path, "w") as file:
            file.write(json.dumps({"text": text} | more) + "\n")
        return path

    def case(self, case):
        m, name = self.machine, case.name
        print(name, flush=True)
        base = os.path.join(self.folder, "base.gguf")
        case.write_tensors()
        case.load()
        is_encoder = isinstance(case, architectures.BertCase)
        write_gguf(case, self.wordpieces if is_encoder else self.vocabulary, base)
        context = case.options.get("run_context")
        has_llama = m.peer and LLAMA_CPP.get(name, "") is not None
        text = SHORT if context else TEXT
        llama_text = SHORT if LLAMA_CPP.get(name) else text
        if m.peer and name in LLAMA_CPP:
            print("   ", LLAMA_CPP[name] or "not compared with llama.cpp: its contexts start at 256 tokens")
        data, llama_data = self.write_text("text", text, **case.more()), self.write_text("llama", llama_text, **case.more())
        if is_encoder:
            ids = m.linnet("tokenize", "--model", base, "--text", text, "--special")["ids"]
            has_llama = has_llama and any(key.endswith("output_labels") for key, *_ in case.file.keys)  # else it has one label
        else:
            ids = [1] + m.linnet("tokenize", "--model", base, "--text", text)["ids"]

        def compare_llama(what, adapter=None):
            if not has_llama:
                return
            if is_encoder:
                if adapter is not None:  # whose head llama.cpp does not apply: merged
                    merged = os.path.join(self.folder, "merged.gguf")
                    m.linnet("adapter", "merge", "--model", base, "--adapter", adapter, "--type", "F32", "--out", merged)
                out = m.llama(base if adapter is None else merged, llama_text)
                assert out["ids"] == ids, "other ids"
                self.compare(what, m.loss(base, llama_data, adapter), label_loss(out["labels"], case.label), GELU_TOLERANCE)
                return
            out = m.llama(base, llama_text, adapter)
            assert out["ids"][1:] == m.linnet("tokenize", "--model", base, "--text", llama_text)["ids"], "other ids"
            self.compare(what, m.loss(base, llama_data, adapter), float(np.mean(out["losses"])))

        # the bare model
        loss = m.loss(base, data, context=context)
        self.compare("base: linnet, transformers", loss, torch_loss(case.model, ids, case.losses))
        compare_llama("base: linnet, llama.cpp")
        # linnet's adapter elsewhere
        out = os.path.join(self.folder, "trained")
        shutil.rmtree(out, ignore_errors=True)
        more = ["--context", str(context)] if context else []
        trained = m.linnet("train", "--model", base, "--data", data, "--out", out, "--rank", "4", "--alpha", "8", "--steps", "6",
                           "--targets", "attn_*:2:5,all",
                           "--learning-rate", "1e-2", "--batch", "1", "--end-token", "off", *more)
        loss = m.loss(base, data, out, context)
        assert loss < trained["loss_first"], "training did not help"
        peft_model = PeftModel.from_pretrained(case.model, out).double().eval()
        self.compare("trained by linnet: linnet, peft", loss, torch_loss(peft_model, ids, case.losses))
        case.model = peft_model.unload()
        converted = os.path.join(self.folder, "adapter.gguf")
        m.linnet("adapter", "convert", "--model", base, "--adapter", out, "--format", "gguf", "--out", converted)
        self.compare("trained by linnet: linnet, as GGUF", loss, m.loss(base, data, converted, context))
        compare_llama("trained by linnet: linnet, llama.cpp", converted)
        # peft's adapter here
        targets = sorted({module for module, *_ in case.modules.values()})
        ranks, alphas = {targets[0]: 2}, {targets[-1]: 3}
        peft_model = get_peft_model(case.model, LoraConfig(r=4, lora_alpha=8, target_modules=targets, use_rslora=True,
                                                           rank_pattern=ranks, alpha_pattern=alphas,
                                                           fan_in_fan_out=case.file.architecture == "gpt2"))
        torch.manual_seed(1)
        for parameter in peft_model.parameters():
            if parameter.requires_grad:
                parameter.data = 0.2 * torch.randn_like(parameter)
                parameter.data = parameter.data.float().double()
        peft_model.eval()
        made = os.path.join(self.folder, "made")
        shutil.rmtree(made, ignore_errors=True)
        peft_model.float().save_pretrained(made)
        peft_model.double()
        loss = torch_loss(peft_model, ids, case.losses)
        self.compare("made by peft: linnet, peft", m.loss(base, data, made, context), loss)
        m.linnet("adapter", "convert", "--model", base, "--adapter", made, "--format", "gguf", "--out", converted)
        compare_llama("made by peft: linnet, llama.cpp", converted)
        if case.file.architecture == "gpt2":
            return  # peft's DoRA takes the lengths of columns there
        peft_model = get_peft_model(peft_model.unload(), LoraConfig(r=3, lora_alpha=6, target_modules=targets, use_dora=True))
        for name, parameter in peft_model.named_parameters():
            if parameter.requires_grad:
                noise = torch.randn_like(parameter)
                parameter.data = (parameter.data * (1 + 0.2 * noise) if "magnitude" in name else 0.2 * noise).float().double()
        peft_model.eval()
        shutil.rmtree(made, ignore_errors=True)
        loss = torch_loss(peft_model, ids, case.losses)
        peft_model.float().save_pretrained(made)
        self.compare("DoRA by peft: linnet, peft", m.loss(base, data, made, context), loss)
        merged = os.path.join(self.folder, "merged.gguf")
        m.linnet("adapter", "merge", "--model", base, "--adapter", made, "--type", "F32", "--out", merged)
        self.compare("DoRA by peft, merged: linnet, peft", m.loss(merged, data, None, context), loss)


# ---- types of weights, beside llama.cpp ----

TYPES = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "IQ4_NL", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"]
HALVES = {"IQ4_NL": [0], "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}
# llama.cpp rounds activations to eight bits, or to halves; linnet does not
LOSS_TOLERANCE = {"F32": 1e-4, "F16": 2e-3, "BF16": 2e-2}


def weights_of(kind, rows, columns, seed):
    """Random weights of about 1 / sqrt(columns), as bytes of the type."""
    generator, size = np.random.default_rng(seed), 1 / np.sqrt(columns)
    if kind not in HALVES:
        return gguf.quants.quantize((size * generator.standard_normal((rows, columns))).astype(np.float32),
                                    gguf.GGMLQuantizationType[kind])
    elements, n_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    data = generator.integers(0, 256, (rows * columns // elements, n_bytes), dtype=np.uint8)

    def set_halves(value):
        for at in HALVES[kind]:
            data[:, at:at + 2] = np.frombuffer(np.float16(value).tobytes(), np.uint8)

    set_halves(1)
    set_halves(size / gguf.quants.dequantize(data.reshape(-1), gguf.GGMLQuantizationType[kind]).std())
    return data.reshape(rows, -1)


def write_typed(kind, vocabulary, path):
    """A llama of 512 x 1536, 3 layers, 8 heads on 4, with all matrices of one type."""
    width, ffn, layers = 512, 1536, 3
    reader = gguf.GGUFReader(vocabulary)
    n = len(reader.get_field("tokenizer.ggml.tokens").contents())
    writer = gguf.GGUFWriter(path, "llama")
    for name, value in (("block_count", layers), ("embedding_length", width), ("feed_forward_length", ffn), ("context_length", 512),
                        ("attention.head_count", 8), ("attention.head_count_kv", 4)):
        writer.add_uint32("llama." + name, value)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    copy_tokenizer(reader, writer)
    shapes = {"token_embd": (n, width), "output": (n, width)}
    for i in range(layers):
        shapes |= {f"blk.{i}.{stem}": shape for stem, shape in (
            ("attn_q", (width, width)), ("attn_k", (width // 2, width)), ("attn_v", (width // 2, width)),
            ("attn_output", (width, width)), ("ffn_gate", (ffn, width)), ("ffn_up", (ffn, width)), ("ffn_down", (width, ffn)))}
    for seed, (name, (rows, columns)) in enumerate(shapes.items()):
        # llama.cpp has no rows of some types: the embedding stays one that it has
        own = "F16" if name == "token_embd" and kind in HALVES else kind
        data = weights_of(own, rows, columns, seed)
        if name == "token_embd" and own in ("F32", "F16"):
            data = data * data.dtype.type(np.sqrt(width))
        writer.add_tensor(name + ".weight", data, raw_dtype=gguf.GGMLQuantizationType[own])
    for i in range(layers):
        for stem in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{i}.{stem}.weight", np.ones(width, np.float32))
    writer.add_tensor("output_norm.weight", np.full(width, 3, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def compare_types(run):
    m = run.machine
    print("types of weights: loss with linnet, llama.cpp; greedy tokens that agree")
    data = run.write_text("text", TEXT)
    for kind in TYPES:
        path = os.path.join(run.folder, "typed.gguf")
        write_typed(kind, run.vocabulary, path)
        out = m.llama(path, TEXT, greedy=32)
        loss, other = m.loss(path, data), float(np.mean(out["losses"]))
        ids = m.linnet("generate", "--model", path, "--prompt", TEXT, "--tokens", "32")["ids"]
        same = sum(1 for a, b in zip(ids, out["greedy"]) if a == b)
        good = abs(loss - other) <= LOSS_TOLERANCE.get(kind, 0.1) and (kind != "F32" or ids == out["greedy"])
        run.n_wrong += not good
        print(f"    {kind:8s} {loss:.6f} {other:.6f}  {same} of 32 {'' if good else 'DIFFERS'}", flush=True)


# ---- checkpoints of Hugging Face ----

CHECKPOINT_TOLERANCE = {"F16": 2e-3, "Q8_0": 5e-2}  # beside llama.cpp, as above


def checkpoint_cases(vocabulary):
    T = transformers
    common = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                  max_position_embeddings=512)
    reader = gguf.GGUFReader(vocabulary)
    pieces = reader.get_field("tokenizer.ggml.tokens").contents()
    scores = reader.get_field("tokenizer.ggml.scores").contents()
    types = reader.get_field("tokenizer.ggml.token_type").contents()
    normal = sorted((i for i in range(len(pieces)) if types[i] == 1), key=lambda i: (-scores[i], i))
    spm = checkpoints.spm((pieces, {pieces[i]: None for i in normal}))
    spm = T.PreTrainedTokenizerFast(tokenizer_object=spm, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    llama3 = checkpoints.byte_level(checkpoints.LLAMA3, ignore_merges=True)
    begin = llama3.token_to_id("<|begin|>")
    llama3.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", begin)])])
    llama3 = T.PreTrainedTokenizerFast(tokenizer_object=llama3, bos_token="<|begin|>", eos_token="<|end|>")
    qwen2 = T.PreTrainedTokenizerFast(tokenizer_object=checkpoints.byte_level(checkpoints.QWEN2), eos_token="<|end|>")
    yield "llama 2's vocabulary", spm, torch.float16, T.LlamaForCausalLM(T.LlamaConfig(
        **common, vocab_size=len(pieces), tie_word_embeddings=False))
    yield "llama 3's frequencies, biases", llama3, torch.bfloat16, T.LlamaForCausalLM(T.LlamaConfig(
        **common, vocab_size=len(llama3), head_dim=32, attention_bias=True, tie_word_embeddings=True,
        rope_parameters=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                             original_max_position_embeddings=128, rope_theta=500000.0)))
    yield "llama, linear scaling", llama3, torch.float32, T.LlamaForCausalLM(T.LlamaConfig(
        **common, vocab_size=len(llama3) + 3, tie_word_embeddings=False,
        rope_parameters=dict(rope_type="linear", factor=2.0, rope_theta=10000.0)))
    yield "qwen2", qwen2, torch.bfloat16, T.Qwen2ForCausalLM(T.Qwen2Config(
        **common, vocab_size=len(qwen2) + 9, tie_word_embeddings=True, bos_token_id=None))
    yield "qwen2, YaRN", qwen2, torch.float32, T.Qwen2ForCausalLM(T.Qwen2Config(
        **common, vocab_size=len(qwen2), tie_word_embeddings=False, bos_token_id=None,
        rope_parameters=dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=128, rope_theta=1e6)))


def compare_checkpoints(run):
    """linnet reads what transformers saved, trains on it what peft loads, and makes GGUF files of it for llama.cpp."""
    m = run.machine
    for name, tokenizer, dtype, model in checkpoint_cases(run.vocabulary):
        print("checkpoint:", name, flush=True)
        folder, out = os.path.join(run.folder, "checkpoint"), os.path.join(run.folder, "trained")
        for path in (folder, out):
            shutil.rmtree(path, ignore_errors=True)
        os.mkdir(folder)
        model = checkpoints.save(folder, tokenizer, dtype, model, shard="200kB")
        for text in checkpoints.TEXTS:
            got = m.linnet("tokenize", "--model", folder, "--text", text, "--special")["ids"]
            if got != tokenizer(text)["input_ids"]:
                run.n_wrong += 1
                print(f"    '{text}': ids DIFFER")
        data, ids = run.write_text("text", TEXT), tokenizer(TEXT)["input_ids"]
        run.compare("linnet, transformers", m.loss(folder, data), torch_loss(model, ids))
        m.linnet("train", "--model", folder, "--data", data, "--out", out, "--rank", "4", "--alpha", "8", "--steps", "6",
                 "--targets", "all", "--learning-rate", "1e-2", "--batch", "1", "--end-token", "off")
        loss = m.loss(folder, data, out)
        run.compare("trained by linnet: linnet, peft", loss, torch_loss(PeftModel.from_pretrained(model, out).double().eval(), ids))
        converted, merged = os.path.join(run.folder, "adapter.gguf"), os.path.join(run.folder, "merged.gguf")
        m.linnet("adapter", "convert", "--model", folder, "--adapter", out, "--format", "gguf", "--out", converted)
        run.compare("trained by linnet: linnet, as GGUF", loss, m.loss(folder, data, converted))
        m.linnet("adapter", "merge", "--model", folder, "--adapter", out, "--type", "F32", "--out", merged)
        run.compare("trained by linnet: linnet, merged", loss, m.loss(merged, data))
        for kind, tolerance in CHECKPOINT_TOLERANCE.items():
            path = os.path.join(run.folder, "quantised.gguf")
            m.linnet("quantize", "--model", folder, "--type", kind, "--out", path)
            if not m.peer:
                continue
            for adapter in (None, converted):
                other = m.llama(path, TEXT, adapter)
                if other["ids"] != ids:
                    run.n_wrong += 1
                    print(f"    llama.cpp's ids DIFFER: {other['ids'][:8]}, {ids[:8]}")
                    continue
                what = f"{kind}{', adapted' if adapter else ''}: linnet, llama.cpp"
                run.compare(what, m.loss(path, data, adapter), float(np.mean(other["losses"])), tolerance)


def compare_encoder_checkpoint(run):
    """A checkpoint with labels, its adapter in peft, and the GGUF file that linnet makes of it in llama.cpp."""
    T, m, label = transformers, run.machine, 1
    print("checkpoint: bert", flush=True)
    tokenizer = T.PreTrainedTokenizerFast(tokenizer_object=checkpoints.wordpiece(), unk_token="[UNK]", cls_token="[CLS]",
                                          sep_token="[SEP]", pad_token="[PAD]")
    model = T.BertForSequenceClassification(T.BertConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=512,
        vocab_size=len(tokenizer), id2label={0: "well", 1: "ill", 2: "who knows"}))
    folder, out = os.path.join(run.folder, "encoder"), os.path.join(run.folder, "encoder-trained")
    model = checkpoints.save(folder, tokenizer, torch.float32, model)
    ids, data = tokenizer(TEXT)["input_ids"], run.write_text("label", TEXT, label="ill")

    def loss_of(model):
        with torch.no_grad():
            return label_loss(model(torch.tensor([ids])).logits[0].tolist(), label)

    run.compare("linnet, transformers", m.loss(folder, data), loss_of(model))
    m.linnet("train", "--model", folder, "--data", data, "--out", out, "--rank", "4", "--steps", "6", "--learning-rate", "1e-2")
    loss = m.loss(folder, data, out)
    run.compare("trained by linnet: linnet, peft", loss, loss_of(PeftModel.from_pretrained(model, out).double().eval()))
    path = os.path.join(run.folder, "encoder.gguf")
    m.linnet("adapter", "merge", "--model", folder, "--adapter", out, "--type", "F32", "--out", path)
    run.compare("trained by linnet: linnet, merged", loss, m.loss(path, data))
    if m.peer:
        other = m.llama(path, TEXT)
        assert other["ids"] == ids, "other ids"
        run.compare("merged: linnet, llama.cpp", loss, label_loss(other["labels"], label), GELU_TOLERANCE)


def main():
    client, vocabulary, wordpieces = sys.argv[1:4]
    peer = sys.argv[4] if len(sys.argv) > 4 else None
    n, n_wordpieces = (len(gguf.GGUFReader(path).get_field("tokenizer.ggml.tokens").contents())
                       for path in (vocabulary, wordpieces))
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Machine(client, peer), folder, vocabulary, wordpieces)
        compare_checkpoints(run)
        compare_encoder_checkpoint(run)
        if peer:
            compare_types(run)
        for case in (*architectures.encoder_cases(n_wordpieces), *architectures.cases(n)):
            run.case(case)
    print(f"{run.n_wrong} differences beyond {TOLERANCE}")
    sys.exit(run.n_wrong > 0)


if __name__ == "__main__":
    main()
