# SPDX-License-Identifier: Apache-2.0
"""The stock OpenAI client against linnet-client serve: chat, completion, streams, stop strings, limits, cancelled
requests, 32 clients at once; then load for so many seconds, in which the server's memory must not grow.

usage: openai_client.py LINNET_CLIENT MODEL.gguf [SECONDS]     (needs: openai)"""
import json
import random
import subprocess
import sys
import threading
import time

import openai

CLIENTS = 32
GROWTH_MAX = 4 << 20  # bytes of RSS between the middle and the end of the load


class Server:
    def __init__(self, program, model, *more):
        line = [program, "serve", "--model", model, "--listen", "127.0.0.1:0", "--json", *more]
        self.process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
        event = json.loads(self.process.stdout.readline())
        assert event["event"] == "listening", event
        self.url = event["url"]
        self.statuses = {}
        threading.Thread(target=self.drain, daemon=True).start()

    def drain(self):
        for line in self.process.stdout:
            event = json.loads(line)
            if event["event"] == "request":
                self.statuses[event["status"]] = self.statuses.get(event["status"], 0) + 1

    def client(self):
        return openai.OpenAI(base_url=self.url, api_key="none", max_retries=0)

    def rss(self):
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as status:
            return int(next(line for line in status if line.startswith("VmRSS")).split()[1]) << 10

    def stop(self):
        self.process.terminate()
        assert self.process.wait(60) == 0


def check_answers(server):
    client = server.client()
    assert len(client.models.list().data) == 1
    talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How was the day?"}]
    whole = client.chat.completions.create(model="any", messages=talk, max_tokens=24, seed=1)
    stream = client.chat.completions.create(model="any", messages=talk, max_tokens=24, seed=1, stream=True,
                                            stream_options={"include_usage": True})
    text, usage, finish = "", None, None
    for event in stream:
        usage = event.usage or usage
        for choice in event.choices:
            text += choice.delta.content or ""
            finish = choice.finish_reason or finish
    assert text == whole.choices[0].message.content, (text, whole)
    assert finish == whole.choices[0].finish_reason and usage.total_tokens == whole.usage.total_tokens
    plain = client.completions.create(model="any", prompt="Sat down", max_tokens=24, temperature=0)
    said = plain.choices[0].text
    word = said.strip().split(" ")[-1]
    stopped = client.completions.create(model="any", prompt="Sat down", max_tokens=24, temperature=0, stop=[word])
    assert stopped.choices[0].text == said[: said.index(word)] and stopped.choices[0].finish_reason == "stop"
    two = client.completions.create(model="any", prompt=["Sat down", "Walked"], n=2, max_tokens=8, seed=3)
    assert [c.index for c in two.choices] == [0, 1, 2, 3]


def check_limits(server):
    client = server.client()
    for bad, kind, code in (
        ({"prompt": "walk " * 100000}, openai.BadRequestError, "context_length_exceeded"),
        ({"prompt": "a" * (5 << 20)}, openai.APIStatusError, None),
        ({"prompt": "a", "temperature": 3}, openai.BadRequestError, None),
        ({"prompt": "a", "logprobs": 1}, openai.BadRequestError, "unsupported_parameter"),
    ):
        try:
            client.completions.create(model="any", **bad)
        except kind as error:
            assert code is None or error.code == code, error
        else:
            raise AssertionError(f"taken: {str(bad)[:60]}")


def check_cancelled(server):
    client = server.client()
    for _ in range(20):
        stream = client.completions.create(model="any", prompt="Sat down", max_tokens=200, n=16, temperature=2, stream=True)
        next(iter(stream))
        stream.close()
    client.completions.create(model="any", prompt="Sat down", max_tokens=2)


def check_many(server):
    client, texts = server.client(), []

    def ask():
        answer = client.completions.create(model="any", prompt="Sat down", max_tokens=100, temperature=1.5, seed=9)
        texts.append(answer.choices[0].text)

    threads = [threading.Thread(target=ask) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(texts) == CLIENTS and len(set(texts)) == 1, texts


def load(server, seconds):
    end, failures, n = time.time() + seconds, [], [0]

    def ask(seed):
        client, draws = server.client(), random.Random(seed)
        while time.time() < end:
            try:
                if draws.random() < 0.5:
                    stream = client.completions.create(model="any", prompt="Sat down", max_tokens=draws.randrange(1, 200),
                                                       stream=True, temperature=1.5)
                    leaves = draws.random() < 0.2
                    for event in stream:
                        if leaves:
                            break
                    stream.close()
                else:
                    client.chat.completions.create(
                        model="any", messages=[{"role": "user", "content": "walk " * draws.randrange(1, 30)}],
                        max_tokens=draws.randrange(1, 100))
                n[0] += 1
            except openai.OpenAIError as error:
                failures.append(error)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(seconds / 2)
    middle = server.rss()
    for thread in threads:
        thread.join()
    growth = server.rss() - middle
    print(f"load: {n[0]} requests in {seconds} s, {len(failures)} failures, RSS {server.rss() >> 10} KiB, "
          f"{growth >> 10} KiB more than at half time")
    assert not failures, failures[:3]
    assert growth <= GROWTH_MAX, growth


def main():
    program, model = sys.argv[1:3]
    seconds = int(sys.argv[3]) if len(sys.argv) > 3 else 10
    server = Server(program, model)
    for check in (check_answers, check_limits, check_cancelled, check_many):
        check(server)
        print(f"{check.__name__}: good")
    load(server, seconds)
    server.stop()
    print("statuses:", dict(sorted(server.statuses.items())))


main()
