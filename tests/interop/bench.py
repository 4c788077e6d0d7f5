"""Throughput, latency, start and memory of three brokers, ours beside Apache Kafka's, in one run.

Usage: bench.py PROGRAM. Prints the table of book/src/reference/figures.md and keeps the numbers in `bench.json` of the
interop directory.

Each system runs alone: ours in the page cache (as Kafka does by default), ours with an fsync before each
acknowledgement, Kafka at its defaults. The clients are Kafka's performance producer and share the machine. Throughput is
of as many records as go through; the latencies are of a fixed rate that each system can take, so that they say how long
an answer takes and not how long a queue is. What comes before the machine is warm is left out.
"""

import json
import pathlib
import re
import subprocess
import sys
import time

from brokers import CLASS_PATH, Apache, Streamproof
from harness import WORK, detail, expect, use

# What Kafka's start script gives its brokers.
KAFKA_DEFAULTS = ["-server", "-Xms1G", "-Xmx1G", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20",
                  "-XX:InitiatingHeapOccupancyPercent=35", "-XX:+ExplicitGCInvokesConcurrent", "-XX:MaxInlineLevel=15",
                  "-Djava.awt.headless=true"]

SYSTEMS = {
    "page-cache": lambda: Streamproof("bench", flush="page-cache"),
    "fsync": lambda: Streamproof("bench", flush="fsync"),
    "kafka": lambda: Apache("bench", options=KAFKA_DEFAULTS),
}
MODES = {
    "acks=all": {"acks": "all", "enable.idempotence": "false"},
    "idempotent": {"acks": "all", "enable.idempotence": "true"},
    "transactional": {"acks": "all", "enable.idempotence": "true"},
}
# Record size: records of a run for throughput, and records a second of one for latency.
SIZES = {100: (500_000, 5_000), 1024: (120_000, 2_000)}
LATENCY_SECONDS = 6
WARM_SECONDS = 2

RESULT = re.compile(r"records sent, ([\d.]+) records/sec \(([\d.]+) MB/sec\), [\d.]+ ms avg latency, ([\d.]+) ms max "
                    r"latency, (\d+) ms 50th, (\d+) ms 95th, (\d+) ms 99th, (\d+) ms 99.9th")


def produce(cluster, topic, mode, size, count, rate, warm):
    settings = [f"{key}={value}" for key, value in MODES[mode].items()]
    command = ["java", "-Xmx512m", "-cp", CLASS_PATH, "org.apache.kafka.tools.ProducerPerformance",
               "--topic", topic, "--num-records", str(count), "--record-size", str(size), "--throughput", str(rate),
               "--warmup-records", str(warm), "--bootstrap-server", cluster.bootstrap,
               "--command-property", *settings, "linger.ms=5"]
    if mode == "transactional":
        command += ["--transactional-id", f"bench-{topic}", "--transaction-duration-ms", "100"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150)
    detail(f"{' '.join(command[4:])}\n{done.stdout}{done.stderr}")
    found = RESULT.findall(done.stdout)
    expect(done.returncode == 0 and found, f"the performance producer ended with {done.returncode}: {done.stdout[-500:]}"
                                           f"{done.stderr[-500:]}")
    # The last line is of what came after the warming.
    per_second, mb, slowest, p50, _, p99, p999 = map(float, found[-1])
    return {"records_s": per_second, "mb_s": mb, "p50": p50, "p99": p99, "p99.9": p999, "max": slowest}


def start(cluster):
    """Seconds from the start of the processes to the first acknowledgement by all replicas."""
    from confluent_kafka import KafkaException, Producer
    started = []
    begin = cluster.start

    def noting(n):
        started.append(time.monotonic())
        begin(n)
    cluster.start = noting
    cluster.__enter__()
    while True:
        try:
            cluster.create("first", 1)
            break
        except KafkaException:
            time.sleep(0.01)
    acknowledged = []
    producer = Producer({"bootstrap.servers": cluster.bootstrap, "acks": "all", "linger.ms": 0, "log_level": 0})
    producer.produce("first", value="x", on_delivery=lambda error, _: acknowledged.append(error))
    expect(producer.flush(30) == 0 and acknowledged == [None], f"the first record: {acknowledged}")
    return time.monotonic() - started[0]


def measure(name):
    cluster = SYSTEMS[name]()
    cells, found = {}, {}
    try:
        found["start_s"] = start(cluster)
        found["idle_kib"] = sum(now for _, now in cluster.memory_kib().values())
        for size, (count, rate) in SIZES.items():
            for mode in MODES:
                topic = f"{mode.replace('=', '-')}-{size}"
                cluster.create(topic, 6)
                through = produce(cluster, topic, mode, size, count, -1, count // 5)
                timed = produce(cluster, topic, mode, size, rate * (LATENCY_SECONDS + WARM_SECONDS), rate,
                                rate * WARM_SECONDS)
                cells[f"{mode} {size}"] = {"through": through, "timed": timed}
        cluster.alive()
        found["peak_kib"] = sum(peak for peak, _ in cluster.memory_kib().values())
        found["loaded_kib"] = sum(now for _, now in cluster.memory_kib().values())
    finally:
        cluster.__exit__()
    return {**found, "cells": cells}


def table(results):
    ours, synced, kafka = (results[name] for name in ("page-cache", "fsync", "kafka"))

    def times(a, b):
        return f"{a / b:.2f}" if b else "-"

    def row(what, values, a, b, c, better):
        """Two ratios to Kafka, each above 1 where ours is better."""
        ratio = (lambda x: times(x, c)) if better == "more" else (lambda x: times(c, x))
        return f"| {what} | {' | '.join(values)} | {ratio(a)} | {ratio(b)} |"
    lines = ["| what | page cache | fsync | Kafka | better by, page cache | by, fsync |", "|--|--|--|--|--|--|"]
    for size in SIZES:
        for mode in MODES:
            cells = [result["cells"][f"{mode} {size}"] for result in (ours, synced, kafka)]
            mb = [cell["through"]["mb_s"] for cell in cells]
            lines.append(row(f"{mode}, {size} B: MB/s", [f"{v:.1f}" for v in mb], *mb, "more"))
            p99 = [cell["timed"]["p99"] for cell in cells]
            shown = [", ".join(f"{cell['timed'][p]:.0f}" for p in ("p50", "p99", "p99.9")) for cell in cells]
            rate = SIZES[size][1]
            lines.append(row(f"p50, p99, p99.9 in ms at {rate} a second; ratio of p99", shown, *p99, "less"))
    for key, what, unit in (("start_s", "start to the first acknowledgement, s", 1),
                            ("idle_kib", "memory of three brokers, idle, MiB", 1024),
                            ("peak_kib", "their peak under this load, MiB", 1024)):
        values = [result[key] / unit for result in (ours, synced, kafka)]
        lines.append(row(what, [f"{v:.2f}" if unit == 1 else f"{v:.0f}" for v in values], *values, "less"))
    return "\n".join(lines)


def run():
    use(sys.argv[1])
    results = {}
    for name in SYSTEMS:
        results[name] = measure(name)
        (WORK / "bench.json").write_text(json.dumps(results, indent=1))
    load = pathlib.Path("/proc/loadavg").read_text().split()[0]
    print(f"{table(results)}\n\nload of the machine at the end: {load}")


if __name__ == "__main__":
    run()
