//! Every JSON line, and every line of a run's folder, is what `reports/schema/lines.schema.json` says; and the schema says no
//! more than the program writes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::LazyLock;

use jsonschema::Validator;
use reports::explain::{Need, StepKind};
use reports::summary::Stopped;
use reports::{JSON_VERSION, JobPhase, LineType, SeedReport, Verdict, json_line};
use scenarios::plan::Family;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use streamproof::audit::{Detection, Finding};
use streamproof::exit::Exit;
use streamproof::lesson::Lesson;

use super::{JOB, streamproof, transcript};

/// The schema of every line; the book's reference is made from it too.
pub static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../reports/schema/lines.schema.json")).expect("the schema is JSON")
});
const TOO_EARLY: &str = include_str!("../../book/src/tutorial/too-early.json");

/// A line and the definition that it must fit.
type Line = (String, Value);

static LINES: LazyLock<Vec<Line>> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a folder");
    let mut all = from_runs(dir.path());
    all.extend(from_a_failure(dir.path()));
    all.extend(from_kept_plans(dir.path()));
    all.extend(from_checks(dir.path()));
    all.extend(from_audits());
    all.extend(unfinished());
    all
});

/// The lines that a command writes.
fn lines(dir: &Path, exit: i32, command: &str) -> Vec<Line> {
    let args: Vec<&str> = command.split(' ').chain(["--format", "json"]).collect();
    let output = streamproof(dir, &args);
    assert_eq!(output.status.code(), Some(exit), "{command}: {}", transcript(&output));
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(!text.is_empty(), "{command} wrote nothing");
    text.lines().map(typed).collect()
}

fn typed(line: &str) -> Line {
    let value: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    (value["type"].as_str().unwrap_or_else(|| panic!("no type: {line}")).to_owned(), value)
}

/// The stored lines of a run's folder.
fn stored(run: &Path) -> Vec<Line> {
    let read = |name: &str| std::fs::read_to_string(run.join(name)).expect("a file of the run");
    let value = |text: &str| serde_json::from_str(text).expect("JSON");
    let mut all: Vec<Line> = read("seeds.jsonl").lines().map(|line| ("stored_seed".to_owned(), value(line))).collect();
    all.push(("stored_summary".to_owned(), value(&read("summary.json"))));
    all.push(("stored_run".to_owned(), value(&read("run.json"))));
    all
}

fn from_runs(dir: &Path) -> Vec<Line> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let events: String = (0..20).map(|n| format!("{{\"k\":\"a\",\"t\":{n},\"v\":1}}\n")).collect();
    std::fs::write(dir.join("events.jsonl"), events).expect("a writable folder");
    std::fs::write(dir.join("job.toml"), JOB).expect("a writable folder");
    let mut all = Vec::new();
    all.extend(lines(dir, 0, "run checkpoint_crash --seeds 1 --faults process,crash_points --run-dir of-a-job"));
    all.extend(lines(dir, 0, "run swarm --seeds 8 --shard 1/2 --run-dir of-a-part"));
    all.extend(lines(dir, 0, "run canary_page_cache --seeds 8 --run-dir of-a-canary"));
    all.extend(lines(dir, 0, "run --job job.toml --events events.jsonl --seeds 1 --run-dir of-the-users"));
    let part = "run --job job.toml --events events.jsonl --seeds 2 --shard 1/2 --run-dir of-the-users-part";
    all.extend(lines(dir, 0, part));
    for run in ["of-a-job", "of-a-part", "of-a-canary", "of-the-users", "of-the-users-part"] {
        all.extend(stored(&dir.join(run)));
    }
    all.extend(lines(dir, 0, "run --show-config"));
    all.extend(lines(dir, 0, "report of-a-job --merge"));
    all.extend(lines(dir, 0, "replay crash_restart/0"));
    all.extend(lines(dir, 0, "determinism crash_restart --seeds 1"));
    for what in ["scenarios", "invariants", "faults", "bugs", "sometimes"] {
        all.extend(lines(&root, 0, &format!("list {what}")));
    }
    all
}

fn from_a_failure(dir: &Path) -> Vec<Line> {
    std::fs::write(dir.join("plan.json"), TOO_EARLY).expect("a writable folder");
    let mut all = lines(dir, 10, "run plan.json --seeds 2 --max-fail 1 --run-dir failing");
    all.extend(stored(&dir.join("failing")));
    all.extend(lines(dir, 10, "replay plan.json"));
    all.extend(lines(dir, 0, "explain plan.json --tails 2"));
    // To its end; and again, where there is nothing more to cut.
    all.extend(lines(dir, 0, "shrink plan.json --output small.json"));
    all.extend(lines(dir, 0, "shrink small.json"));
    all
}

