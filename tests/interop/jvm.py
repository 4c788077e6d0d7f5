"""Three broker processes under Kafka's own Java clients and tools, while brokers are killed.

Usage: jvm.py PROGRAM [CHECK…]. With INTEROP_SYSTEM=kafka the brokers are Apache Kafka's.

What the tools write is numbered, so that each acknowledged record is known and one that is there twice is seen.
"""

import base64
import collections
import json
import signal
import subprocess
import threading
import time

from brokers import Kills, java, system
from cluster import read_all
from harness import WORK, detail, expect, main, within

TOOLS = "org.apache.kafka.tools"
# A member whose goodbye is lost with a coordinator holds the others up for so long.
SESSION = ("--session-timeout", 10000)
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")


def properties(name, **settings):
    """A file of client settings for a tool."""
    path = WORK / f"{name}.properties"
    path.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
    return path


class Process:
    """A tool in a virtual machine of its own; leaving the block kills it. Its lines are kept."""

    def __init__(self, main, *arguments):
        self.name = main.rsplit(".", 1)[-1]
        self.errors = open(WORK / "tools.log", "a")
        self.process = subprocess.Popen(java(main, *arguments), stdout=subprocess.PIPE, stderr=self.errors, text=True)
        self.lines = []
        self.reading = threading.Thread(target=self.read, daemon=True)
        self.reading.start()

    def read(self):
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    def events(self, kind):
        """Those of its lines that are JSON objects of this name."""
        found = (json.loads(line) for line in list(self.lines) if line.startswith("{"))
        return [event for event in found if event.get("name") == kind]

    def ended(self, seconds, codes=(0,)):
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            detail(f"{self.name}: {self.lines[-5:]}")
            expect(False, f"{self.name} did not end within {seconds} s")
        self.reading.join(10)
        expect(code in codes, f"{self.name} ended with {code}: {self.lines[-3:]}")

    def stop(self, seconds=30):
        self.process.send_signal(signal.SIGTERM)
        self.ended(seconds, (0, 143))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.errors.close()
        detail(f"{self.name}: {len(self.lines)} lines, not counting those of records:")
        for line in self.lines:
            if '"record' not in line and "producer_send_success" not in line and "offsets_committed" not in line:
                detail(f"  {line:.300}")


