"""Serves the flights' two jobs and checks them from outside, with kcat and confluent-kafka only.

    jobs.py STREAMPROOF [CHECK…]

Checks, all of them by default:
    job-a         rows read back read_committed equal the batch answer of `streamproof model`; no record is late
    job-b         `streamproof check --brokers` passes, with at least one late record
    job-a-killed  the same after kill -9 in the middle of the input and again in the middle of the drain
    job-b-killed  the same for job B
    refusals      a port in use and a data directory in use are one sentence each and exit 2

Clients assign partitions by themselves: consumer groups come with replication. Every wait has an end.
"""

import csv
import json
import os
import queue
import shutil
import signal
import subprocess
import threading
import time

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from harness import PORT, ROOT, WORK, Failed, binary, expect, main

FLIGHTS = ROOT / "examples/flights"
EVENTS = FLIGHTS / "events.csv"
BROKER = f"127.0.0.1:{PORT}"


class Server:
    """A `streamproof serve` process; leaving the block kills it."""

    current = None

    def __init__(self, job, data):
        self.args = [binary(), "serve", "--job", str(FLIGHTS / job), "--data", str(data), "--until-end"]
        self.lines = queue.Queue()

    def __enter__(self):
        env = dict(os.environ, STREAMPROOF_LISTEN=BROKER)
        self.log = open(WORK / "serve.log", "a")
        self.process = subprocess.Popen(self.args, stdout=subprocess.PIPE, stderr=self.log, text=True, env=env)
        Server.current = self.process
        threading.Thread(target=self.pump, daemon=True).start()
        self.wait_for(f"listening on {BROKER}", 30)
        return self

    def pump(self):
        for line in self.process.stdout:
            self.lines.put(line.strip())
        self.lines.put(None)

    def wait_for(self, wanted, seconds):
        deadline = time.monotonic() + seconds
        while True:
            try:
                line = self.lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise Failed(f"serve did not print {wanted!r} within {seconds} s") from None
            if line is None:
                raise Failed(f"serve ended with {self.process.wait()} before it printed {wanted!r}; see serve.log")
            if line == wanted:
                return

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def drain(self):
        self.signal(signal.SIGTERM)
        self.wait_for("drained", 90)

    def drain_again(self):
        """After a kill -9 that may have hit the drain before or after it was asked for durably."""
        try:
            self.wait_for("drained", 15)
        except Failed:
            self.drain()

    def stop(self):
        self.signal(signal.SIGTERM)
        try:
            code = self.process.wait(20)
        except subprocess.TimeoutExpired:
            raise Failed("serve did not end after the second signal") from None
        expect(code == 0, f"serve ended with {code} after the second signal, not 0")

    def __exit__(self, *_):
        self.kill()
        Server.current = None
        self.log.close()


def flights():
    """(key, value) of every event, in arrival order."""
    with open(EVENTS, newline="") as f:
        for row in csv.DictReader(f):
            value = {
                "origin": row["origin"],
                "scheduled_ms": int(row["scheduled_ms"]),
                "delay_min": int(row["delay_min"]),
            }
            yield row["origin"], json.dumps(value, separators=(",", ":"))


def produce_with_kcat(topic, events):
    text = "".join(f"{key}\t{value}\n" for key, value in events)
    command = ["kcat", "-P", "-q", "-b", BROKER, "-t", topic, "-K", "\t", "-X", "topic.partitioner=murmur2_random",
               "-X", "enable.idempotence=true", "-X", "acks=all"]
    done = subprocess.run(command, input=text, text=True, capture_output=True, timeout=60)
    expect(done.returncode == 0, f"kcat failed to produce: {done.stderr.strip()}")


def produce_with_confluent(topic, events):
    failed = []
    producer = Producer({"bootstrap.servers": BROKER, "partitioner": "murmur2_random", "enable.idempotence": True,
                         "linger.ms": 5})
    for key, value in events:
        while True:
            try:
                producer.produce(topic, key=key, value=value,
                                 on_delivery=lambda err, _: failed.append(err) if err else None)
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    left = producer.flush(60)
    expect(left == 0 and not failed, f"confluent-kafka failed to produce: {left} left, {failed[:3]}")


def partitions(consumer, topic):
    metadata = consumer.list_topics(topic, timeout=20).topics[topic]
    if metadata.error is not None and metadata.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
        return []
    expect(metadata.error is None, f"metadata of {topic}: {metadata.error}")
    return sorted(metadata.partitions)


def read_committed(topic):
    """Every committed value of a topic, by assignment, from the beginning to the present end."""
    consumer = Consumer({"bootstrap.servers": BROKER, "group.id": "interop", "isolation.level": "read_committed",
                         "enable.auto.commit": False, "enable.partition.eof": True})
    try:
        open_partitions = set(partitions(consumer, topic))
        if not open_partitions:
            return []
        consumer.assign([TopicPartition(topic, p, 0) for p in open_partitions])
        values, deadline = [], time.monotonic() + 60
        while open_partitions:
            expect(time.monotonic() < deadline, f"reading {topic} did not reach the end within 60 s")
            message = consumer.poll(1.0)
            expect(Server.current is None or Server.current.poll() is None, "serve ended while its topics were read")
            if message is None:
                continue
            if message.error() is None:
                values.append(message.value().decode())
            elif message.error().code() == KafkaError._PARTITION_EOF:
                open_partitions.discard(message.partition())
            else:
                raise Failed(f"reading {topic}: {message.error()}")
        return values
    finally:
        consumer.close()


