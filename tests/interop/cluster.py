"""Three `streamproof serve` processes, one broker each, under other people's clients, while brokers are killed.

Usage: cluster.py PROGRAM [CHECK…]. Needs kcat, confluent-kafka, kafka-python, aiokafka: tests/interop/run installs them.
Listens on the ports from INTEROP_PORT (9092) on.

A record counts as acknowledged when its client says so; each value is written once and carries who wrote it and which
one it is. What is acknowledged must be there; what an idempotent producer wrote must be there once.
"""

import asyncio
import collections
import logging
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time

import aiokafka
import kafka
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

ROOT = pathlib.Path(__file__).resolve().parents[2]
WORK = ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "interop"
PORT = int(os.environ.get("INTEROP_PORT", "9092"))
ADDRESSES = [f"127.0.0.1:{PORT + n}" for n in range(3)]
BOOTSTRAP = ",".join(ADDRESSES)
BINARY = None

# What a client says of brokers that were killed on purpose helps nobody.
CLIENT = {"bootstrap.servers": BOOTSTRAP, "log_level": 0}
for library in ("aiokafka", "kafka"):
    logging.getLogger(library).setLevel(logging.CRITICAL)


def say(text):
    print(f"interop: {text}", flush=True)


class Failed(Exception):
    pass


def expect(condition, text):
    if not condition:
        raise Failed(text)


class Cluster:
    """Three brokers, each in a process and with a directory of its own; leaving the block kills what still runs."""

    def __init__(self, name):
        self.data = WORK / name
        shutil.rmtree(self.data, ignore_errors=True)
        self.data.mkdir(parents=True)
        self.processes = {}

    def start(self, n):
        quorum = ",".join(f"{i}@{address}" for i, address in enumerate(ADDRESSES))
        command = [BINARY, "serve", "--broker-id", str(n), "--quorum", quorum, "--data", str(self.data / str(n))]
        log = open(self.data / f"{n}.log", "a")
        self.processes[n] = subprocess.Popen(command, stdout=log, stderr=log)

    def kill(self, n):
        self.processes[n].kill()
        self.processes[n].wait()

    def terminate(self, n):
        process = self.processes.pop(n)
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(30)
        except subprocess.TimeoutExpired:
            raise Failed(f"broker {n} did not end within 30 s of SIGTERM") from None
        expect(code == 0, f"broker {n} ended with {code} after SIGTERM, not 0")

    def alive(self):
        for n, process in self.processes.items():
            expect(process.poll() is None, f"broker {n} ended with {process.poll()} by itself: see {self.data}/{n}.log")

    def __enter__(self):
        for n in range(3):
            self.start(n)
        self.wait_for_members(3)
        return self

    def wait_for_members(self, count):
        deadline = time.monotonic() + 30
        while True:
            self.alive()
            try:
                if len(AdminClient(CLIENT).list_topics(timeout=5).brokers) >= count:
                    return
            except KafkaException:
                pass
            expect(time.monotonic() < deadline, f"not {count} brokers in the cluster within 30 s")
            time.sleep(0.2)

    def __exit__(self, *_):
        for process in self.processes.values():
            process.kill()
            process.wait()


def create(topic, partitions):
    admin = AdminClient(CLIENT)
    config = {"min.insync.replicas": "2"}
    for future in admin.create_topics([NewTopic(topic, partitions, 3, config=config)]).values():
        future.result(30)


class Writer(threading.Thread):
    """Writes numbered values until it is stopped; `acknowledged` are those that its client reported as stored."""

    def __init__(self, topic):
        super().__init__(daemon=True)
        self.topic, self.stopped = topic, threading.Event()
        self.acknowledged, self.refused, self.error, self.sent = set(), collections.Counter(), None, 0

    def next(self):
        self.sent += 1
        return f"{self.name}-{self.sent}"

    def run(self):
        try:
            self.write()
        except Exception as e:  # whatever a foreign client throws is this check's failure
            self.error = e


class Confluent(Writer):
    name, idempotent = "confluent", True

    def write(self):
        producer = Producer({**CLIENT, "enable.idempotence": True, "linger.ms": 5,
                             "message.timeout.ms": 60000, "compression.type": "lz4"})

        def delivered(error, message):
            if error is None:
                self.acknowledged.add(message.value().decode())
            else:
                self.refused[str(error)] += 1
        while not self.stopped.is_set():
            value = self.next()
            try:
                producer.produce(self.topic, key=value, value=value, on_delivery=delivered)
            except BufferError:
                self.sent -= 1
            producer.poll(0.002)
        expect(producer.flush(60) == 0, "confluent-kafka has records left after 60 s")


