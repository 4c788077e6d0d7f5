"""The same scripts against three brokers of ours and three of Apache Kafka, side by side: the same answers.

Usage: beside.py PROGRAM [CHECK…].

A script asks a cluster one thing after the other and notes each step with its outcome, from which it leaves out what
differs from run to run: ids, addresses, which broker leads. Outcomes that are meant to differ are in `DIFFERENCES`,
each with the reason; a difference that is not there fails, and so does one there that is none any more.
"""

import functools
import subprocess
import threading

from brokers import Apache, Streamproof, java
from harness import WORK, detail, expect, main


def answers(cluster):
    """What a Java program can ask: `Answers.java`."""
    done = subprocess.run(java("streamproof.interop.Answers", cluster.bootstrap), capture_output=True, text=True,
                          timeout=240)
    detail(f"Answers on {cluster.NAME}:\n{done.stderr}")
    expect(done.returncode == 0, f"Answers ended with {done.returncode} on {cluster.NAME}: {done.stderr[-500:]}")
    return [tuple(line.split("\t", 1)) for line in done.stdout.splitlines() if "\t" in line]


DIFFERENCES = {}


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
    wrong = [f"{step}: {a!r}, and {theirs.NAME}: {b!r}"
             for (step, a), (_, b) in zip(one, other) if a != b and step not in meant]
    same = [step for (step, a), (_, b) in zip(one, other) if a == b and step in meant]
    for line in wrong:
        detail(line)
    expect(not wrong, f"{len(wrong)} of {len(one)} answers differ:\n  " + "\n  ".join(wrong))
    expect(not same, f"these are said to differ and do not: {same}")
    ours.alive()
    theirs.alive()
    return f"{len(one)} answers, {len(meant)} of them meant to differ"


CHECKS = {
    "beside-java": lambda: compare("java", answers),
}


if __name__ == "__main__":
    try:
        main(CHECKS)
    finally:
        if clusters.cache_info().currsize:
            for cluster in clusters():
                cluster.__exit__()
