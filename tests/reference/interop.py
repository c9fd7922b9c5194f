#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Adapters there and back: for every architecture, linnet trains one that peft and llama.cpp load, and peft makes one that
linnet and llama.cpp load; all must find the same loss on the same text. Run through script/interop, which says what is not
on the machine.

usage: interop.py LINNET_CLIENT VOCABULARY.gguf [LLAMA_PEER]"""
import json
import os
import shutil
import subprocess
import sys
import tempfile

import gguf
import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model

import architectures

TOLERANCE = 1e-4
TEXT = ("The patient was seen in the morning and slept well. She takes no tablets, walks a mile a day, and asks whether "
        "the pain in her knee will go away.")
SHORT = "She slept well."
# what llama.cpp leaves out, so that its loss is another one on a longer text, or on any
NO_WINDOW = "llama.cpp has no window for this architecture: on a short text only"
LLAMA_CPP = {"mistral with a window": NO_WINDOW, "phi3 in a long context": NO_WINDOW,
             "phi3 in a short context": None}  # its contexts start at 256 tokens: long factors


def write_gguf(case, vocabulary, path):
    writer = gguf.GGUFWriter(path, case.file.architecture)
    reader = gguf.GGUFReader(vocabulary)
    for name, kind, value in case.file.keys:
        {"u32": writer.add_uint32, "f32": writer.add_float32, "text": writer.add_string}[kind](name, value)
    for field in reader.fields.values():
        if field.name.startswith("tokenizer."):
            kinds = field.types
            writer.add_key_value(field.name, field.contents(), kinds[0], sub_type=kinds[-1] if len(kinds) > 1 else None)
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

    def llama(self, model, text, adapter=None):
        more = [adapter, "1"] if adapter else []
        out = subprocess.run([self.peer, model, text, "0", *more], capture_output=True, text=True)
        if out.returncode != 0:
            raise SystemExit(f"llama_peer {model}: {out.stderr}")
        return json.loads(out.stdout)


def torch_loss(model, ids):
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits
    return float(architectures.Case.losses(logits, ids).mean())


class Run:
    def __init__(self, machine, folder, vocabulary):
        self.machine, self.folder, self.vocabulary, self.n_wrong = machine, folder, vocabulary, 0

    def compare(self, what, got, want):
        good = abs(got - want) <= TOLERANCE * max(1.0, abs(want))
        self.n_wrong += not good
        print(f"    {what:44s} {got:.6f} {want:.6f} {'' if good else 'DIFFERS'}", flush=True)

    def write_text(self, name, text):
        path = os.path.join(self.folder, name + ".jsonl")
        with open(path, "w") as file:
            file.write(json.dumps({"text": text}) + "\n")
        return path

    def case(self, case):
        m, name = self.machine, case.name
        print(name, flush=True)
        base = os.path.join(self.folder, "base.gguf")
        case.write_tensors()
        case.load()
        write_gguf(case, self.vocabulary, base)
        context = case.options.get("run_context")
        has_llama = m.peer and LLAMA_CPP.get(name, "") is not None
        text = SHORT if context else TEXT
        llama_text = SHORT if LLAMA_CPP.get(name) else text
        if m.peer and name in LLAMA_CPP:
            print("   ", LLAMA_CPP[name] or "not compared with llama.cpp: its contexts start at 256 tokens")
        data, llama_data = self.write_text("text", text), self.write_text("llama", llama_text)
        ids = [1] + m.linnet("tokenize", "--model", base, "--text", text)["ids"]

        def compare_llama(what, adapter=None):
            if not has_llama:
                return
            out = m.llama(base, llama_text, adapter)
            assert out["ids"][1:] == m.linnet("tokenize", "--model", base, "--text", llama_text)["ids"], "other ids"
            self.compare(what, m.loss(base, llama_data, adapter), float(np.mean(out["losses"])))

        # the bare model
        loss = m.loss(base, data, context=context)
        self.compare("base: linnet, transformers", loss, torch_loss(case.model, ids))
        compare_llama("base: linnet, llama.cpp")
        # linnet's adapter elsewhere
        out = os.path.join(self.folder, "trained")
        shutil.rmtree(out, ignore_errors=True)
        more = ["--context", str(context)] if context else []
        trained = m.linnet("train", "--model", base, "--data", data, "--out", out, "--rank", "4", "--alpha", "8", "--steps", "6",
                           "--learning-rate", "1e-2", "--batch", "1", "--end-token", "off", *more)
        loss = m.loss(base, data, out, context)
        assert loss < trained["loss_first"], "training did not help"
        peft_model = PeftModel.from_pretrained(case.model, out).double().eval()
        self.compare("trained by linnet: linnet, peft", loss, torch_loss(peft_model, ids))
        case.model = peft_model.unload()
        converted = os.path.join(self.folder, "adapter.gguf")
        m.linnet("adapter", "convert", "--model", base, "--adapter", out, "--format", "gguf", "--out", converted)
        self.compare("trained by linnet: linnet, as GGUF", loss, m.loss(base, data, converted, context))
        compare_llama("trained by linnet: linnet, llama.cpp", converted)
        # peft's adapter here
        targets = sorted({module for module, *_ in case.modules.values()})
        peft_model = get_peft_model(case.model, LoraConfig(r=4, lora_alpha=8, target_modules=targets, use_rslora=True,
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
        loss = torch_loss(peft_model, ids)
        self.compare("made by peft: linnet, peft", m.loss(base, data, made, context), loss)
        m.linnet("adapter", "convert", "--model", base, "--adapter", made, "--format", "gguf", "--out", converted)
        compare_llama("made by peft: linnet, llama.cpp", converted)


def main():
    client, vocabulary = sys.argv[1:3]
    peer = sys.argv[3] if len(sys.argv) > 3 else None
    n = len(gguf.GGUFReader(vocabulary).get_field("tokenizer.ggml.tokens").contents())
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Machine(client, peer), folder, vocabulary)
        for case in architectures.cases(n):
            run.case(case)
    print(f"{run.n_wrong} differences beyond {TOLERANCE}")
    sys.exit(run.n_wrong > 0)


main()
