"""One broker of three whose disk is full for a while: a small tmpfs under its data directory.

Usage: full_disk.py PROGRAM [CHECK…]. Needs leave to mount (root, or sudo without a password), and is skipped without. It is
about our brokers whatever INTEROP_SYSTEM says: their metrics tell what happens.

While the disk is full, what the others lead goes on, once they have taken broker 0 out of the in-sync sets
(replica.lag.time.max.ms); what it leads itself is refused for now, and comes again. Once there is room it takes its part
again, by itself, with no record lost and none twice.
"""

import os
import subprocess

from brokers import Streamproof
from cluster import Confluent, end, judge, read_all
from harness import WORK, Failed, Skipped, detail, main, within

SIZE = "24m"
TOPIC = "events"


class OneSmallDisk(Streamproof):
    """Broker 0 keeps its data on a disk of SIZE."""

    def __init__(self, name):
        self.disk = WORK / name / "0"
        # One that an earlier check left when it was killed.
        self.unmount()
        super().__init__(name, metrics=True)

    def form(self):
        self.disk.mkdir()
        error = as_root("mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=0777", "tmpfs", self.disk)
        if error:
            raise Skipped(f"a tmpfs cannot be mounted here: {error}")
        super().form()

    def unmount(self):
        while os.path.ismount(self.disk):
            error = as_root("umount", self.disk)
            if error:
                raise Failed(f"{self.disk} cannot be unmounted: {error}")

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

    def __exit__(self, *exc):
        super().__exit__(*exc)
        self.unmount()


def as_root(*command):
    """Why it did not succeed, in one line, if so."""
    command = [*([] if os.geteuid() == 0 else ["sudo", "-n"]), *map(str, command)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except OSError as e:
        return str(e)
    return (done.stderr.splitlines() or [f"exit {done.returncode}"])[0] if done.returncode else None


class Patient(Confluent):
    """Gives nothing up while the disk is full: librdkafka that does takes a new epoch, and writes again, under it, what
    other partitions have and have not acknowledged."""

    GIVES_UP_S = 300


def full_disk():
    with OneSmallDisk("full-disk") as cluster:
        def at_0(family):
            return cluster.measure(0, family)

        def under_replicated():
            return sum(cluster.measure(n, "kafka_server_replicamanager_underreplicatedpartitions") for n in range(3))

        def led_by_others():
            return sum(cluster.measure(n, "kafka_server_replicamanager_leadercount") for n in (1, 2))

        refused, starts = "kafka_log_logmanager_refusedappends_total", "streamproof_broker_starts_total"
        cluster.create(TOPIC, 6)
        within(60, "not all in sync", lambda: under_replicated() == 0)
        writer = Patient(cluster, TOPIC)
        writer.start()
        within(60, "no 1000 records acknowledged", lambda: len(writer.acknowledged) > 1000)
        cluster.fill()
        within(60, "broker 0 does not feel its full disk", lambda: at_0(refused) > 0 or at_0(starts) > 1)
        within(120, "the others do not go on without it", lambda: led_by_others() > 0 and under_replicated() > 0)
        before = len(writer.acknowledged)
        within(60, "no 1000 more records acknowledged", lambda: len(writer.acknowledged) > before + 1000)
        said = (f"{under_replicated()} partitions lacked a replica, {at_0(refused)} appends refused, "
                f"broker 0 started {at_0(starts)} times")
        detail(said)
        cluster.free()
        within(120, "broker 0 has not caught up", lambda: under_replicated() == 0)
        end([writer])
        cluster.alive()
        return f"{said}; {judge([writer], read_all(cluster, TOPIC))}"


CHECKS = {"full-disk": full_disk}


if __name__ == "__main__":
    main(CHECKS)