class Tools:
    """Kafka's command-line tools, run one after the other in one virtual machine."""

    NAMES = {
        "topics": f"{TOOLS}.TopicCommand",
        "configs": "kafka.admin.ConfigCommand",
        "groups": f"{TOOLS}.consumer.group.ConsumerGroupCommand",
        "all-groups": f"{TOOLS}.GroupsCommand",
        "transactions": f"{TOOLS}.TransactionsCommand",
        "offsets": f"{TOOLS}.GetOffsetShell",
        "api-versions": f"{TOOLS}.BrokerApiVersionsCommand",
        "leader-election": f"{TOOLS}.LeaderElectionCommand",
        "quorum": f"{TOOLS}.MetadataQuorumCommand",
        "cluster": f"{TOOLS}.ClusterTool",
        "features": f"{TOOLS}.FeatureCommand",
        "delete-records": f"{TOOLS}.DeleteRecordsCommand",
        "dump-log": f"{TOOLS}.DumpLogSegments",
        "consumer-perf": f"{TOOLS}.ConsumerPerformance",
        "producer-perf": f"{TOOLS}.ProducerPerformance",
    }

    def __init__(self, bootstrap):
        self.bootstrap = bootstrap

    def __enter__(self):
        self.errors = open(WORK / "tools.log", "a")
        self.process = subprocess.Popen(java("streamproof.interop.Tools"), stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=self.errors, text=True)
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.errors.close()

    def run(self, tool, *arguments, connect=True):
        """The exit code and what was printed."""
        command = [self.NAMES[tool], *(["--bootstrap-server", self.bootstrap] if connect else []), *map(str, arguments)]
        limit = threading.Timer(90, self.process.kill)
        limit.start()
        self.process.stdin.write("\t".join(command) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().split()
        limit.cancel()
        expect(answer, f"{tool} did not answer within 90 s: {arguments}")
        said = base64.b64decode(answer[1]).decode() if len(answer) > 1 else ""
        detail(f"{tool} {' '.join(map(str, arguments))}: {answer[0]}\n{said}")
        return int(answer[0]), said

    def must(self, tool, *arguments, **how):
        code, said = self.run(tool, *arguments, **how)
        expect(code == 0, f"{tool} {' '.join(map(str, arguments))} ended with {code}: {said.strip()[-500:]}")
        return said


def codecs():
    """A performance producer for each codec, while brokers are killed; then performance consumers and the disk."""
    count = 9_000
    with system("jvm-codecs") as cluster:
        for codec in CODECS:
            cluster.create(codec, 2)
        settings = {"bootstrap.servers": cluster.bootstrap, "acks": "all", "linger.ms": 5}
        producers = []
        with Kills(cluster) as kills:
            for codec in CODECS:
                file = properties(f"perf-{codec}", **settings, **{"compression.type": codec})
                producers.append(Process(f"{TOOLS}.ProducerPerformance", "--topic", codec, "--num-records", count,
                                         "--throughput", 1000, "--payload-monotonic", "--command-config", file))
            try:
                for producer in producers:
                    producer.ended(120)
            finally:
                for producer in producers:
                    producer.__exit__()
        expect(kills.count, "no broker was killed")
        for codec, producer in zip(CODECS, producers):
            expect(any(line.startswith(f"{count} records sent") for line in producer.lines),
                   f"{codec}: {producer.lines[-1:]}")
            refused = [line for line in producer.lines if "Exception" in line]
            expect(not refused, f"{codec}: {len(refused)} refused, such as {refused[:1]}")
            found = collections.Counter(read_all(cluster, codec))
            wrong = [n for n in range(count) if found.pop(str(n), 0) != 1]
            expect(not wrong and not found, f"{codec}: {len(wrong)} records are not there once, such as {wrong[:3]}; "
                                            f"{len(found)} are nobody's")
        with Tools(cluster.bootstrap) as tools:
            for codec in CODECS:
                said = tools.must("consumer-perf", "--topic", codec, "--num-records", count, "--timeout", 20000)
                read = [line.split(", ")[4] for line in said.splitlines() if line[:2] == "20"]
                expect(read and int(read[0]) >= count, f"{codec}: the performance consumer read {read} of {count}")
                stored = stored_codecs(tools, cluster, codec)
                expect(stored == {codec}, f"{codec}: its batches are stored as {stored}")
        cluster.alive()
    return f"{kills.count} kills, {len(CODECS)} codecs of {count} records each: all there once, all read, stored as sent"


def stored_codecs(tools, cluster, topic):
    """Of a partition's log on the disk of one broker, as Kafka's tool reads it."""
    files = sorted(cluster.data.glob(f"0/**/{topic}-0/*.log"))
    expect(files, f"no log of {topic} under {cluster.data}/0")
    said = tools.must("dump-log", "--files", files[0], connect=False)
    return {line.split("compresscodec: ")[1].split()[0].lower() for line in said.splitlines() if "compresscodec" in line}


def group(protocol, *arguments):
    """Verifiable consumers come and go and brokers are killed while a verifiable producer writes."""
    with system(f"jvm-group-{protocol}") as cluster:
        cluster.create("events", 6)

        # By itself it tries once, without a sequence.
        idempotent = properties("idempotent", **{"enable.idempotence": "true", "retries": 2147483647})

        def consumer():
            return Process(f"{TOOLS}.VerifiableConsumer", "--bootstrap-server", cluster.bootstrap, "--topic", "events",
                           "--group-id", protocol, "--reset-policy", "earliest", "--verbose", *arguments)
        with Process(f"{TOOLS}.VerifiableProducer", "--bootstrap-server", cluster.bootstrap, "--topic", "events",
                     "--throughput", 500, "--acks", -1, "--command-config", idempotent) as producer, consumer() as first, consumer() as second:
            within(60, "the two consumers read nothing",
                   lambda: first.events("records_consumed") and second.events("records_consumed"))
            with Kills(cluster) as kills, consumer() as third:
                within(60, "the third consumer was given nothing", lambda: third.events("records_consumed"))
                first.stop()
                within(60, "no broker was killed and back", lambda: kills.count)
                time.sleep(4)
                kills.stopped.set()
                kills.join(60)
                producer.stop()
                acknowledged = {event["value"] for event in producer.events("producer_send_success")}
                expect(len(acknowledged) > 1000, f"only {len(acknowledged)} records were acknowledged")
                members = (first, second, third)

                def missing():
                    seen = {event["value"] for member in members for event in member.events("record_data")}
                    return not acknowledged - seen
                within(60, "not all acknowledged records were read", missing, pause=1)
                committed = within(60, "the committed offsets did not reach the ends",
                                   lambda: lag(cluster, protocol) == 0 and ends(cluster, "events"))
                for member in (second, third):
                    member.stop()
        stored = collections.Counter(read_all(cluster, "events"))
        lost = acknowledged - stored.keys()
        twice = [value for value, count in stored.items() if count > 1]
        expect(not lost, f"{len(lost)} acknowledged records are lost")
        expect(not twice, f"{len(twice)} records are there twice")
        refused = len(producer.events("producer_send_error"))
        rebalances = sum(len(member.events("partitions_assigned")) for member in members)
        cluster.alive()
    return (f"{kills.count} kills, {len(acknowledged)} records acknowledged, {refused} refused, none lost or twice, all "
            f"read, offsets committed to {committed}, {rebalances} assignments to 3 members")


def lag(cluster, name):
    """How far the committed offsets of a group are behind, over all partitions of `events`; None while nobody can say."""
    from confluent_kafka import Consumer, KafkaException, TopicPartition
    consumer = Consumer({"bootstrap.servers": cluster.bootstrap, "group.id": name, "log_level": 0})
    try:
        at = consumer.committed([TopicPartition("events", p) for p in range(6)], timeout=10)
        return sum(consumer.get_watermark_offsets(p, timeout=10)[1] - max(p.offset, 0) for p in at)
    except KafkaException as e:
        detail(f"the lag of {name}: {e}")
        return None
    finally:
        consumer.close()


def ends(cluster, topic):
    from confluent_kafka import Consumer, TopicPartition
    consumer = Consumer({"bootstrap.servers": cluster.bootstrap, "group.id": "ends", "log_level": 0})
    try:
        return sum(consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=10)[1] for p in range(6))
    finally:
        consumer.close()


