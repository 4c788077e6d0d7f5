//! The model against the vectors computed by hand, and the batch answer against those without a behind record.

#![allow(clippy::disallowed_methods)] // reads the vectors' files

use std::path::Path;

use streamproof_models::record::decode;
use streamproof_models::vector::{Vector, VectorStep};

fn vectors() -> Vec<(String, Vector)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden");
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = String::from_utf8(std::fs::read(&path).unwrap()).unwrap();
        all.push((name.clone(), Vector::parse(&text).unwrap_or_else(|e| panic!("{name}: {e}"))));
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

#[test]
fn the_model_gives_the_answers_computed_by_hand() {
    let all = vectors();
    assert!(all.len() >= 30, "{} vectors", all.len());
    let wrong: Vec<String> =
        all.iter().filter_map(|(name, v)| v.check(&v.answer()).err().map(|e| format!("{name}: {e}"))).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Rule 11: while every record is on time and the input ends, the rows are the batch answer.
#[test]
fn the_batch_answer_agrees_where_it_applies() {
    let mut judged = 0;
    for (name, vector) in vectors() {
        let answer = vector.answer();
        let ended = vector.steps.iter().filter(|s| matches!(s, VectorStep::End(_))).count() == vector.splits as usize;
        let on_time = answer.late.is_empty() && !answer.rows.iter().any(|row| row.contains("\"kind\":\"late\""));
        if !ended || !on_time {
            continue;
        }
        judged += 1;
        let job = vector.job();
        let mut next = std::collections::BTreeMap::new();
        let mut events = Vec::new();
        for step in &vector.steps {
            if let (VectorStep::Record { split, .. }, Some(bytes)) = (step, step.bytes()) {
                let offset = next.entry(*split).or_insert(0i64);
                if let Ok(event) = decode(&job.source, Some(&bytes)) {
                    events.push((*split, *offset, event));
                }
                *offset += 1;
            }
        }
        let rows = streamproof_models::batch(&job, events.iter().map(|(p, o, e)| (*p, *o, e)));
        let mut fired = answer.rows.clone();
        let mut batch: Vec<String> = rows.iter().map(ToString::to_string).collect();
        fired.sort();
        batch.sort();
        assert_eq!(fired, batch, "{name}");
    }
    assert!(judged >= 10, "{judged} vectors judged the batch model");
}