fn from_kept_plans(dir: &Path) -> Vec<Line> {
    for (name, story) in [("early", "acknowledged too early"), ("early-too", "the same")] {
        let added = streamproof(dir, &["regress", "add", "small.json", name, "--story", story]);
        assert_eq!(added.status.code(), Some(0), "{}", transcript(&added));
    }
    let mut all = lines(dir, 10, "regress run early");
    std::fs::write(dir.join("tests/regressions/torn.json"), "{}").expect("a writable folder");
    all.extend(lines(dir, 0, "regress list"));
    all.extend(lines(dir, 0, "regress prune --dry-run"));
    all
}

fn from_checks(dir: &Path) -> Vec<Line> {
    let rows = r#"{"key":"a","window_start":0,"window_end":10,"count":9,"sum":10}"#;
    std::fs::write(dir.join("rows.jsonl"), format!("{rows}\n")).expect("a writable folder");
    lines(dir, 10, "check --job job.toml --input events.jsonl --output rows.jsonl")
}

/// `audit` builds programs for minutes: what it writes is made here from the same types.
fn from_audits() -> Vec<Line> {
    let detection = |result| Detection {
        bug: "early-ack".into(),
        first_seed: 10_000,
        seeds: 500,
        result,
        seeds_run: 3,
        simulated_ms: 91_000,
        wall_ms: 812,
    };
    let lesson = |guilty_named| Lesson {
        bug: "early-ack".into(),
        seed: 2,
        check: "acked-durable".into(),
        faults_before: 10,
        faults: 1,
        records_before: 1201,
        records: 1,
        wall_ms: 17_900,
        complete: true,
        guilty_named,
        not_explained: guilty_named.is_none().then(|| "the patched program did not build".to_owned()),
    };
    let findings = [
        Finding::RightCheck { seed: 2, check: "acked-durable".into() },
        Finding::WrongCheck { seed: 1, checks: ["no-duplicate".to_owned()].into() },
        Finding::Nothing,
    ];
    let detections = findings.map(|result| json_line(LineType::Detection, &detection(result)));
    let lessons = [Some(true), None].map(|named| json_line(LineType::Lesson, &lesson(named)));
    detections.iter().chain(&lessons).map(|line| typed(line)).collect()
}

/// Of each verdict that a worker's supervisor may give by itself.
fn unfinished() -> Vec<Line> {
    let verdicts = variants::<Verdict>();
    let line = |verdict: &String| {
        let verdict = serde_json::from_value(json!(verdict)).expect("a verdict");
        json_line(LineType::Seed, &SeedReport::unfinished("swarm", u64::MAX, verdict, "a worker died"))
    };
    verdicts.iter().map(|verdict| typed(&line(verdict))).collect()
}

/// The names of an enumeration's variants, which serde lists for whoever names another.
fn variants<T: DeserializeOwned>() -> Vec<String> {
    let Err(refused) = serde_json::from_str::<T>("\"none such\"") else { panic!("not an enumeration") };
    let text = refused.to_string();
    text.split('`').skip(1).step_by(2).skip(1).map(str::to_owned).collect()
}

/// What a definition takes; the schema itself is for the whole line.
struct Validators {
    any: Validator,
    of: BTreeMap<String, Validator>,
}

static VALIDATORS: LazyLock<Validators> = LazyLock::new(|| {
    let compile = |schema: &Value| jsonschema::validator_for(schema).unwrap_or_else(|e| panic!("the schema: {e}"));
    let of = |name: &String| {
        let mut schema = SCHEMA.clone();
        let root = schema.as_object_mut().expect("an object");
        root.remove("oneOf");
        root.insert("$ref".into(), format!("#/$defs/{name}").into());
        (name.clone(), compile(&schema))
    };
    Validators { any: compile(&SCHEMA), of: SCHEMA["$defs"].as_object().expect("definitions").keys().map(of).collect() }
});

impl Validators {
    fn takes(&self, (name, value): &Line) -> bool {
        self.of[name].is_valid(value) && (name.starts_with("stored_") || self.any.is_valid(value))
    }
}

