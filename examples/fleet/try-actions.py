#!/usr/bin/env python3
"""Runs a workflow of GitHub Actions on this machine: its own `run:` steps, job after job, each shard of a matrix in turn.

    try-actions.py --program target/release/streamproof --input shards=3 --input seeds=45 --work DIR

Each job gets a folder of its own, as it gets a machine there. Of the `uses:` steps, checkout copies examples/, and
artifacts are copied to and from DIR/artifacts; others are skipped, and it says so. With --program the step `Build` is
not run: the given program takes the place of what it would have built. It knows the expressions that this folder's
workflow needs and refuses others. What it cannot show: the runners' own limits, signals and tools.

Needs PyYAML. Exit codes: 0 the workflow succeeded, 1 it failed, 2 usage.
"""

import argparse
import fnmatch
import glob
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

try:
    import yaml
except ImportError:
    sys.exit("try-actions.py: needs PyYAML (Debian: python3-yaml; PyPI: PyYAML)")

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent.parent
# What GitHub shows of a step.
MAX_ANNOTATIONS = 10
TOKEN = re.compile(r"\s*(?:('(?:[^']|'')*')|(\d+)|([A-Za-z_][\w.-]*)|(&&|\|\||==|!=|[!(),]))")


class Refusal(Exception):
    """The workflow or the command line asks for what is not there."""


class Expression:
    """One `${{ … }}`: literals, contexts by their path, calls, and ! == != && || with brackets."""

    def __init__(self, text, context, functions):
        self.text, self.context, self.functions = text, context, functions
        self.tokens, at = [], 0
        text = text.rstrip()
        while at < len(text):
            match = TOKEN.match(text, at)
            if not match:
                raise Refusal(f"unknown expression: {text}")
            self.tokens.append(match.groups())
            at = match.end()
        self.at = 0

    def value(self):
        value = self.either()
        if self.at != len(self.tokens):
            raise Refusal(f"unknown expression: {self.text}")
        return value

    def operator(self, *which):
        if self.at < len(self.tokens) and self.tokens[self.at][3] in which:
            self.at += 1
            return self.tokens[self.at - 1][3]
        return None

    def either(self):
        value = self.both()
        while self.operator("||"):
            other = self.both()
            value = value or other
        return value

    def both(self):
        value = self.compared()
        while self.operator("&&"):
            other = self.compared()
            value = value and other
        return value

    def compared(self):
        value = self.one()
        which = self.operator("==", "!=")
        if which:
            equal = value == self.one()
            return equal if which == "==" else not equal
        return value

    def one(self):
        if self.operator("!"):
            return not self.one()
        if self.operator("("):
            value = self.either()
            if not self.operator(")"):
                raise Refusal(f"a bracket is not closed: {self.text}")
            return value
        if self.at >= len(self.tokens):
            raise Refusal(f"an expression ends too early: {self.text}")
        string, number, name, _ = self.tokens[self.at]
        self.at += 1
        if string is not None:
            return string[1:-1].replace("''", "'")
        if number is not None:
            return int(number)
        if name is None:
            raise Refusal(f"unknown expression: {self.text}")
        if not self.operator("("):
            return self.lookup(name)
        arguments = []
        while not self.operator(")"):
            arguments.append(self.either())
            self.operator(",")
        if name not in self.functions:
            raise Refusal(f"unknown function {name}: {self.text}")
        return self.functions[name](*arguments)

    def lookup(self, name):
        value = {**self.context, "true": True, "false": False}
        parts = name.split(".")
        if parts[0] not in value:
            raise Refusal(f"unknown context {parts[0]}: {self.text}")
        for part in parts:
            value = value.get(part, "") if isinstance(value, dict) else ""
        return value


def text_of(value):
    return {True: "true", False: "false"}.get(value, str(value)) if isinstance(value, bool) else str(value)