def read_with_kcat(topic):
    command = ["kcat", "-C", "-q", "-e", "-b", BROKER, "-t", topic, "-o", "beginning", "-X",
               "isolation.level=read_committed"]
    done = subprocess.run(command, text=True, capture_output=True, timeout=60)
    expect(done.returncode == 0, f"kcat failed to read {topic}: {done.stderr.strip()}")
    return done.stdout.splitlines()


def identity(row):
    return row["key"], row["window_start"], row["window_end"], row["pane"], row["op"]


def batch_answer():
    command = [binary(), "model", "--job", str(FLIGHTS / "job-a.toml"), "--events", str(EVENTS)]
    done = subprocess.run(command, text=True, capture_output=True, timeout=60, check=True)
    return {identity(row): row for row in map(json.loads, done.stdout.splitlines())}


def compare_rows(values, expected):
    rows = {}
    for row in map(json.loads, values):
        expect(identity(row) not in rows, f"the row {identity(row)} is there twice")
        rows[identity(row)] = row
    missing, extra = expected.keys() - rows.keys(), rows.keys() - expected.keys()
    expect(not missing, f"{len(missing)} rows are missing, such as {sorted(missing)[:1]}")
    expect(not extra, f"{len(extra)} rows should not be there, such as {sorted(extra)[:1]}")
    wrong = [(expected[k], rows[k]) for k in rows if rows[k] != expected[k]]
    expect(not wrong, f"{len(wrong)} rows differ, such as {wrong[:1]}")


def check_a():
    rows = read_committed("delays-hourly")
    compare_rows(rows, batch_answer())
    expect(sorted(read_with_kcat("delays-hourly")) == sorted(rows), "kcat and confluent-kafka read different rows")
    late = read_committed("flights-late")
    expect(not late, f"{len(late)} records are late, such as {late[:1]}")
    return f"{len(rows)} rows equal the batch answer, no record is late"


def check_b():
    late = read_with_kcat("flights-tight-late")
    expect(len(late) >= 1, "no record is late")
    command = [binary(), "check", "--job", str(FLIGHTS / "job-b.toml"), "--brokers", BROKER]
    done = subprocess.run(command, text=True, capture_output=True, timeout=90)
    expect(done.returncode == 0, f"check exits {done.returncode}:\n{done.stdout}{done.stderr}")
    return f"check passes with {len(late)} late records"


JOBS = {"a": ("job-a.toml", check_a), "b": ("job-b.toml", check_b)}


def fresh(name):
    data = WORK / name
    shutil.rmtree(data, ignore_errors=True)
    return data


def undisturbed(which):
    job, check = JOBS[which]
    events = list(flights())
    with Server(job, fresh(f"data-{which}")) as server:
        produce_with_kcat("flights", events[: len(events) // 2])
        produce_with_confluent("flights", events[len(events) // 2:])
        server.drain()
        said = check()
        server.stop()
    return said


def killed(which):
    job, check = JOBS[which]
    events = list(flights())
    third = len(events) // 3
    data = fresh(f"data-{which}-killed")
    with Server(job, data) as server:
        produce_with_kcat("flights", events[:third])
        time.sleep(3)  # let checkpoints complete
        produce_with_confluent("flights", events[third: 2 * third])
        server.kill()
    with Server(job, data) as server:
        produce_with_confluent("flights", events[2 * third:])
        server.signal(signal.SIGTERM)
        time.sleep(0.7)
        server.kill()  # somewhere in the drain, or just after it
    with Server(job, data) as server:
        server.drain_again()
        said = check()
        server.stop()
    return said


def refusals():
    data = fresh("data-refusals")
    with Server("job-a.toml", data) as server:
        def refused(data, listen, *words):
            command = [binary(), "serve", "--job", str(FLIGHTS / "job-a.toml"), "--data", str(data)]
            done = subprocess.run(command, text=True, capture_output=True, timeout=30,
                                  env=dict(os.environ, STREAMPROOF_LISTEN=listen))
            expect(done.returncode == 2, f"exit {done.returncode}, not 2: {done.stderr}")
            expect(all(word in done.stderr for word in words), f"unclear refusal: {done.stderr}")
            expect(len(done.stderr.strip().splitlines()) == 1, f"not one sentence: {done.stderr}")
        other = fresh("data-refusals-other")
        refused(other, BROKER, BROKER, "in use")
        expect(not other.exists(), "a refused command made its data directory")
        refused(data, "127.0.0.1:0", str(data), "held by another process")
        server.signal(signal.SIGTERM)
    return "a port and a data directory in use are refused"


CHECKS = {
    "job-a": lambda: undisturbed("a"),
    "job-b": lambda: undisturbed("b"),
    "job-a-killed": lambda: killed("a"),
    "job-b-killed": lambda: killed("b"),
    "refusals": refusals,
}


if __name__ == "__main__":
    (WORK / "serve.log").unlink(missing_ok=True)
    main(CHECKS)