#[test]
fn every_line_fits_the_schema() {
    let validators = &*VALIDATORS;
    for line in LINES.iter() {
        let (name, value) = line;
        let errors: Vec<String> =
            validators.of[name].iter_errors(value).map(|e| format!("{}: {e}", e.instance_path())).collect();
        assert!(validators.takes(line), "{name}: {}\n{value}", errors.join("\n"));
    }
}

#[test]
fn the_schema_has_the_types_and_names_of_the_program() {
    let entries = |value: &Value| value.as_array().expect("a list").clone();
    let of_schema: Vec<Value> = entries(&SCHEMA["oneOf"]).iter().map(|one| one["$ref"].clone()).collect();
    let of_program: Vec<String> = LineType::ALL.iter().map(|kind| format!("#/$defs/{}", kind.name())).collect();
    assert_eq!(of_schema, of_program);
    for kind in LineType::ALL {
        assert_eq!(SCHEMA["$defs"][kind.name()]["properties"]["type"]["const"], kind.name());
    }
    let definition =
        |pointer: &str| SCHEMA.pointer(&format!("/$defs/{pointer}")).unwrap_or_else(|| panic!("no {pointer}"));
    for pointer in ["line/properties/version", "stored_seed/properties/report/properties/version"] {
        assert_eq!(definition(pointer)["const"], JSON_VERSION, "{pointer}");
    }
    let same = |pointer: &str, mut names: Vec<Value>| {
        let mut listed = entries(&definition(pointer)["enum"]);
        names.sort_by_key(Value::to_string);
        listed.sort_by_key(Value::to_string);
        assert_eq!(listed, names, "{pointer}");
    };
    let named = |names: Vec<String>| names.into_iter().map(Value::from).collect::<Vec<_>>();
    let failing = |verdict: &String| serde_json::from_value::<Verdict>(json!(verdict)).expect("a verdict").is_failure();
    same("verdict", named(variants::<Verdict>()));
    same("failing_verdict", named(variants::<Verdict>().into_iter().filter(failing).collect()));
    same("family", Family::ALL.iter().map(|family| family.name().into()).collect());
    let phases = "stats/properties/faults_by_job_phase/additionalProperties/propertyNames";
    same(phases, JobPhase::ALL.iter().map(|phase| json!(phase)).collect());
    let kinds = [StepKind::Client, StepKind::Broker, StepKind::Job, StepKind::Fault, StepKind::Violation];
    same("explanation/properties/steps/items/properties/kind", kinds.iter().map(|kind| json!(kind)).collect());
    same("explanation/properties/faults/items/properties/need", named(variants::<Need>()));
    let stopped = named(variants::<Stopped>()).into_iter().chain([Value::Null]);
    same("run_figures/properties/stopped", stopped.collect());
    same("run_figures/properties/exit_code", Exit::all().iter().map(|exit| exit.code().into()).collect());
}

#[test]
fn every_field_of_the_schema_is_written() {
    let mut all = BTreeSet::new();
    for (name, definition) in SCHEMA["$defs"].as_object().expect("definitions") {
        named_fields(definition, &format!("#/$defs/{name}"), &mut all);
    }
    let mut seen = BTreeSet::new();
    for (name, value) in LINES.iter() {
        written_fields(&format!("#/$defs/{name}"), value, &mut seen);
    }
    let unseen: Vec<&String> = all.difference(&seen).collect();
    assert!(unseen.is_empty(), "no line has {unseen:#?}");
}

/// The pointers of all fields that a schema names, except by its cases.
fn named_fields(schema: &Value, at: &str, all: &mut BTreeSet<String>) {
    let Some(object) = schema.as_object() else { return };
    for (name, field) in object.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let at = format!("{at}/properties/{name}");
        named_fields(field, &at, all);
        all.insert(at);
    }
    for below in ["items", "additionalProperties"] {
        named_fields(&schema[below], &format!("{at}/{below}"), all);
    }
    for list in ["allOf", "anyOf"] {
        for (n, one) in schema[list].as_array().into_iter().flatten().enumerate() {
            named_fields(one, &format!("{at}/{list}/{n}"), all);
        }
    }
}

