#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write the texts of the demo: the corpus of the base model and the notes of sixteen device owners.

Everything comes from the two grammars and owners.ini beside this file and from a seed; same seed, same bytes. Only
random.Random.random() is used, whose stream Python promises to keep.

The owners are made to be unlike one another and still have something to teach each other. Each has a few topics at
heart and writes mostly about those in the training notes; in the later, held-out notes all topics come up about
equally. So an owner alone has hardly seen half of what the test asks, while the fleet as a whole has seen all of it.
"""
import argparse
import configparser
import json
import pathlib
import random
import re

HERE = pathlib.Path(__file__).resolve().parent
TOPICS = ["sleep", "walk", "meal", "medicine", "visit", "pulse", "mood", "move", "lantern"]
HOME_SHARE_TRAIN = 0.85  # of an owner's training notes; the rest is spread over all topics
N_TEST = 14  # held-out notes of an owner

# Made-up names for the base corpus, so that the base has spelled words it did not know.
ONSETS = "b br c ch d dr f fl g gr h j k l m n p pr qu r s sh sk st t th tr v w x y z".split()
VOWELS = "a e i o u a e i o u ai ea ee ia oo ou".split()
CODAS = [""] * 8 + "n r l s m t d k".split()


class Draw:
    """The few draws that are needed, all from random()."""

    def __init__(self, seed):
        self.random = random.Random(seed).random

    def index(self, n):
        return int(self.random() * n)

    def choice(self, items):
        return items[self.index(len(items))]

    def shuffled(self, items):
        items = list(items)
        for i in range(len(items) - 1, 0, -1):
            j = self.index(i + 1)
            items[i], items[j] = items[j], items[i]
        return items

    def new_name(self):
        n_syllables = 2 + self.index(2)
        name = "".join(self.choice(ONSETS) + self.choice(VOWELS) + self.choice(CODAS) for _ in range(n_syllables))
        if self.random() < 0.2:
            name = self.choice("aeiou") + name
        return name.capitalize()


def alternatives(text):
    """'a | 3* b' -> [a, b, b, b]"""
    found = []
    for part in text.split("|"):
        times, body = re.fullmatch(r"(?:(\d+)\*\s)?(.*)", part.strip()).groups()
        found += [body] * int(times or 1)
    return found


def read_grammar(path):
    """Slot -> list of alternatives."""
    joined = []
    for line in path.read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        if line[0].isspace():
            joined[-1] += " " + line.strip()
        else:
            joined.append(line)
    return {slot.strip(): alternatives(body) for slot, body in (line.split("=", 1) for line in joined)}


def expand(grammar, draw, slot):
    """One random text of a slot; {Slot} gives it a capital."""

    def replaced(match):
        name = match.group(1)
        if name == "newname":
            return draw.new_name()
        if name in grammar:
            return expand(grammar, draw, name)
        text = expand(grammar, draw, name[0].lower() + name[1:])
        return text[0].upper() + text[1:]

    return re.sub(r"\{(\w+)\}", replaced, draw.choice(grammar[slot]))


def base_notes(seed, n_notes):
    grammar, draw = read_grammar(HERE / "base-grammar.txt"), Draw(f"base {seed}")
    for _ in range(n_notes):
        text = expand(grammar, draw, "note")
        yield text[0].upper() + text[1:]


def owner_notes(seed):
    """(client, training notes, test notes) of every owner. No test note is a training note of the same owner."""
    owners = configparser.ConfigParser()
    owners.read(HERE / "owners.ini")
    shared = read_grammar(HERE / "fleet-grammar.txt")
    for client in owners.sections():
        owner = owners[client]
        own = {key.upper(): alternatives(value) for key, value in owner.items() if key not in ("home", "notes")}
        grammar, draw = {**shared, **own}, Draw(f"owner {seed} {client}")
        home = [topic.strip() for topic in owner["home"].split(",")]
        seen, train, test = set(), [], []

        def add(notes, topic):
            text = expand(grammar, draw, topic)
            while text in seen:
                text = expand(grammar, draw, topic)
            seen.add(text)
            notes.append(text)

        while len(train) < int(owner["notes"]):
            add(train, draw.choice(home if draw.random() < HOME_SHARE_TRAIN else TOPICS))
        topics = draw.shuffled(TOPICS) + draw.shuffled(TOPICS)
        for topic in topics[:N_TEST]:
            add(test, topic)
        yield client, train, test


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=pathlib.Path, default=HERE, help="folder of notes-train.jsonl and notes-test.jsonl")
    parser.add_argument("--base", type=pathlib.Path, help="also write the base corpus here, one note a line")
    parser.add_argument("--base-notes", type=int, default=120000, help="notes in the base corpus")
    args = parser.parse_args()

    with open(args.out / "notes-train.jsonl", "w") as train_file, open(args.out / "notes-test.jsonl", "w") as test_file:
        for client, train, test in owner_notes(args.seed):
            for file, notes in ((train_file, train), (test_file, test)):
                for text in notes:
                    file.write(json.dumps({"client": client, "text": text}) + "\n")
    if args.base:
        with open(args.base, "w") as file:
            for text in base_notes(args.seed, args.base_notes):
                file.write(text + "\n")


if __name__ == "__main__":
    main()
