"""Three broker processes under the clients of Python and JavaScript, and kcat, while brokers are killed.

Usage: cluster.py PROGRAM [CHECK…]. With INTEROP_SYSTEM=kafka the brokers are Apache Kafka's.

A record counts as acknowledged when its client says so; each value is written once and carries who wrote it and which
one it is. What is acknowledged must be there; what an idempotent producer wrote must be there once.
"""

import asyncio
import collections
import json
import logging
import os
import subprocess
import threading
import time

import aiokafka
import kafka
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from brokers import Kills, system
from harness import HERE, WORK, Failed, detail, expect, main, within

# What a client says of brokers that were killed on purpose helps nobody.
QUIET = {"log_level": 0}
for library in ("aiokafka", "kafka"):
    logging.getLogger(library).setLevel(logging.CRITICAL)


class Writer(threading.Thread):
    """Writes numbered values until it is stopped; `acknowledged` are those that its client reported as stored."""

    def __init__(self, cluster, topic):
        super().__init__(daemon=True)
        self.bootstrap, self.topic, self.stopped = cluster.bootstrap, topic, threading.Event()
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
    GIVES_UP_S = 60

    def write(self):
        producer = Producer({**QUIET, "bootstrap.servers": self.bootstrap, "enable.idempotence": True, "linger.ms": 5,
                             "message.timeout.ms": 1000 * self.GIVES_UP_S, "compression.type": "lz4"})

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
        expect(producer.flush(self.GIVES_UP_S) == 0, f"confluent-kafka has records left after {self.GIVES_UP_S} s")


