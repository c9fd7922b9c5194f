# SPDX-License-Identifier: Apache-2.0
"""What a round of Flower's SecAgg+ costs on the vectors of bench_secagg_round: processor time and bytes.

Flower's own client modifier and server workflow run unchanged, in this process. Messages between them are turned into
their wire form and back, as on a network, outside the measured time. A device that drops out does so before its masked
vector, as in bench_secagg_round. Flower's quantisation is measured apart, since linnet's encoding is.
Reads one line of `bench_secagg_round --json` on stdin, plays the same cohort, threshold and drop-outs, and prints its
figures with the ratio Flower over linnet. Shares go to all devices, as linnet's do: SecAgg+ on the complete graph.
usage: flower_secagg_peer.py
"""
import json
import logging
import statistics
import sys
import time

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.client.mod import secaggplus_mod
from flwr.common import Code, FitIns, FitRes, Parameters, Status, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.compat.common import recorddict_compat as compat
from flwr.server.compat.legacy_context import LegacyContext
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD, Key
from flwr.supercore.task_identity import TaskIdentity

SERVER_ID, STAGES = 1, ("setup", "share keys", "masks", "unmask")


def values_of(device, n):
    h = np.arange(n, dtype=np.uint32) * np.uint32(2654435761) + np.uint32((device + 1) * 40503)
    return (h >> np.uint32(8)).astype(np.float32) / np.float32(8388608.0) - np.float32(1.0)


class Quantiser:
    """Flower's quantisation, with a clock around it."""

    def __init__(self):
        self.module = sys.modules[secaggplus_mod.__module__]
        self.quantise, self.seconds = self.module.quantize, 0.0
        self.module.quantize = self

    def __call__(self, *arguments):
        start = time.process_time()
        quantised = self.quantise(*arguments)
        self.seconds += time.process_time() - start
        return quantised


class Devices:
    """All devices, and the grid that the workflow sends its messages over."""

    def __init__(self, n, d, n_dropped):
        self.n, self.d, self.n_dropped = n, d, n_dropped
        self.ids = [SERVER_ID + 1 + i for i in range(n)]
        self.contexts = {i: Context(1, i, {}, RecordDict(), {}) for i in self.ids}
        self.quantiser = Quantiser()
        self.stage, self.seconds = -1, [[] for _ in STAGES]
        self.quantise_seconds = []
        self.up, self.elsewhere = 0, 0.0

    def train(self, message, _context):
        values = values_of(message.metadata.dst_node_id - SERVER_ID - 1, self.d)
        result = FitRes(Status(Code.OK, ""), ndarrays_to_parameters([values]), 1, {})
        return Message(compat.fitres_to_recorddict(result, False), reply_to=message)

    def over_the_wire(self, content):
        proto = recorddict_to_proto(content)
        return recorddict_from_proto(proto), proto.ByteSize()

    def answer(self, message):
        node = message.metadata.dst_node_id
        content, _ = self.over_the_wire(message.content)
        request = Message(content, dst_node_id=node, message_type=message.metadata.message_type)
        self.quantiser.seconds = 0.0
        trained = [0.0]

        def train(*arguments):
            start = time.process_time()
            result = self.train(*arguments)
            trained[0] += time.process_time() - start
            return result

        start = time.process_time()
        reply = secaggplus_mod(request, self.contexts[node], train)
        spent = time.process_time() - start - trained[0] - self.quantiser.seconds
        self.seconds[self.stage].append(spent)
        if STAGES[self.stage] == "masks":
            self.quantise_seconds.append(self.quantiser.seconds)
        content, n_up = self.over_the_wire(reply.content)
        if node == self.ids[0]:
            self.up += n_up
        return Message(content, reply_to=request)

    def send_and_receive(self, messages, timeout=None):
        start = time.process_time()
        self.stage += 1
        gone = set(self.ids[self.n - self.n_dropped :]) if STAGES[self.stage] in ("masks", "unmask") else set()
        replies = [self.answer(m) for m in messages if m.metadata.dst_node_id not in gone]
        self.elsewhere += time.process_time() - start
        return replies


class Proxy:
    def __init__(self, node):
        self.node_id = node


class Strategy:
    """The least that the workflow asks of a strategy: no model goes down, the aggregate is kept."""

    def __init__(self, ids):
        self.ids, self.aggregate = ids, None

    def configure_fit(self, *_):
        return [(Proxy(i), FitIns(Parameters([], "numpy.ndarray"), {})) for i in self.ids]

    def aggregate_fit(self, _round, results, _failures):
        self.aggregate = parameters_to_ndarrays(results[0][1].parameters)[0]
        return None, {}


class Manager:
    def __init__(self, n):
        self.num_available = lambda: n


def report(linnet, device_s, quantise_s, up_bytes, server_s):
    masked_s = linnet["device_s"] - linnet["device_encode_s"]
    print(
        f"Flower SecAgg+, n = {linnet['n']}, d = {linnet['d']}, {linnet['n'] - linnet['survivors']} drop out, and over linnet:"
    )
    for name, s in zip(STAGES, device_s):
        print(f"  device, {name:12} {1e3 * s:10.1f} ms")
    print(f"  device, all          {1e3 * sum(device_s):10.1f} ms {sum(device_s) / masked_s:8.1f}x")
    print(f"  device, quantising   {1e3 * quantise_s:10.1f} ms    not in `all` of either")
    print(f"  device, bytes up     {up_bytes:10}    {up_bytes / linnet['up_bytes']:8.2f}x")
    print(f"  coordinator          {server_s:10.2f} s  {server_s / linnet['coordinator_s']:8.1f}x")


def main():
    linnet = json.loads(sys.stdin.readline())
    n, d, survivors = linnet["n"], linnet["d"], linnet["survivors"]
    logging.disable(logging.INFO)
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, SERVER_ID, 1
    devices = Devices(n, d, n - survivors)
    strategy = Strategy(devices.ids)
    records = {MAIN_CONFIGS_RECORD: ConfigRecord({Key.CURRENT_ROUND: 1}), MAIN_PARAMS_RECORD: ArrayRecord()}
    context = Context(1, SERVER_ID, {}, RecordDict(records), {})
    workflow = SecAggPlusWorkflow(1.0, linnet["threshold"], max_weight=1.0, clipping_range=1.0)
    start = time.process_time()
    workflow(devices, LegacyContext(context, strategy=strategy, client_manager=Manager(n)))
    server = time.process_time() - start - devices.elsewhere
    if strategy.aggregate is None:
        sys.exit("flower_secagg_peer: the round was not finished")
    want = sum(values_of(i, d).astype(np.float64) for i in range(survivors)) / survivors
    if np.abs(strategy.aggregate - want).max() > 1e-5:
        sys.exit("flower_secagg_peer: the mean is wrong")
    device_s = [statistics.median(s) for s in devices.seconds]
    report(linnet, device_s, statistics.median(devices.quantise_seconds), devices.up, server)


main()
