//! `streamproof model`: the batch answer of a job over an events file.

use std::collections::BTreeMap;
use std::fmt::Write;

use models::spec::Function;

use super::args::ModelArgs;
use super::{Refusal, out};
use crate::exit::Exit;
use crate::plans::{notes, read_events, read_text};

pub fn run(args: ModelArgs) -> Result<Exit, Refusal> {
    let job_file = args.job.display().to_string();
    let toml = read_text(&args.job).map_err(Refusal::usage)?;
    let job = models::JobSpec::parse(&toml, &job_file).map_err(|e| Refusal::usage(e.to_string()))?;
    let file = args.events.display().to_string();
    let bytes = std::fs::read(&args.events).map_err(|e| Refusal::usage(format!("{file}: {e}")))?;
    let (events, partitions) = read_events(&job, &file, &bytes).map_err(Refusal::usage)?;
    out::notes(&notes(&file, &events));
    if job.aggregate.contains(&Function::Digest) {
        eprintln!(
            "note: digest depends on partitions and offsets: a row's partition is its field `partition`, or that of its \
             key among {partitions}, and offsets count per partition in the order of the file"
        );
    }
    let mut next: BTreeMap<i32, i64> = BTreeMap::new();
    let mut records = Vec::with_capacity(events.records.len());
    for record in &events.records {
        let offset = next.entry(record.partition).or_default();
        if let Ok(event) = &record.decoded {
            records.push((record.partition, *offset, event));
        }
        *offset += 1;
    }
    let mut text = String::new();
    for row in models::batch(&job, records) {
        let _ = writeln!(text, "{row}");
    }
    out::data(&text);
    Ok(Exit::Pass)
}