class KafkaPython(Writer):
    name, idempotent = "kafka-python", False

    def write(self):
        producer = kafka.KafkaProducer(bootstrap_servers=self.bootstrap.split(","), acks="all", retries=100, linger_ms=5,
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
        producer = aiokafka.AIOKafkaProducer(bootstrap_servers=self.bootstrap.split(","), enable_idempotence=True, linger_ms=5,
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
            command = ["kcat", "-P", "-q", "-b", self.bootstrap, "-t", self.topic, "-X", "enable.idempotence=true", "-X",
                       "acks=all", "-X", "message.timeout.ms=60000", "-z", "snappy"]
            done = subprocess.run(command, input="\n".join(values) + "\n", text=True, capture_output=True, timeout=90)
            if done.returncode == 0:
                self.acknowledged.update(values)
            else:
                self.refused[done.stderr.strip()] += 1


class KafkaJs(Writer):
    name, idempotent = "kafkajs", True

    def write(self):
        with KafkaJsProcess(self.bootstrap, "write", self.topic) as process:
            stopping = threading.Thread(target=lambda: (self.stopped.wait(), process.finish()), daemon=True)
            stopping.start()
            for what, *rest in process.lines():
                if what == "sent":
                    self.sent += len(rest[0])
                elif what == "acknowledged":
                    self.acknowledged.update(rest[0])
                else:
                    self.refused[rest[0]] += 1
            process.ended()


class KafkaJsProcess:
    """`js/client.js`, whose lines are JSON; leaving the block kills it."""

    def __init__(self, *arguments):
        command = ["node", str(HERE / "js/client.js"), *arguments]
        environment = {**os.environ, "NODE_PATH": str(WORK / "js/node_modules")}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env=environment)

    def lines(self):
        for line in self.process.stdout:
            what, *rest = json.loads(line)
            expect(what != "failed", f"client.js gave up: {rest}")
            yield what, *rest

    def finish(self):
        self.process.stdin.close()

    def ended(self):
        expect(self.process.wait(60) == 0, f"client.js ended with {self.process.returncode}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def read_all(cluster, topic, isolation="read_uncommitted"):
    """Every value of a topic, by assignment, from the beginning to the present end."""
    consumer = Consumer({**QUIET, "bootstrap.servers": cluster.bootstrap, "group.id": "final",
                         "enable.auto.commit": False, "enable.partition.eof": True, "isolation.level": isolation})
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


def end(writers):
    for writer in writers:
        writer.stopped.set()
    for writer in writers:
        writer.join(120)
        expect(not writer.is_alive(), f"{writer.name} did not end within 120 s")


def judge(writers, values):
    found = collections.Counter(values)
    for writer in writers:
        expect(writer.error is None, f"{writer.name} failed: {writer.error!r}")
        expect(writer.acknowledged, f"{writer.name} had nothing acknowledged of {writer.sent}: {writer.refused}")
        lost = sorted(v for v in writer.acknowledged if not found[v])
        expect(not lost, f"{len(lost)} acknowledged records of {writer.name} are lost, such as {lost[:3]}")
        twice = sorted(v for v in found if v.startswith(f"{writer.name}-") and found[v] > 1)
        expect(not (writer.idempotent and twice), f"{len(twice)} records of {writer.name} are there twice: {twice[:3]}")
        detail(f"{writer.name}: {len(writer.acknowledged)} acknowledged of {writer.sent}, {len(twice)} twice; "
               f"refused: {dict(writer.refused)}")
    acknowledged = ", ".join(f"{writer.name} {len(writer.acknowledged)}" for writer in writers)
    again = sum(len([v for v in found if v.startswith(f"{w.name}-") and found[v] > 1]) for w in writers)
    refused = sum(sum(writer.refused.values()) for writer in writers)
    return f"acknowledged: {acknowledged}; 0 lost, {again} twice where that may be, {refused} refused"


def producers():
    """Five clients write while each broker, the controller and every leader among them, is killed and comes back."""
    with system("cluster-producers") as cluster:
        cluster.create("events", 6)
        writers = [kind(cluster, "events") for kind in (Confluent, KafkaPython, AioKafka, Kcat, KafkaJs)]
        for writer in writers:
            writer.start()
        with Kills(cluster, first=0) as kills:
            while kills.count < 3:
                kills.join(0.2)
                expect(kills.is_alive(), f"the killing ended: {kills.error!r}")
        end(writers)
        cluster.wait_for_members()
        said = judge(writers, read_all(cluster, "events"))
        cluster.alive()
    return f"{kills.count} kills; {said}"


class Member(threading.Thread):
    """One consumer of a group; commits what it has read.

    `seen` only grows, so that another thread may copy it at any time; a dictionary would change under its reader.
    """

    def __init__(self, cluster, topic, group, **settings):
        super().__init__(daemon=True)
        self.topic, self.stopped, self.seen, self.error = topic, threading.Event(), [], None
        self.settings = {**QUIET, "bootstrap.servers": cluster.bootstrap, "group.id": group, "auto.offset.reset": "earliest",
                         "enable.auto.commit": False, **settings}

    def run(self):
        consumer = Consumer(self.settings)
        try:
            consumer.subscribe([self.topic])
            while not self.stopped.is_set():
                messages = consumer.consume(200, 0.5)
                good = [m for m in messages if m.error() is None]
                self.seen.extend([m.value().decode() for m in good])
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
    with system(f"cluster-{name}") as cluster:
        cluster.create("events", 6)
        writer = Confluent(cluster, "events")
        writer.start()
        members = [Member(cluster, "events", name, **settings) for _ in range(3)]
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
            seen = collections.Counter(value for m in members for value in list(m.seen))
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
        cluster.alive()
    return f"1 kill, {len(writer.acknowledged)} records all read, {again} more than once, by 3 members"


class KafkaJsLines(threading.Thread):
    """A `client.js` whose lines are kept."""

    def __init__(self, cluster, verb, *arguments):
        super().__init__(daemon=True)
        self.process, self.kept = KafkaJsProcess(cluster.bootstrap, verb, *arguments), []
        self.start()

    def run(self):
        for line in self.process.lines():
            self.kept.append(line)

    def values(self, what):
        return [value for kind, *rest in list(self.kept) if kind == what for value in rest[0]]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.__exit__()


def kafkajs():
    """Transactions of kafkajs, some aborted, and a group of two that reads them, while brokers are killed."""
    with system("cluster-kafkajs") as cluster:
        cluster.create("events", 6)
        with KafkaJsLines(cluster, "transact", "events") as writer, \
                KafkaJsLines(cluster, "read", "events", "js") as first, \
                KafkaJsLines(cluster, "read", "events", "js") as second:
            with Kills(cluster, pause=4) as kills:
                within(60, "no two brokers were killed", lambda: kills.count >= 2)
            writer.process.finish()
            writer.process.ended()
            writer.join(10)
            committed, aborted = writer.values("committed"), writer.values("aborted")
            unknown = writer.values("unknown")
            expect(len(committed) > 100 and aborted, f"{len(committed)} values committed, {len(aborted)} aborted: "
                                                     f"{[line for line in writer.kept if len(line) > 2][:3]}")

            def missing():
                return not set(committed) - set(first.values("values")) - set(second.values("values"))
            within(60, "not all committed values were read by the group", missing)
            seen = first.values("values") + second.values("values")
            for reader in (first, second):
                reader.process.finish()
                reader.process.ended()
        stored = collections.Counter(read_all(cluster, "events", "read_committed"))
        lost = [value for value in committed if stored[value] != 1]
        wrong = [value for value in aborted if stored[value] or value in seen]
        halves = [value for value in unknown if stored[value] > 1]
        expect(not lost, f"{len(lost)} committed values are not there once, such as {lost[:3]}")
        expect(not wrong, f"{len(wrong)} aborted values were seen, such as {wrong[:3]}")
        expect(not halves, f"{len(halves)} values are there twice")
        cluster.alive()
    return (f"{kills.count} kills, {len(committed)} values committed and {len(aborted)} aborted in transactions, "
            f"{len(unknown)} unknown; all committed once, read by a group of two")


def stop():
    """SIGTERM ends each broker in peace, the last one too, and what was stored is there after a start."""
    with system("cluster-stop") as cluster:
        cluster.create("events", 3)
        writer = Confluent(cluster, "events")
        writer.start()
        time.sleep(2)
        writer.stopped.set()
        writer.join(90)
        for n in range(3):
            cluster.terminate(n)
        for n in range(3):
            cluster.start(n)
        cluster.wait_for_members()
        return judge([writer], read_all(cluster, "events"))


CHECKS = {
    "cluster-producers": producers,
    "cluster-group-eager": lambda: group("eager", **{"partition.assignment.strategy": "range"}),
    "cluster-group-cooperative": lambda: group("cooperative",
                                               **{"partition.assignment.strategy": "cooperative-sticky"}),
    "cluster-group-consumer-protocol": lambda: group("consumer", **{"group.protocol": "consumer"}),
    "cluster-kafkajs": kafkajs,
    "cluster-stop": stop,
}


if __name__ == "__main__":
    main(CHECKS)