class Job:
    """One job of the workflow, or one shard of its matrix."""

    def __init__(self, runner, name, spec, matrix, needs):
        self.runner, self.name, self.spec = runner, name, spec
        self.folder = runner.work / "jobs" / name
        self.failed, self.steps = False, {}
        self.context = {**runner.context, "matrix": matrix, "needs": needs, "steps": self.steps}
        self.context["runner"] = {"os": "Linux"}

    def value(self, text):
        functions = {
            "always": lambda: True,
            "success": lambda: not self.failed,
            "failure": lambda: self.failed,
            "cancelled": lambda: False,
            "fromJSON": json.loads,
            "hashFiles": lambda *_: "0",
        }
        return Expression(text, self.context, functions).value()

    def fill(self, text):
        """The text with each expression's value in its place."""
        return re.sub(r"\$\{\{(.*?)\}\}", lambda m: text_of(self.value(m[1])), str(text), flags=re.S)

    def condition(self, spec):
        text = str(spec.get("if", "success()")).strip()
        text = re.sub(r"^\$\{\{(.*)\}\}$", r"\1", text, flags=re.S)
        if not re.search(r"\b(always|success|failure|cancelled)\(\)", text):
            text = f"success() && ({text})"
        return bool(self.value(text))

    def run(self):
        self.folder.mkdir(parents=True)
        for number, step in enumerate(self.spec["steps"]):
            title = step.get("name") or step.get("uses") or f"step {number}"
            if not self.condition(step):
                print(f"  {self.name}: {title}: skipped")
                continue
            try:
                code = self.command(number, step) if "run" in step else self.action(step)
            except OSError as e:
                print(f"  {self.name}: {title}: {e}")
                code = 1
            print(f"  {self.name}: {title}: exit {code}" if code is not None else f"  {self.name}: {title}: left out")
            if code:
                self.failed = True
        outputs = {key: self.fill(value) for key, value in self.spec.get("outputs", {}).items()}
        return {"result": "failure" if self.failed else "success", "outputs": outputs}

    def command(self, number, step):
        if step.get("name") == "Build" and self.runner.program:
            target = self.folder / "target/release/streamproof"
            target.parent.mkdir(parents=True)
            shutil.copy2(self.runner.program, target)
            return None
        output, summary = (self.runner.work / f"{self.name}-{number}.{kind}" for kind in ("output", "summary.md"))
        script = self.runner.work / f"{self.name}-{number}.sh"
        script.write_text(self.fill(step["run"]))
        env = {**os.environ, "CI": "true", "GITHUB_ACTIONS": "true"}
        env.update(GITHUB_OUTPUT=str(output), GITHUB_STEP_SUMMARY=str(summary))
        for scope in (self.runner.workflow, self.spec, step):
            env.update({key: self.fill(value) for key, value in scope.get("env", {}).items()})
        # As the documentation says that the two are started.
        shell = ["bash", "--noprofile", "--norc", "-eo", "pipefail"] if step.get("shell") == "bash" else ["bash", "-e"]
        done = subprocess.run(shell + [str(script)], cwd=self.folder, env=env, stdin=subprocess.DEVNULL, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        for line in done.stdout.splitlines():
            print(f"    | {line}")
        annotations = len(re.findall(r"^::(?:error|warning|notice)\b", done.stdout, flags=re.M))
        if annotations:
            print(f"    {annotations} annotations, of which GitHub shows at most {MAX_ANNOTATIONS}")
        if annotations > MAX_ANNOTATIONS:
            raise Refusal(f"{self.name}: {annotations} annotations in one step: some would be lost without a word")
        if output.exists():
            pairs = (line.split("=", 1) for line in output.read_text().splitlines() if "=" in line)
            self.steps[step.get("id", str(number))] = {"outputs": dict(pairs)}
        return done.returncode

    def action(self, step):
        action = step["uses"].split("@")[0]
        given = {key: self.fill(value) for key, value in step.get("with", {}).items()}
        if action == "actions/checkout":
            shutil.copytree(CHECKOUT / "examples", self.folder / "examples", dirs_exist_ok=True)
            return 0
        if action == "actions/upload-artifact":
            return self.upload(given)
        if action == "actions/download-artifact":
            return self.download(given)
        return None

    def upload(self, given):
        hits = [Path(hit) for line in given["path"].split() for hit in glob.glob(str(self.folder / line))]
        files = [f for hit in hits for f in ([hit] if hit.is_file() else hit.rglob("*")) if f.is_file()]
        # The action leaves hidden files out unless it is told otherwise.
        files = [f for f in files if not any(part.startswith(".") for part in f.relative_to(self.folder).parts)]
        if not files:
            print(f"    no file at {given['path']}")
            return 0
        root = hits[0] if len(hits) == 1 and hits[0].is_dir() else Path(os.path.commonpath([f.parent for f in files]))
        for file in files:
            target = self.runner.artifacts / given["name"] / file.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            # Without its mode, as there: an artifact is a zip file of contents.
            shutil.copyfile(file, target)
        return 0

    def download(self, given):
        target = self.folder / given.get("path", ".")
        if "name" in given:
            if not (self.runner.artifacts / given["name"]).is_dir():
                print(f"    there is no artifact {given['name']}")
                return 1
            names = [given["name"]]
        else:
            names = fnmatch.filter(sorted(os.listdir(self.runner.artifacts)), given.get("pattern", "*"))
        flat = "name" in given or given.get("merge-multiple") == "true" or given.get("merge-multiple") == "True"
        for name in names:
            shutil.copytree(self.runner.artifacts / name, target if flat else target / name, dirs_exist_ok=True)
        return 0


class Runner:
    """A whole workflow."""

    def __init__(self, workflow, work, program, inputs):
        self.workflow, self.work, self.program = workflow, work, program
        self.artifacts = work / "artifacts"
        self.context = {"inputs": inputs, "github": {"run_number": "1", "event_name": "workflow_dispatch"}}
        self.results = {}

    def run(self):
        self.artifacts.mkdir(parents=True)
        waiting = dict(self.workflow["jobs"])
        while waiting:
            ready = [name for name, spec in waiting.items() if all(need in self.results for need in needs_of(spec))]
            if not ready:
                raise Refusal(f"jobs wait for each other: {', '.join(waiting)}")
            for name in ready:
                self.results[name] = self.job(name, waiting.pop(name))
                print(f"{name}: {self.results[name]['result']}")
        return all(result["result"] != "failure" for result in self.results.values())

    def job(self, name, spec):
        needs = {need: self.results[need] for need in needs_of(spec)}
        asked = Job(self, name, spec, {}, needs)
        asked.failed = any(need["result"] != "success" for need in needs.values())
        if not asked.condition(spec):
            return {"result": "skipped", "outputs": {}}
        variants = [{}]
        for key, values in spec.get("strategy", {}).get("matrix", {}).items():
            if isinstance(values, str):
                values = asked.value(re.fullmatch(r"\$\{\{(.*)\}\}", values.strip(), flags=re.S)[1])
            variants = [{**variant, key: value} for variant in variants for value in values]
        stops = spec.get("strategy", {}).get("fail-fast", True)
        result = {"result": "success", "outputs": {}}
        for variant in variants:
            label = "-".join([name, *map(str, variant.values())])
            print(f"{label}:")
            one = Job(self, label, spec, variant, needs).run()
            result["outputs"].update(one["outputs"])
            if one["result"] != "success":
                result["result"] = "failure"
                if stops:
                    break
        return result


def needs_of(spec):
    needs = spec.get("needs", [])
    return [needs] if isinstance(needs, str) else needs


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workflow", type=Path, default=HERE / "github-actions.yml")
    parser.add_argument("--program", type=Path, help="takes the place of what the step `Build` makes")
    parser.add_argument("--input", action="append", default=[], metavar="NAME=VALUE", help="as of a dispatch")
    parser.add_argument("--work", type=Path, required=True, help="a folder that does not exist yet")
    args = parser.parse_args()
    workflow = yaml.safe_load(args.workflow.read_text())
    # YAML 1.1 takes the key `on` for a truth value.
    known = workflow[True]["workflow_dispatch"]["inputs"]
    inputs = {name: spec.get("default", "") for name, spec in known.items()}
    for given in args.input:
        name, equals, value = given.partition("=")
        if not equals or name not in known:
            raise Refusal(f"--input {given}: the workflow has {', '.join(known)}, each as NAME=VALUE")
        inputs[name] = value
    if args.program and not os.access(args.program, os.X_OK):
        raise Refusal(f"--program {args.program} is not there or cannot be executed")
    if args.work.exists():
        raise Refusal(f"--work {args.work} exists: an earlier try would mix with this one")
    args.work.mkdir(parents=True)
    good = Runner(workflow, args.work.resolve(), args.program, inputs).run()
    print("the workflow succeeded" if good else "the workflow failed")
    return 0 if good else 1


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)
    try:
        sys.exit(main())
    except (Refusal, OSError, yaml.YAMLError) as refused:
        print(f"try-actions.py: {refused}", file=sys.stderr)
        sys.exit(2)