class KafkaPython(Writer):
    name, idempotent = "kafka-python", False

    def write(self):
        producer = kafka.KafkaProducer(bootstrap_servers=ADDRESSES, acks="all", retries=100, linger_ms=5,
                                       compression_type="gzip", max_in_flight_requests_per_connection=1)
        while not self.stopped.is_set():
            value = self.next()
            sent = producer.send(self.topic, key=value.encode(), value=value.encode())
            sent.add_callback(lambda _, value=value: self.acknowledged.add(value))
            sent.add_errback(lambda error: self.refused.update([str(error)]))
            time.sleep(0.002)
        producer.flush(60)
        producer.close(30)


class AioKafka(Writer):
    name, idempotent = "aiokafka", True

    def write(self):
        asyncio.run(self.main())

    async def main(self):
        producer = aiokafka.AIOKafkaProducer(bootstrap_servers=ADDRESSES, enable_idempotence=True, linger_ms=5,
                                             request_timeout_ms=60000)
        await producer.start()
        waiting = set()

        async def settle(value, future):
            try:
                await future
                self.acknowledged.add(value)
            except aiokafka.errors.KafkaError as e:
                self.refused[str(e)] += 1
        while not self.stopped.is_set():
            value = self.next()
            future = await producer.send(self.topic, key=value.encode(), value=value.encode())
            task = asyncio.create_task(settle(value, future))
            waiting.add(task)
            task.add_done_callback(waiting.discard)
            await asyncio.sleep(0.002)
        await producer.flush()
        await asyncio.gather(*waiting)
        await producer.stop()


class Kcat(Writer):
    """A process for each batch; exit 0 says that all of it is stored."""

    name, idempotent = "kcat", True

    def write(self):
        while not self.stopped.is_set():
            values = [self.next() for _ in range(200)]
            command = ["kcat", "-P", "-q", "-b", BOOTSTRAP, "-t", self.topic, "-X", "enable.idempotence=true", "-X",
                       "acks=all", "-X", "message.timeout.ms=60000", "-z", "snappy"]
            done = subprocess.run(command, input="\n".join(values) + "\n", text=True, capture_output=True, timeout=90)
            if done.returncode == 0:
                self.acknowledged.update(values)
            else:
                self.refused[done.stderr.strip()] += 1


def read_all(topic):
    """Every value of a topic, by assignment, from the beginning to the present end."""
    consumer = Consumer({**CLIENT, "group.id": "final", "enable.auto.commit": False,
                         "enable.partition.eof": True})
    try:
        left = set(consumer.list_topics(topic, timeout=20).topics[topic].partitions)
        consumer.assign([TopicPartition(topic, p, 0) for p in left])
        values, deadline = [], time.monotonic() + 60
        while left:
            expect(time.monotonic() < deadline, f"reading {topic} did not reach the end within 60 s")
            message = consumer.poll(1.0)
            if message is None:
                continue
            if message.error() is None:
                values.append(message.value().decode())
            elif message.error().code() == KafkaError._PARTITION_EOF:
                left.discard(message.partition())
            elif not message.error().retriable():
                raise Failed(f"reading {topic}: {message.error()}")
        return values
    finally:
        consumer.close()


def rolling_kills(cluster):
    """Each broker in turn, the controller and every leader among them, is killed and comes back."""
    for n in range(3):
        time.sleep(2)
        cluster.alive()
        cluster.kill(n)
        time.sleep(3)
        cluster.start(n)
        # A broker that comes back must catch up before the next one may go: two of three are needed.
        time.sleep(6)


def judge(writers, values):
    found = collections.Counter(values)
    for writer in writers:
        expect(writer.error is None, f"{writer.name} failed: {writer.error!r}")
        expect(writer.acknowledged, f"{writer.name} had nothing acknowledged of {writer.sent}: {writer.refused}")
        lost = sorted(v for v in writer.acknowledged if not found[v])
        expect(not lost, f"{len(lost)} acknowledged records of {writer.name} are lost, such as {lost[:3]}")
        twice = sorted(v for v in found if v.startswith(f"{writer.name}-") and found[v] > 1)
        expect(not (writer.idempotent and twice), f"{len(twice)} records of {writer.name} are there twice: {twice[:3]}")
        say(f"  {writer.name}: {len(writer.acknowledged)} acknowledged of {writer.sent}, none lost, {len(twice)} twice"
            + (f"; refused: {dict(writer.refused)}" if writer.refused else ""))


