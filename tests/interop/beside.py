"""The same scripts against three brokers of ours and three of Apache Kafka, side by side: the same answers.

Usage: beside.py PROGRAM [CHECK…].

A script asks a cluster one thing after the other and notes each step with its outcome, from which it leaves out what
differs from run to run: ids, addresses, which broker leads. Outcomes that are meant to differ are in `DIFFERENCES`,
each with the reason; a difference that is not there fails, and so does one there that is none any more.
"""

import functools
import json
import os
import re
import subprocess
import threading
import time

import apis
from brokers import Apache, Streamproof, java
from harness import HERE, WORK, detail, expect, main
from jvm import Tools


def steps(printed):
    return [tuple(line.split("\t", 1)) for line in printed.splitlines() if "\t" in line]


def asked(cluster, command, **how):
    """What a script of its own process says."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, **how)
    detail(f"{command[-2]} on {cluster.NAME}:\n{done.stderr}")
    expect(done.returncode == 0, f"{command[-2]} ended with {done.returncode} on {cluster.NAME}: {done.stderr[-500:]}")
    return steps(done.stdout)


def java_script(cluster):
    return asked(cluster, java("streamproof.interop.Answers", cluster.bootstrap))


def kafkajs_script(cluster):
    return asked(cluster, ["node", str(HERE / "js/answers.js"), cluster.bootstrap],
                 env={**os.environ, "NODE_PATH": str(WORK / "js/node_modules")})


# What differs from run to run, and what stands for it.
VARIES = [
    (r"SLF4J:.*\n", ""),
    (r"(?m)^\s+at .*\n", ""),
    (r"(127\.0\.0\.1:\d+,?)+", "ADDRESS"),
    (r"ADDRESS\s+\(\d\)", "ADDRESS"),
    (r" synonyms=\{[^}]*\}", ""),
    (r'\{"id": (\d)[^}]*\}', r"\1"),
    (r"(?m)^(\S+)\s+\d+\s+\d+\s+((Complete|Prepare)\w+|Ongoing|Empty)", r"\1 N N \2"),
    (r"\[\d{4}-\d\d-\d\d[^]]*\]", "[TIME]"),
    (r"TopicId: \S+", "TopicId: ID"),
    (r"Leader: \d", "Leader: N"),
    (r"(Replicas|Isr): \d,\d,\d", r"\1: three"),
    (r"(LeaderId|LeaderEpoch|HighWatermark|MaxFollowerLag|MaxFollowerLagTimeMs):\s+\S+", r"\1: N"),
    (r"Cluster ID: \S+", "Cluster ID: ID"),
    (r"ClusterId:\s+\S+", "ClusterId: ID"),
    (r"org\.apache\.kafka\.\S+\.(\w+Exception)", r"\1"),
    (r"[ \t]+", " "),
    (r"\s*\n\s*", " | "),
]


def tools_script(cluster):
    """Kafka's command-line tools."""
    commands = [
        ("topics", "--create", "--topic", "tools", "--partitions", 1, "--replication-factor", 3, "--config",
         "min.insync.replicas=2"),
        ("producer", "tools", 300),
        ("topics", "--create", "--topic", "tools", "--partitions", 2),
        ("topics", "--create", "--topic", "tools", "--partitions", 2, "--if-not-exists"),
        ("topics", "--create", "--topic", "many", "--partitions", 1, "--replication-factor", 5),
        ("topics", "--describe", "--topic", "tools"),
        ("topics", "--describe", "--topic", "no-such-topic"),
        ("topics", "--describe", "--under-replicated-partitions"),
        ("topics", "--alter", "--topic", "tools", "--partitions", 3),
        ("topics", "--alter", "--topic", "tools", "--partitions", 1),
        ("configs", "--alter", "--entity-type", "topics", "--entity-name", "tools", "--add-config",
         "unclean.leader.election.enable=true"),
        ("configs", "--alter", "--entity-type", "topics", "--entity-name", "tools", "--add-config", "no.such=1"),
        ("configs", "--describe", "--entity-type", "topics", "--entity-name", "tools"),
        ("configs", "--alter", "--entity-type", "topics", "--entity-name", "tools", "--delete-config",
         "unclean.leader.election.enable"),
        ("configs", "--describe", "--entity-type", "topics", "--entity-name", "tools"),
        ("offsets", "--topic", "tools"),
        ("offsets", "--topic", "no-such-topic"),
        ("delete-records", "tools", 0, 100),
        ("delete-records", "tools", 0, 100),
        ("delete-records", "tools", 0, 40),
        ("delete-records", "tools", 0, 301),
        ("delete-records", "tools", 1, -1),
        ("offsets", "--topic", "tools", "--time", "earliest"),
        ("groups", "--list"),
        ("groups", "--reset-offsets", "--group", "tools", "--topic", "tools", "--to-earliest", "--execute"),
        ("groups", "--reset-offsets", "--group", "tools", "--topic", "tools:0", "--shift-by", 1, "--dry-run"),
        ("groups", "--describe", "--group", "tools", "--state"),
        ("groups", "--describe", "--group", "tools", "--members"),
        ("groups", "--delete-offsets", "--group", "tools", "--topic", "tools:0"),
        ("groups", "--describe", "--group", "tools", "--offsets"),
        ("groups", "--delete", "--group", "tools"),
        ("groups", "--delete", "--group", "tools"),
        ("delete-records", "__consumer_offsets", 0, 0),
        ("configs", "--alter", "--entity-type", "topics", "--entity-name", "tools", "--add-config",
         "cleanup.policy=compact"),
        ("delete-records", "tools", 0, 200),
        ("configs", "--alter", "--entity-type", "topics", "--entity-name", "tools", "--add-config",
         "cleanup.policy=[compact,delete]"),
        ("delete-records", "tools", 0, 200),
        ("delete-records", "tools", 0, -1),
        ("offsets", "--topic", "tools", "--time", "earliest"),
        ("groups", "--describe", "--group", "tools"),
        ("transactions", "list"),
        ("transactions", "describe", "--transactional-id", "no-such-id"),
        ("leader-election", "--election-type", "preferred", "--topic", "tools", "--partition", 0),
        ("quorum", "describe", "--status"),
        ("cluster", "cluster-id"),
        ("topics", "--delete", "--topic", "tools"),
        ("topics", "--delete", "--topic", "tools"),
        ("topics", "--describe", "--topic", "tools"),
    ]
    found = []
    with Tools(cluster.bootstrap) as tools:
        for tool, *arguments in commands:
            if tool == "producer":
                code, said = tools.run("producer-perf", "--topic", arguments[0], "--num-records", arguments[1],
                                       "--throughput", -1, "--payload-monotonic", "--bootstrap-server",
                                       cluster.bootstrap, connect=False)
                said = "".join(re.findall(r"\d+ records sent", said)[-1:])
            elif tool == "delete-records":
                topic, partition, before = arguments
                file = WORK / f"delete-records-{cluster.NAME.split()[0].lower()}.json"
                file.write_text(json.dumps({"version": 1, "partitions": [
                    {"topic": topic, "partition": partition, "offset": before}]}))
                code, said = tools.run(tool, "--offset-json-file", file)
            elif tool in ("cluster", "transactions", "quorum"):
                # These want their verb first, or before what it is about.
                verb, rest = (arguments, []) if tool == "cluster" else ([], arguments)
                code, said = tools.run(tool, *verb, "--bootstrap-server", cluster.bootstrap, *rest, connect=False)
            else:
                code, said = tools.run(tool, *arguments)
            refused = sorted(set(re.findall(r"\w+Exception\b", said)) - {"ExecutionException"})
            for pattern, standing in VARIES:
                said = re.sub(pattern, standing, said)
            # How a refusal is put is everybody's own.
            lines = refused if code or refused else sorted(line for line in said.split(" | ") if line.strip())
            lines = " | ".join(lines)
            found.append((f"{len(found)} {tool} {' '.join(map(str, arguments))}", f"{code}: {lines}"))
    return found