def transactions():
    """Records are copied in transactions, some of them aborted, with their offsets, while brokers are killed."""
    count, parts = 3_000, 2
    with system("jvm-transactions") as cluster, Tools(cluster.bootstrap) as tools:
        cluster.create("in", parts)
        cluster.create("out", 3)
        tools.must("producer-perf", "--topic", "in", "--num-records", count, "--throughput", -1, "--payload-monotonic",
                   "--bootstrap-server", cluster.bootstrap, "--command-property", "acks=all", connect=False)
        sent = collections.Counter(read_all(cluster, "in"))
        expect(sent == collections.Counter(map(str, range(count))), "the input is not as it was written")

        def copier(partition):
            return Process(f"{TOOLS}.TransactionalMessageCopier", "--broker-list", cluster.bootstrap, "--input-topic",
                           "in", "--input-partition", partition, "--output-topic", "out", "--consumer-group", "copiers",
                           "--transaction-size", 15, "--transactional-id", f"copier-{partition}",
                           "--enable-random-aborts", "--use-group-metadata")
        with Kills(cluster, pause=3) as kills:
            copiers = [copier(partition) for partition in range(parts)]
            try:
                for each in copiers:
                    each.ended(120)
            finally:
                for each in copiers:
                    each.__exit__()
        expect(kills.count, "no broker was killed")
        committed = collections.Counter(read_all(cluster, "out", "read_committed"))
        everything = collections.Counter(read_all(cluster, "out"))
        missing, extra = sent - committed, committed - sent
        expect(not missing, f"{sum(missing.values())} records were not copied, such as {list(missing)[:3]}")
        expect(not extra, f"{sum(extra.values())} records were copied twice, such as {list(extra)[:3]}")
        aborted = sum(everything.values()) - count
        expect(aborted > 0, "no transaction was aborted")
        cluster.alive()
    return f"{kills.count} kills, {count} records copied exactly once; {aborted} aborted ones are seen uncommitted only"


CHECKS = {
    "jvm-codecs": codecs,
    "jvm-group-eager": lambda: group("eager", *SESSION),
    "jvm-group-cooperative": lambda: group("cooperative", *SESSION, "--assignment-strategy",
                                           "org.apache.kafka.clients.consumer.CooperativeStickyAssignor"),
    "jvm-group-consumer-protocol": lambda: group("consumer", "--group-protocol", "consumer"),
    "jvm-transactions": transactions,
}


if __name__ == "__main__":
    main(CHECKS)