def producers():
    """Four clients write while each broker is killed with -9 and comes back."""
    with Cluster("cluster-producers") as cluster:
        create("events", 6)
        writers = [kind("events") for kind in (Confluent, KafkaPython, AioKafka, Kcat)]
        for writer in writers:
            writer.start()
        rolling_kills(cluster)
        for writer in writers:
            writer.stopped.set()
        for writer in writers:
            writer.join(120)
            expect(not writer.is_alive(), f"{writer.name} did not end within 120 s")
        cluster.wait_for_members(3)
        judge(writers, read_all("events"))
        cluster.alive()


class Member(threading.Thread):
    """One consumer of a group; commits what it has read."""

    def __init__(self, topic, group, **settings):
        super().__init__(daemon=True)
        self.topic, self.stopped, self.seen, self.error = topic, threading.Event(), collections.Counter(), None
        self.settings = {**CLIENT, "group.id": group, "auto.offset.reset": "earliest",
                         "enable.auto.commit": False, **settings}

    def run(self):
        consumer = Consumer(self.settings)
        try:
            consumer.subscribe([self.topic])
            while not self.stopped.is_set():
                messages = consumer.consume(200, 0.5)
                good = [m for m in messages if m.error() is None]
                self.seen.update(m.value().decode() for m in good)
                if good:
                    try:
                        consumer.commit(asynchronous=False)
                    except KafkaException as e:
                        # Another member owns the partitions now, or a coordinator is on its way: read again by someone.
                        if not isinstance(e.args[0], KafkaError):
                            raise
        except Exception as e:
            self.error = e
        finally:
            consumer.close()


def group(protocol, **settings):
    """Members come and go and a broker is killed while a group reads; nothing acknowledged is passed over."""
    name = f"readers-{protocol}"
    with Cluster(f"cluster-{name}") as cluster:
        create("events", 6)
        writer = Confluent("events")
        writer.start()
        members = [Member("events", name, **settings) for _ in range(3)]
        for member in members[:2]:
            member.start()
        time.sleep(4)
        members[2].start()  # a rebalance
        time.sleep(4)
        cluster.kill(1)
        time.sleep(4)
        cluster.start(1)
        members[0].stopped.set()  # and another
        time.sleep(6)
        writer.stopped.set()
        writer.join(120)
        expect(writer.error is None and writer.acknowledged, f"the writer: {writer.error!r}")
        deadline = time.monotonic() + 60
        while True:
            seen = sum((m.seen for m in members), collections.Counter())
            missing = writer.acknowledged - seen.keys()
            errors = [m.error for m in members if m.error]
            expect(not errors, f"a member failed: {errors}")
            if not missing:
                break
            expect(time.monotonic() < deadline, f"{len(missing)} of {len(writer.acknowledged)} records were never read")
            time.sleep(0.5)
        for member in members:
            member.stopped.set()
            member.join(60)
        again = sum(count - 1 for count in seen.values())
        say(f"  {protocol}: {len(writer.acknowledged)} records all read, {again} more than once, by 3 members")
        cluster.alive()


def stop():
    """SIGTERM ends each broker in peace, the last one too, and what was stored is there after a start."""
    with Cluster("cluster-stop") as cluster:
        create("events", 3)
        writer = Confluent("events")
        writer.start()
        time.sleep(2)
        writer.stopped.set()
        writer.join(90)
        for n in range(3):
            cluster.terminate(n)
        for n in range(3):
            cluster.start(n)
        cluster.wait_for_members(3)
        judge([writer], read_all("events"))


CHECKS = {
    "cluster-producers": producers,
    "cluster-group-eager": lambda: group("eager", **{"partition.assignment.strategy": "range"}),
    "cluster-group-cooperative": lambda: group("cooperative",
                                               **{"partition.assignment.strategy": "cooperative-sticky"}),
    "cluster-group-consumer-protocol": lambda: group("consumer", **{"group.protocol": "consumer"}),
    "cluster-stop": stop,
}


def main():
    global BINARY
    BINARY = str(pathlib.Path(sys.argv[1]).resolve())
    WORK.mkdir(parents=True, exist_ok=True)
    failed = 0
    for name in sys.argv[2:] or CHECKS:
        started = time.monotonic()
        say(name)
        try:
            CHECKS[name]()
            say(f"{name}: ok, {time.monotonic() - started:.1f} s")
        except (Failed, KafkaException, subprocess.SubprocessError) as e:
            failed += 1
            say(f"{name}: FAILED: {e}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