def confluent_script(cluster):
    """librdkafka's."""
    from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
    from confluent_kafka.admin import AdminClient, ConfigResource, NewPartitions, NewTopic, OffsetSpec
    settings = {"bootstrap.servers": cluster.bootstrap, "log_level": 0}
    admin, found, topic = AdminClient(settings), [], "rd"

    def step(name, ask):
        try:
            outcome = ask()
        except KafkaException as e:
            outcome = e.args[0].name()
        found.append((name, str(outcome)))

    def one(futures):
        return list(futures.values())[0].result(30)
    new = NewTopic(topic, 2, 3, config={"min.insync.replicas": "2"})
    step("create", lambda: one(admin.create_topics([new])))
    step("create again", lambda: one(admin.create_topics([new])))
    step("create with too many replicas", lambda: one(admin.create_topics([NewTopic("rd-many", 1, 7)])))
    step("add partitions", lambda: one(admin.create_partitions([NewPartitions(topic, 3)])))
    step("settings", lambda: sorted((c.name, c.value) for c in one(
        admin.describe_configs([ConfigResource("topic", topic)])).values() if not c.is_default))
    for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
        def write():
            offsets = []
            producer = Producer({**settings, "compression.type": codec, "enable.idempotence": True})
            for n in range(20):
                producer.produce(topic, f"{codec}-{n}" * 9, f"key-{n}", partition=0,
                                 on_delivery=lambda e, m: offsets.append(m.offset() if e is None else e.name()))
            return producer.flush(30), offsets
        step(f"write with {codec}", write)

    def transact(commit):
        producer = Producer({**settings, "transactional.id": "rd"})
        producer.init_transactions(30)
        producer.begin_transaction()
        producer.produce(topic, f"commit {commit}", partition=1)
        producer.send_offsets_to_transaction([TopicPartition(topic, 2, 9)], group.consumer_group_metadata(), 30)
        producer.flush(30)
        producer.commit_transaction(30) if commit else producer.abort_transaction(30)
    group = Consumer({**settings, "group.id": "rd-group"})
    step("abort", lambda: transact(False))
    step("commit", lambda: transact(True))

    def pending():
        return [p.offset for p in group.committed([TopicPartition(topic, 2)], timeout=20)]
    step("offset of the transaction", lambda: pending() == [9] or time.sleep(1) or pending())
    step("a group's commit", lambda: [p.offset for p in group.commit(
        offsets=[TopicPartition(topic, 0, 5)], asynchronous=False)])
    step("committed", lambda: [p.offset for p in group.committed([TopicPartition(topic, 0)], timeout=20)])

    def read(isolation):
        consumer = Consumer({**settings, "group.id": "rd-reader", "isolation.level": isolation,
                             "enable.partition.eof": True, "enable.auto.commit": False})
        values, ends = [], set()
        consumer.assign([TopicPartition(topic, p, 0) for p in range(3)])
        deadline = time.monotonic() + 30
        while len(ends) < 3 and time.monotonic() < deadline:
            message = consumer.poll(1)
            if message is not None and message.error():
                ends.add(message.partition())
            elif message is not None:
                values.append((message.partition(), message.offset(), message.value().decode()[:9]))
        consumer.close()
        return sorted(values)
    step("read committed", lambda: read("read_committed"))
    step("read uncommitted", lambda: read("read_uncommitted"))
    step("offsets", lambda: [(p, one(admin.list_offsets({TopicPartition(topic, p): OffsetSpec.latest()})).offset)
                             for p in range(3)])
    step("offsets for times", lambda: [p.offset for p in group.offsets_for_times([TopicPartition(topic, 0, 1)], 20)])
    step("describe the group", lambda: [(g.state.name, len(g.members)) for g in [one(
        admin.describe_consumer_groups(["rd-group"]))]])
    step("groups", lambda: sorted(g.group_id for g in admin.list_consumer_groups().result(30).valid
                                  if g.group_id.startswith("rd")))
    group.close()
    step("delete the group", lambda: one(admin.delete_consumer_groups(["rd-group"])))
    step("delete it again", lambda: one(admin.delete_consumer_groups(["rd-group"])))
    step("describe the cluster", lambda: len(admin.describe_cluster().result(30).nodes))
    step("delete", lambda: one(admin.delete_topics([topic])))
    step("delete again", lambda: one(admin.delete_topics([topic])))
    return found


