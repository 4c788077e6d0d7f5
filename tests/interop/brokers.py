"""Two clusters of three brokers that checks can use the one for the other: ours, and Apache Kafka's from its jars.

Each broker is a process with a directory of its own; leaving the block kills what still runs. Both are set up alike:
two partitions by default, three replicas, two of them needed for acks=all, topics made on demand.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.request

from harness import PORT, WORK, Failed, binary, expect, within

JAVA = WORK / "java"
CLASS_PATH = f"{JAVA}/classes:{JAVA}/lib/*"
# Tools live for seconds: what a compiler would win later is not worth its start.
SHORT_LIVED = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m"]


def java(main, *arguments, options=SHORT_LIVED):
    return ["java", *options, "-cp", CLASS_PATH, main, *map(str, arguments)]


class Brokers:
    """What both have in common: processes, and how they end."""

    # How long a cluster may take to form.
    FORMS = 30
    # How long after a start a broker killed before is in sync again, with what these checks write.
    CATCHES_UP = 6

    def __init__(self, name, first_port):
        self.data = WORK / name
        shutil.rmtree(self.data, ignore_errors=True)
        self.data.mkdir(parents=True)
        self.addresses = [f"127.0.0.1:{first_port + n}" for n in range(3)]
        self.bootstrap = ",".join(self.addresses)
        # What else it listens on.
        self.also = []
        self.processes = {}

    def command(self, n):
        raise NotImplementedError

    def start(self, n):
        with open(self.data / f"{n}.log", "a") as log:
            self.processes[n] = subprocess.Popen(self.command(n), stdout=log, stderr=log)

    def kill(self, n):
        self.processes[n].kill()
        self.processes[n].wait()

    def terminate(self, n):
        process = self.processes.pop(n)
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise Failed(f"broker {n} did not end within 30 s of SIGTERM") from None
        expect(code in self.ENDS, f"broker {n} ended with {code} after SIGTERM")

    def alive(self):
        for n, process in self.processes.items():
            expect(process.poll() is None, f"broker {n} ended with {process.poll()} by itself: see {self.data}/{n}.log")

    def wait_for_members(self, count=3):
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        def members():
            self.alive()
            try:
                admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
                return len(admin.list_topics(timeout=5).brokers) >= count
            except KafkaException:
                return False
        within(self.FORMS, f"not {count} brokers in the cluster", members)

    def create(self, topic, partitions, **config):
        from confluent_kafka.admin import AdminClient, NewTopic
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        config = {"min.insync.replicas": "2", **config}
        for future in admin.create_topics([NewTopic(topic, partitions, 3, config=config)]).values():
            future.result(30)

    def memory_kib(self):
        """Resident memory of each broker that runs, at its highest and now."""
        found = {}
        for n, process in self.processes.items():
            with open(f"/proc/{process.pid}/status") as f:
                lines = dict(line.split(":", 1) for line in f)
            found[n] = int(lines["VmHWM"].split()[0]), int(lines["VmRSS"].split()[0])
        return found

    def __enter__(self):
        try:
            self.form()
        except BaseException:
            self.__exit__()
            raise
        return self

    def form(self):
        for address in self.addresses + self.also:
            expect(is_free(address), f"{address} is in use: INTEROP_PORT names another first port")
        for n in range(3):
            self.start(n)
        self.wait_for_members()

    def __exit__(self, *_):
        for process in self.processes.values():
            process.kill()
            process.wait()


class Streamproof(Brokers):
    """`metrics`: whether the brokers serve theirs, which `measure` reads."""

    NAME = "streamproof"
    ENDS = (0,)

    def __init__(self, name, flush=None, metrics=False):
        super().__init__(name, PORT)
        self.flush = flush
        if metrics:
            self.also = [f"127.0.0.1:{PORT + 3 + n}" for n in range(3)]

    def command(self, n):
        quorum = ",".join(f"{i}@{address}" for i, address in enumerate(self.addresses))
        command = [binary(), "serve", "--broker-id", str(n), "--quorum", quorum, "--data", str(self.data / str(n))]
        command += ["--flush", self.flush] if self.flush else []
        return command + (["--metrics", self.also[n]] if self.also else [])

    def measure(self, n, family):
        """The sum over a family at broker n."""
        with urllib.request.urlopen(f"http://{self.also[n]}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return sum(int(line.rsplit(" ", 1)[1]) for line in lines if re.split("[{ ]", line)[0] == family)


PROPERTIES = """\
process.roles=broker,controller
node.id={n}
controller.quorum.voters={voters}
listeners=PLAINTEXT://{address},CONTROLLER://{controller}
advertised.listeners=PLAINTEXT://{address}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={data}
num.partitions=2
default.replication.factor=3
min.insync.replicas=2
offsets.topic.num.partitions=2
offsets.topic.replication.factor=3
transaction.state.log.num.partitions=2
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
group.initial.rebalance.delay.ms=0
transaction.two.phase.commit.enable=true
"""


class Apache(Brokers):
    """In combined mode: each process is a broker and a controller. `options` are those of the virtual machine."""

    NAME = "Apache Kafka"
    # A virtual machine that ends by SIGTERM says so.
    ENDS = (0, 143)
    FORMS = 90
    CATCHES_UP = 12
    OPTIONS = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xms128m", "-Xmx512m"]

    def __init__(self, name, options=None):
        super().__init__(name, PORT + 10)
        self.options = options or self.OPTIONS

    def file(self, n):
        return self.data / f"{n}.properties"

    def form(self):
        controllers = [f"127.0.0.1:{PORT + 13 + n}" for n in range(3)]
        voters = ",".join(f"{n}@{address}" for n, address in enumerate(controllers))
        for n in range(3):
            self.file(n).write_text(PROPERTIES.format(n=n, voters=voters, address=self.addresses[n],
                                                      controller=controllers[n], data=self.data / str(n)))
        files = [self.file(n) for n in range(3)]
        done = subprocess.run(java("streamproof.interop.Format", *files), capture_output=True, text=True, timeout=60)
        expect(done.returncode == 0, f"the directories were not formatted: {done.stdout}{done.stderr}")
        super().form()

    def command(self, n):
        return java("kafka.Kafka", self.file(n), options=self.options)


def system(name):
    """A cluster of the kind that INTEROP_SYSTEM says: ours, unless it is `kafka`."""
    return Apache(name) if os.environ.get("INTEROP_SYSTEM") == "kafka" else Streamproof(name)


def is_free(address):
    """Whether nobody listens there. Said before a broker says so less clearly."""
    host, port = address.split(":")
    with socket.socket() as s:
        return s.connect_ex((host, int(port))) != 0


class Kills(threading.Thread):
    """Kills brokers with -9, one after the other, each back and in sync before the next, until it is stopped.

    The controller and every leader are among them in time. `count` says how many were killed.
    """

    def __init__(self, cluster, first=1, pause=2, down=3):
        super().__init__(daemon=True)
        self.cluster, self.next, self.pause, self.down = cluster, first, pause, down
        self.stopped, self.count, self.error = threading.Event(), 0, None

    def run(self):
        try:
            while not self.stopped.wait(self.pause):
                self.cluster.alive()
                n = self.next
                self.next = (n + 1) % 3
                self.cluster.kill(n)
                self.count += 1
                time.sleep(self.down)
                self.cluster.start(n)
                # Two of three are needed: none may go before this one has caught up.
                time.sleep(self.cluster.CATCHES_UP)
        except Exception as e:
            self.error = e

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.join(60)
        if self.error:
            raise self.error
