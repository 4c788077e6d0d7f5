"""One broker of three whose disk is full for a while, for real: a small tmpfs under its data directory.

Usage: full_disk.py PROGRAM. Needs what cluster.py needs, and leave to mount (root, or sudo without a password).
Listens on the ports from INTEROP_PORT (9092) on, and for metrics on those from 100 above.

While the disk is full, what the others lead goes on, once they have taken broker 0 out of the in-sync sets
(replica.lag.time.max.ms); what it leads itself is refused for now, and comes again. Once there is room it takes its part
again, by itself, with no record lost and none twice.
"""

import os
import pathlib
import subprocess
import sys
import time
import urllib.request

from confluent_kafka import Producer

import cluster
from cluster import CLIENT, Failed, Writer, create, expect, judge, read_all, say

SIZE = "24m"
TOPIC = "events"


def as_root(*command):
    subprocess.run([*([] if os.geteuid() == 0 else ["sudo", "-n"]), *command], check=True, capture_output=True, text=True)


class OneSmallDisk(cluster.Cluster):
    """Broker 0 keeps its data on a disk of SIZE."""

    def __init__(self, name):
        self.disk = cluster.WORK / name / "0"
        self.unmount()
        super().__init__(name)
        self.disk.mkdir()
        as_root("mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=0777", "tmpfs", str(self.disk))

    def start(self, n):
        quorum = ",".join(f"{i}@{address}" for i, address in enumerate(cluster.ADDRESSES))
        command = [cluster.BINARY, "serve", "--broker-id", str(n), "--quorum", quorum, "--data", str(self.data / str(n)),
                   "--metrics", f"127.0.0.1:{cluster.PORT + 100 + n}"]
        log = open(self.data / f"{n}.log", "a")
        self.processes[n] = subprocess.Popen(command, stdout=log, stderr=log)

    def fill(self):
        """Leaves no byte free."""
        with open(self.disk / "ballast", "wb", buffering=0) as ballast:
            try:
                while True:
                    ballast.write(bytes(1 << 16))
            except OSError:
                pass

    def free(self):
        (self.disk / "ballast").unlink()

    def unmount(self):
        while os.path.ismount(self.disk):
            as_root("umount", str(self.disk))

    def __exit__(self, *exc):
        super().__exit__(*exc)
        self.unmount()


class Patient(Writer):
    """An idempotent producer that gives nothing up: librdkafka that does takes a new epoch, and writes again, under it,
    what other partitions have and have not acknowledged."""

    name, idempotent = "confluent", True

    def write(self):
        producer = Producer({**CLIENT, "enable.idempotence": True, "linger.ms": 5, "message.timeout.ms": 300000,
                             "queue.buffering.max.messages": 1000000})

        def delivered(error, message):
            if error is None:
                self.acknowledged.add(message.value().decode())
            else:
                self.refused[str(error)] += 1
        while not self.stopped.is_set():
            value = self.next()
            producer.produce(self.topic, key=value, value=value, on_delivery=delivered)
            producer.poll(0.002)
        expect(producer.flush(90) == 0, "confluent-kafka has records left after 90 s")


def measure(n, family):
    """The sum over a family at broker n."""
    with urllib.request.urlopen(f"http://127.0.0.1:{cluster.PORT + 100 + n}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return sum(int(line.rsplit(" ", 1)[1]) for line in lines if line.split("{")[0].split(" ")[0] == family)


def wait(seconds, what, holds):
    deadline = time.monotonic() + seconds
    while not holds():
        expect(time.monotonic() < deadline, f"not within {seconds} s: {what}")
        time.sleep(0.3)


def under_replicated():
    return sum(measure(n, "kafka_server_replicamanager_underreplicatedpartitions") for n in range(3))


def check():
    with OneSmallDisk("full-disk") as brokers:
        create(TOPIC, 6)
        wait(30, "all in sync", lambda: under_replicated() == 0)
        writer = Patient(TOPIC)
        writer.start()
        time.sleep(3)
        brokers.fill()
        refused = "kafka_log_logmanager_refusedappends_total"
        starts = "streamproof_broker_starts_total"
        wait(60, "broker 0 feels its full disk", lambda: measure(0, refused) > 0 or measure(0, starts) > 1)
        wait(120, "the others go on without it", lambda: sum(measure(n, "kafka_server_replicamanager_leadercount")
                                                             for n in (1, 2)) > 0 and under_replicated() > 0)
        before = len(writer.acknowledged)
        wait(30, "1000 more records are acknowledged", lambda: len(writer.acknowledged) > before + 1000)
        say(f"  full: {under_replicated()} partitions lack a replica, {measure(0, refused)} appends refused, "
            f"broker 0 started {measure(0, starts)} times, {len(writer.acknowledged)} records acknowledged")
        brokers.free()
        wait(120, "broker 0 has caught up", lambda: under_replicated() == 0)
        time.sleep(2)
        writer.stopped.set()
        writer.join(120)
        expect(not writer.is_alive(), "the writer did not end within 120 s")
        brokers.alive()
        judge([writer], read_all(TOPIC))


def main():
    cluster.BINARY = str(pathlib.Path(sys.argv[1]).resolve())
    cluster.WORK.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    say("full-disk")
    try:
        check()
        say(f"full-disk: ok, {time.monotonic() - started:.1f} s")
    except (Failed, OSError, subprocess.SubprocessError) as e:
        say(f"full-disk: FAILED: {e}")
        sys.exit(1)


if __name__ == "__main__":
    main()