def kcat_script(cluster):
    def kcat(*arguments, said=None):
        done = subprocess.run(["kcat", "-q", "-b", cluster.bootstrap, *arguments], input=said, text=True,
                              capture_output=True, timeout=60)
        return done.returncode, done.stdout
    cluster.create("cat", 2)
    found = [("write", kcat("-P", "-t", "cat", "-p", "0", "-K", ":", "-H", "of=kcat", said="a:1\nb:2\nc:\n")),
             ("write a null", kcat("-P", "-t", "cat", "-p", "0", "-K", ":", "-Z", said="d:\n")),
             ("read", kcat("-C", "-t", "cat", "-e", "-f", "%p %o %k=%s %S %h\\n")),
             ("query", kcat("-Q", "-t", "cat:0:-1", "-t", "cat:1:-2", "-t", "cat:0:1")),
             ("tail", kcat("-C", "-t", "cat", "-p", "0", "-o", "-1", "-e", "-f", "%o\\n"))]
    code, listed = kcat("-L", "-J", "-t", "cat")
    listed = json.loads(listed)
    shape = [(t["topic"], [(p["partition"], len(p["replicas"]), len(p["isrs"])) for p in t["partitions"]])
             for t in listed["topics"]]
    return [(step, str(outcome)) for step, outcome in [*found, ("list", (code, len(listed["brokers"]), shape))]]


