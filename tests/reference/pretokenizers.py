#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Cuts of the model families' pre-tokenizers, by Hugging Face's tokenizers and the expressions that the publishers give
in tokenizer.json or beside their rank files. Writes tests/vectors/pretokenizers.json: texts, and for each family the
bytes of every piece of every text.

usage: pretokenizers.py > tests/vectors/pretokenizers.json      (needs: tokenizers)
"""
import json
import random
import unicodedata

from tokenizers import Regex
from tokenizers import pre_tokenizers as pre

SHORT = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
LLAMA3 = SHORT + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
CASED = (r"[^\r\n\p{L}\p{N}]?" + UPPER + "*" + LOWER + "+{s}|" + r"[^\r\n\p{L}\p{N}]?" + UPPER + "+" + LOWER + "*{s}|{n}|"
         + r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
HAN = "[一-龥ࠀ-一가-퟿]+"
FAMILIES = {
    "gpt-2": [GPT2],
    "llama-bpe": [LLAMA3],
    "qwen2": [LLAMA3.replace("{1,3}", "")],
    "qwen35": [LLAMA3.replace("{1,3}", "").replace(r"?\p{L}+", r"?[\p{L}\p{M}]+").replace(r"\s\p{L}\p{N}]+", r"\s\p{L}\p{M}\p{N}]+")],
    "starcoder": [r"\p{N}", GPT2],
    "falcon": [r"[\p{P}$+<=>^~|`]+", GPT2, "[0-9][0-9][0-9]"],
    "deepseek-coder": [r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", HAN, r"\p{N}"],
    "deepseek-v3": [r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+",
                    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"],
    "gpt-4o": [CASED.replace("{s}", SHORT + "?").replace("{n}", r"\p{N}{1,3}")],
    "tekken": [CASED.replace("{s}", "").replace("{n}", r"\p{N}")],
    "bloom": [r" ?[^(\s|.,!?…。，、।۔،)]+"],
}

TEXTS = [
    "It's 12345 DON'T HelloWorld, XMLHttpRequest's caf\u00e9\u3000x\n\n  y \u0e01\u0e49 --> ok_1",
    " \t\tdef f(x):\r\n\r\n    return x**2 + 0x1F  # 3\u00d74\u00b2\n",
    "\u4f60\u597d\uff0c\u4e16\u754c\u3002 \ud55c\uad6d\uc5b4 \u3072\u3089\u304c\u306a \U0001f600\U0001f1e9\U0001f1ea e\u0301 \u0938\u094d\u0935\u093e\u0917\u0924",
    "it'S we'LL 'tis I'\u017f ''' 'd 've\u2019s\u180ex\u00a0y\u2028z\u0085 \x1c.",
    "   ", "\n", " \n \n", "a  b   c    ", "\u00a0\u00a0\u00a0a", "1 22 333 4444 55555 \u0661\u0662\u0663\u0664 \u216b\u00bd",
    "$a+b=c<d>e^f~g|h`i!j", "\u01c5\u01c5 AaA a\u0300A\u0300 \u02b0\u02b0B /path/to//file/\r\n/",
]


def random_text(rng, letters):
    parts = []
    for _ in range(30):
        kind = rng.random()
        if kind < 0.3:
            parts.append(rng.choice([" ", "  ", "\n", "\t", "\r\n", "\u00a0", "\u3000"]) * rng.choice([1, 1, 1, 2, 3]))
        elif kind < 0.6:
            parts.append("".join(rng.choice("abcXYZ019'.,!-_$+=") for _ in range(rng.randint(1, 6))))
        elif kind < 0.7:
            parts.append("'" + rng.choice(["s", "S", "ll", "Re", "VE", "d", "x"]))
        else:
            parts.append("".join(rng.choice(letters) for _ in range(rng.randint(1, 3))))
    return "".join(parts)


def main():
    rng = random.Random(7)
    # Unicode 3.2 and what stayed as it was: engines differ in how new their tables are.
    old = unicodedata.ucd_3_2_0
    letters = [chr(c) for c in range(1, 0x2FA20)
               if old.category(chr(c)) not in ("Cn", "Cs", "Co") and old.category(chr(c)) == unicodedata.category(chr(c))]
    texts = TEXTS + [random_text(rng, letters) for _ in range(40)]
    cuts = {}
    for name, expressions in FAMILIES.items():
        split = pre.Sequence([pre.Split(Regex(e), "isolated") for e in expressions])
        cuts[name] = [[len(piece.encode()) for piece, _ in split.pre_tokenize_str(text)] for text in texts]
        for text, sizes in zip(texts, cuts[name]):
            assert sum(sizes) == len(text.encode()), name
    print(json.dumps({"origin": "tests/reference/pretokenizers.py", "texts": texts, "cuts": cuts}, separators=(",", ":")))


main()
