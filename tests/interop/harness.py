"""What every file of checks here shares: where things are, how a check fails, and how the checks named are run.

A check is a function that returns one line of counts, or raises [`Failed`], or [`Skipped`] where the machine does not
allow it. That line is all that is printed; what else is worth knowing goes to `details.log` in the directory of the
interop checks.
"""

import os
import pathlib
import signal
import subprocess
import sys
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
WORK = ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "interop"
# The first of the ports used: three for our brokers, three for their metrics, and from ten further on six for the brokers
# of Apache Kafka.
PORT = int(os.environ.get("INTEROP_PORT", "9092"))

_binary = None


def binary():
    """The program under test."""
    return _binary


def use(program):
    """Says which program is under test."""
    global _binary
    _binary = str(pathlib.Path(program).resolve())
    WORK.mkdir(parents=True, exist_ok=True)


class Failed(Exception):
    pass


class Skipped(Exception):
    """This machine cannot do what the check needs, for the reason given."""


def expect(condition, text):
    if not condition:
        raise Failed(text)


def detail(text):
    with open(WORK / "details.log", "a") as f:
        print(time.strftime("%H:%M:%S"), text, file=f)


def within(seconds, what, attempt, pause=0.2):
    """Repeats `attempt` until it returns something true, which is returned."""
    deadline = time.monotonic() + seconds
    while True:
        found = attempt()
        if found:
            return found
        expect(time.monotonic() < deadline, f"{what} within {seconds} s")
        time.sleep(pause)


def run(checks, names):
    """How many of the checks failed."""
    failed = 0
    for name in names:
        started = time.monotonic()
        detail(f"== {name}")
        try:
            said = checks[name]()
            print(f"interop: {name}: ok, {time.monotonic() - started:.1f} s: {said}", flush=True)
        except Skipped as e:
            print(f"interop: {name}: skipped: {e}", flush=True)
        except Exception as e:  # whatever a foreign client throws is this check's failure
            failed += 1
            if not isinstance(e, (Failed, subprocess.SubprocessError)):
                detail(traceback.format_exc())
            print(f"interop: {name}: FAILED, {time.monotonic() - started:.1f} s: {e!r:.2000}", flush=True)
    return failed


def main(checks):
    """Usage: FILE PROGRAM [CHECK…]; `--list` as the program lists the checks. Exits 1 if one failed."""
    if sys.argv[1:2] == ["--list"]:
        print("\n".join(checks))
        sys.exit(0)
    use(sys.argv[1])
    # Whoever ends it early leaves no broker behind: an exit goes through all the blocks that hold one.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    unknown = [name for name in sys.argv[2:] if name not in checks]
    if unknown:
        sys.exit(f"no such check: {', '.join(unknown)}; there are {', '.join(checks)}")
    sys.exit(1 if run(checks, sys.argv[2:] or checks) else 0)