# Answers that are meant to differ, by script and step, with the reason. One that is the same after all fails the check.
NO_SECURITY = "nobody is authenticated and everybody is authorized: there are no rules, users or tokens to tell of"
DIFFERENCES = {
    ("java", "finalized features"): "one format of metadata and no levels of it; only the client's transactions have two",
    ("java", "reassignments"): "replicas stay where they were placed",
    ("java", "log directories"): "a broker has one directory",
    ("java", "access rules"): NO_SECURITY,
    ("java", "SCRAM users"): NO_SECURITY,
    ("java", "delegation tokens"): NO_SECURITY,
    ("java", "client quotas"): "there are no quotas",
    ("java", "client metrics settings"): "there is no client telemetry (KIP-714), whose API this is",
}
# What is not there yet and what stands for it: these may differ until it is.
RETENTION = "retention and compaction of a client's topics are not there yet"
GAPS = {
    ("java", "set a topic's setting"): RETENTION,
    ("java", "set a cleanup policy"): RETENTION,
    ("java", "only validate a setting"): RETENTION,
    ("java", "what was set"): RETENTION,
    ("java", "read a compacted topic's null key"): RETENTION,
    ("java", "describe producers"): "DescribeProducers is not there yet",
    ("java", "a topic that takes its own time"): "message.timestamp.type can not be set yet",
    ("java", "offset of the latest tiered"): "ListOffsets is spoken up to the version before it",
}


@functools.cache
def clusters():
    """Both, for as long as the checks run."""
    ours, theirs = Streamproof("beside-streamproof"), Apache("beside-kafka")
    forming = threading.Thread(target=theirs.__enter__)
    forming.start()
    ours.__enter__()
    forming.join()
    theirs.wait_for_members()
    return ours, theirs


def compare(name, script):
    found = {}

    def ask(cluster):
        found[cluster.NAME] = script(cluster)
    ours, theirs = clusters()
    asking = threading.Thread(target=ask, args=(theirs,))
    asking.start()
    ask(ours)
    asking.join()
    expect(theirs.NAME in found, f"{name}: no answers of {theirs.NAME}: see details.log")
    one, other = found[ours.NAME], found[theirs.NAME]
    for cluster, steps in found.items():
        (WORK / f"beside-{name}-{cluster.split()[0].lower()}.txt").write_text("".join(f"{s}\t{o}\n" for s, o in steps))
    expect([step for step, _ in one] == [step for step, _ in other], f"{name}: not the same steps were taken")
    meant = {step for script, step in DIFFERENCES if script == name}
    gaps = {step for script, step in GAPS if script == name}
    unknown = (meant | gaps) - {step for step, _ in one}
    expect(not unknown, f"no such steps: {unknown}")
    wrong = [f"{step}: {a!r}, and {theirs.NAME}: {b!r}"
             for (step, a), (_, b) in zip(one, other) if a != b and step not in meant | gaps]
    gaps = [step for (step, a), (_, b) in zip(one, other) if a != b and step in gaps]
    same = [step for (step, a), (_, b) in zip(one, other) if a == b and step in meant]
    for line in wrong:
        detail(f"{name}: {line}")
    expect(not wrong, f"{len(wrong)} of {len(one)} answers differ, such as {wrong[:2]}: see details.log")
    expect(not same, f"these are said to differ and do not: {same}")
    ours.alive()
    theirs.alive()
    return f"{len(one)} answers, {len(meant)} of them meant to differ and {len(gaps)} that are not there yet"


CHECKS = {
    "beside-java": lambda: compare("java", java_script),
    "beside-tools": lambda: compare("tools", tools_script),
    "beside-confluent": lambda: compare("confluent", confluent_script),
    "beside-kafkajs": lambda: compare("kafkajs", kafkajs_script),
    "beside-apis": lambda: apis.check(*clusters()),
    "beside-kcat": lambda: compare("kcat", kcat_script),
}


if __name__ == "__main__":
    try:
        main(CHECKS)
    finally:
        if clusters.cache_info().currsize:
            for cluster in clusters():
                cluster.__exit__()