/// Those of them that a line has.
fn written_fields(at: &str, value: &Value, seen: &mut BTreeSet<String>) {
    let Some(schema) = SCHEMA.pointer(at.trim_start_matches('#')) else { return };
    if let Some(target) = schema["$ref"].as_str() {
        written_fields(target, value, seen);
    }
    for list in ["allOf", "anyOf"] {
        for n in 0..schema[list].as_array().map_or(0, Vec::len) {
            written_fields(&format!("{at}/{list}/{n}"), value, seen);
        }
    }
    for (name, field) in value.as_object().into_iter().flatten() {
        let named = format!("{at}/properties/{name}");
        if schema["properties"].get(name).is_some() {
            written_fields(&named, field, seen);
            seen.insert(named);
        } else {
            written_fields(&format!("{at}/additionalProperties"), field, seen);
        }
    }
    for item in value.as_array().into_iter().flatten() {
        written_fields(&format!("{at}/items"), item, seen);
    }
}

#[test]
fn a_line_with_an_unknown_field_or_a_wrong_type_is_refused() {
    let validators = &*VALIDATORS;
    let mut tried = 0;
    for (name, value) in LINES.iter() {
        for pointer in pointers(value) {
            for wrong in changed(value, &pointer) {
                tried += 1;
                assert!(!validators.takes(&(name.clone(), wrong.clone())), "{name}: {pointer} of {wrong}");
            }
        }
    }
    assert!(tried > 1_000, "only {tried} were tried");
}

/// The line with another field in the object there, and with a list of lists there, which is in no line.
fn changed(line: &Value, pointer: &str) -> Vec<Value> {
    let mut all = Vec::new();
    let mut unknown = line.clone();
    if let Some(Value::Object(object)) = unknown.pointer_mut(pointer) {
        object.insert("unknown".into(), "a text".into());
        all.push(unknown);
    }
    let mut wrong = line.clone();
    *wrong.pointer_mut(pointer).expect("a pointer of the line") = json!([[]]);
    all.push(wrong);
    all
}

/// What a reader must not rely on is this, and nothing else.
#[test]
fn a_line_without_a_field_is_refused_but_for_those_that_may_be_absent() {
    let validators = &*VALIDATORS;
    let mut absent = BTreeSet::new();
    for (name, value) in LINES.iter() {
        for pointer in pointers(value) {
            let Some((parent, field)) = pointer.rsplit_once('/') else { continue };
            let mut less = value.clone();
            let Some(Value::Object(object)) = less.pointer_mut(parent) else { continue };
            object.remove(field);
            if validators.takes(&(name.clone(), less)) {
                // Without the numbers of list entries.
                let path = pointer.split('/').skip(1).filter(|part| part.parse::<u32>().is_err());
                absent.insert(format!("{name}: {}", path.collect::<Vec<_>>().join(".")));
            }
        }
    }
    // Of objects by name a name may be absent.
    let maps = ["faults.", "faults_by_family.", "faults_by_job_phase.", "canaries.", "family_off_share."];
    absent.retain(|path| !maps.iter().any(|map| path.contains(map)));
    let absent: Vec<String> = absent.into_iter().collect();
    insta::assert_snapshot!(absent.join("\n"), @r"
    check: violations.witness.expected
    check: violations.witness.found
    check: violations.witness.key
    check: violations.witness.window
    explanation: at_ms
    explanation: curve
    explanation: curve.inevitable_ms
    explanation: expected
    explanation: faults
    explanation: found
    explanation: journey
    explanation: journey.stages.at_ms
    explanation: place
    explanation: steps.at_ms
    explanation: without_any
    failure: failures
    failure: failures.witness.expected
    failure: failures.witness.found
    failure: failures.witness.place
    failure: failures.witness.subject
    failure: fault_steps
    lesson: not_explained
    seed: failures
    seed: failures.witness.expected
    seed: failures.witness.found
    seed: failures.witness.place
    seed: failures.witness.subject
    seed: fault_steps
    seed: note
    seed: stats.faults_by_job_phase
    stored_run: shard
    stored_run: sweep
    stored_seed: report.failures
    stored_seed: report.failures.witness.expected
    stored_seed: report.failures.witness.found
    stored_seed: report.failures.witness.place
    stored_seed: report.failures.witness.subject
    stored_seed: report.fault_steps
    stored_seed: report.note
    stored_seed: report.stats.faults_by_job_phase
    ");
}

/// Of all values in a line, the line first.
fn pointers(line: &Value) -> Vec<String> {
    let mut all = vec![String::new()];
    let below: Vec<(String, &Value)> = match line {
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), value)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(n, value)| (n.to_string(), value)).collect(),
        _ => Vec::new(),
    };
    for (name, value) in below {
        let name = name.replace('~', "~0").replace('/', "~1");
        all.extend(pointers(value).into_iter().map(|rest| format!("/{name}{rest}")));
    }
    all
}
