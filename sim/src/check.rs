//! Evidence for `check`: a job's input and output, from files or from the topics of a live cluster.
//!
//! Judging is `invariants::check_rows`; the same judgement is used on simulated runs. Files are a finished job's: every
//! window must be there. On a live cluster the job counts as finished if its decisions show that each split has ended.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use client::{Admin, Client, ClientConfig, Consumer, ConsumerConfig, Isolation, OffsetSpec, TopicPartition};
use history::{Blob, Change, Decision, DecisionEntry, Header, Input, InputStatus};
use invariants::{Evidence, Published, SourceRecord};
use models::JobSpec;
use serde::Deserialize;

use crate::plans::{notes, read_events, read_text};

/// Without a new record for this long, reading a topic is given up.
const STALLED: Duration = Duration::from_secs(30);

/// Files of one run.
#[derive(Debug)]
pub struct Files {
    pub input: PathBuf,
    pub output: PathBuf,
    pub late: Option<PathBuf>,
    pub decisions: Option<PathBuf>,
}

impl Files {
    /// What they say, and remarks on single rows of the input.
    ///
    /// # Errors
    /// A sentence that names the file and line.
    pub fn evidence(&self, job: &JobSpec) -> Result<(Evidence<'static>, Vec<String>), String> {
        let name = self.input.display().to_string();
        let bytes = std::fs::read(&self.input).map_err(|e| format!("{name}: {e}"))?;
        let (events, _) = read_events(job, &name, &bytes)?;
        let notes = notes(&name, &events);
        let mut input: BTreeMap<i32, Vec<SourceRecord>> = BTreeMap::new();
        for record in events.records {
            let split = input.entry(record.partition).or_default();
            let (offset, key) = (split.len() as i64, record.key.map(Blob::from));
            split.push(SourceRecord::decode(job, offset, key, Some(Blob::from(record.value)), None));
        }
        let rows = lines(&self.output)?.map(|(place, text)| published(place, None, Some(Blob::from(text)))).collect();
        let late = self.late.as_ref().map(|path| late_records(path, &input)).transpose()?;
        let decisions = self.decisions.as_ref().map(|path| decision_entries(path)).transpose()?;
        let mut evidence = Evidence::new(job.clone(), input, rows);
        evidence.late = late;
        evidence.decisions = decisions.map(Cow::Owned);
        evidence.drained = true;
        Ok((evidence, notes))
    }
}

/// The non-empty lines of a file, each with its place.
fn lines(path: &Path) -> Result<impl Iterator<Item = (String, String)>, String> {
    let name = path.display().to_string();
    let text = read_text(path)?;
    let lines: Vec<(String, String)> = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(n, line)| (format!("{name}:{}", n + 1), line.to_owned()))
        .collect();
    Ok(lines.into_iter())
}

fn published(place: String, key: Option<Blob>, value: Option<Blob>) -> Published {
    Published { place, key, value, headers: Vec::new() }
}

/// `{"partition":0,"offset":17}` a line: key and value are those of the source record it names.
fn late_records(path: &Path, input: &BTreeMap<i32, Vec<SourceRecord>>) -> Result<Vec<Published>, String> {
    #[derive(Deserialize)]
    struct Line {
        partition: i32,
        offset: i64,
    }
    let mut all = Vec::new();
    for (place, text) in lines(path)? {
        let line: Line = serde_json::from_str(&text)
            .map_err(|e| format!("{place}: {e}; write {{\"partition\":0,\"offset\":17}}, say"))?;
        let source = usize::try_from(line.offset).ok().and_then(|o| input.get(&line.partition)?.get(o));
        let (key, value) = source.map_or((None, None), |r| (r.key.clone(), r.value.clone()));
        let header = |name: &str, value: String| Header { key: name.into(), value: Some(Blob::from(value)) };
        let headers = vec![
            header("source.partition", line.partition.to_string()),
            header("source.offset", line.offset.to_string()),
        ];
        all.push(Published { place, key, value, headers });
    }
    Ok(all)
}

fn decision_entries(path: &Path) -> Result<Vec<DecisionEntry>, String> {
    let parse = |(place, text): (String, String)| serde_json::from_str(&text).map_err(|e| format!("{place}: {e}"));
    let mut entries = lines(path)?.map(parse).collect::<Result<Vec<DecisionEntry>, String>>()?;
    in_order(&mut entries);
    Ok(entries)
}

/// A topic of several partitions interleaves the tasks.
fn in_order(entries: &mut [DecisionEntry]) {
    entries.sort_by(|a, b| (a.generation, &a.task, a.seq).cmp(&(b.generation, &b.task, b.seq)));
}

/// Reads the job's topics from a live cluster, `read_committed`, up to their present ends.
///
/// # Errors
/// A sentence: nobody answers, a topic is missing, or reading stalls.
pub async fn live_evidence(brokers: Vec<(String, u16)>, job: &JobSpec) -> Result<Evidence<'static>, String> {
    let client = Client::new(ClientConfig::new(brokers));
    // The job's output first: what it has read by then is in the input.
    let rows = read_topic(&client, &job.sink.topic).await?;
    let late = read_topic(&client, &job.sink.late_topic).await?;
    let dead = read_topic(&client, &job.sink.dlq_topic).await?;
    let decisions = match &job.sink.decisions_topic {
        None => None,
        Some(topic) => Some(read_topic(&client, topic).await?),
    };
    let mut input: BTreeMap<i32, Vec<SourceRecord>> = BTreeMap::new();
    for (partition, record) in read_topic(&client, &job.source.topic).await?.records {
        let decoded = SourceRecord::decode(job, record.offset, blob(record.key), blob(record.value), None);
        input.entry(partition).or_default().push(decoded);
    }
    let decisions = decisions.map(|topic| topic.decisions()).transpose()?;
    let mut evidence = Evidence::new(job.clone(), input, rows.published());
    evidence.late = Some(late.published());
    evidence.dead = Some(dead.published());
    evidence.drained = decisions.as_deref().is_some_and(has_ended);
    evidence.decisions = decisions.map(Cow::Owned);
    Ok(evidence)
}

/// Whether, in its newest generation, every split that a source task opened has ended.
fn has_ended(entries: &[DecisionEntry]) -> bool {
    let Some(newest) = entries.iter().map(|e| e.generation).max() else { return false };
    let mut open: BTreeSet<(&str, &Input)> = BTreeSet::new();
    let mut any = false;
    for entry in entries.iter().filter(|e| e.generation == newest) {
        match &entry.decision {
            Decision::Open { inputs, .. } => {
                for state in inputs.iter().filter(|s| matches!(s.input, Input::Split(_))) {
                    any = true;
                    if state.status != InputStatus::Ended {
                        open.insert((&entry.task, &state.input));
                    }
                }
            }
            Decision::Advance { input, change: Change::End, .. } => {
                open.remove(&(entry.task.as_str(), input));
            }
            _ => {}
        }
    }
    any && open.is_empty()
}

/// A topic as a `read_committed` reader sees it.
struct Topic {
    name: String,
    records: Vec<(i32, protocol::batch::Record)>,
}

impl Topic {
    fn place(&self, partition: i32, offset: i64) -> String {
        format!("{}-{partition} offset {offset}", self.name)
    }

    fn published(self) -> Vec<Published> {
        let name = self.name;
        let header = |(key, value): (bytes::Bytes, Option<bytes::Bytes>)| Header { key: Blob(key), value: blob(value) };
        self.records
            .into_iter()
            .map(|(partition, record)| Published {
                place: format!("{name}-{partition} offset {}", record.offset),
                key: blob(record.key),
                value: blob(record.value),
                headers: record.headers.into_iter().map(header).collect(),
            })
            .collect()
    }

    fn decisions(self) -> Result<Vec<DecisionEntry>, String> {
        let mut entries = Vec::with_capacity(self.records.len());
        for (partition, record) in &self.records {
            let value = record.value.as_deref().unwrap_or_default();
            let entry = serde_json::from_slice(value)
                .map_err(|e| format!("{}: no decision log entry: {e}", self.place(*partition, record.offset)))?;
            entries.push(entry);
        }
        in_order(&mut entries);
        Ok(entries)
    }
}

fn blob(bytes: Option<bytes::Bytes>) -> Option<Blob> {
    bytes.map(Blob)
}

async fn read_topic(client: &Client, name: &str) -> Result<Topic, String> {
    let failed = |e: &dyn std::fmt::Display| format!("failed to read topic {name}: {e}");
    let admin = Admin::new(client.clone());
    let metadata = admin.metadata(&[name]).await.map_err(|e| failed(&e))?;
    let Some(topic) = metadata.topics.get(name) else {
        let why = metadata.errors.get(name).map_or_else(|| "it does not exist".to_owned(), ToString::to_string);
        return Err(failed(&why));
    };
    let tps: Vec<TopicPartition> = topic
        .partitions
        .keys()
        .map(|partition| TopicPartition { topic: name.to_owned(), partition: *partition })
        .collect();
    let bounds = async |spec| admin.list_offsets(&tps, spec, Isolation::ReadCommitted).await;
    let starts = bounds(OffsetSpec::Earliest).await.map_err(|e| failed(&e))?;
    let ends = bounds(OffsetSpec::Latest).await.map_err(|e| failed(&e))?;
    let offset = |map: &BTreeMap<TopicPartition, Option<i64>>, tp| map.get(tp).copied().flatten().unwrap_or(0);
    let mut unread: BTreeMap<TopicPartition, i64> = tps
        .iter()
        .filter(|tp| offset(&starts, tp) < offset(&ends, tp))
        .map(|tp| (tp.clone(), offset(&ends, tp)))
        .collect();
    let consumer = Consumer::new(client.clone(), ConsumerConfig::default());
    consumer.assign(unread.keys().map(|tp| (tp.clone(), offset(&starts, tp))).collect());
    let mut records: BTreeMap<i32, Vec<protocol::batch::Record>> = BTreeMap::new();
    let mut last_progress = env::clock::now();
    while !unread.is_empty() {
        for result in consumer.poll().await {
            if let Some(e) = result.error.as_ref().filter(|e| e.stopped) {
                return Err(failed(e));
            }
            let Some(end) = unread.get(&result.partition).copied() else { continue };
            let new = result.records.into_iter().filter(|r| r.offset < end);
            let before = records.entry(result.partition.partition).or_default();
            let count = before.len();
            before.extend(new);
            if before.len() > count || result.position >= end {
                last_progress = env::clock::now();
            }
            if result.position >= end {
                consumer.pause(&result.partition);
                unread.remove(&result.partition);
            }
        }
        if env::clock::now() - last_progress > STALLED {
            return Err(failed(&format!("no new record for {} s", STALLED.as_secs())));
        }
    }
    let records = records.into_iter().flat_map(|(p, all)| all.into_iter().map(move |r| (p, r))).collect();
    Ok(Topic { name: name.to_owned(), records })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(text: &str) -> Vec<DecisionEntry> {
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    const OPEN: &str = r#"{"generation":2,"task":"source-0","seq":0,"decision":{"open":{"checkpoint":1,"watermark":"MIN","inputs":[{"input":{"split":0},"watermark":5,"status":"in","position":3},{"input":{"split":2},"watermark":"MIN","status":"ended","position":0}]}}}"#;
    const END: &str = r#"{"generation":2,"task":"source-0","seq":1,"decision":{"advance":{"input":{"split":0},"offset":9,"change":"end","time_ms":1}}}"#;

    #[test]
    fn a_job_has_ended_when_each_split_of_its_newest_attempt_has() {
        assert!(!has_ended(&[]));
        assert!(!has_ended(&entries(OPEN)));
        assert!(has_ended(&entries(&format!("{OPEN}\n{END}"))));
        let older = END.replace("\"generation\":2", "\"generation\":1");
        assert!(!has_ended(&entries(&format!("{older}\n{OPEN}"))));
    }

    #[test]
    fn decisions_are_brought_into_order() {
        let mut all = entries(&format!("{END}\n{OPEN}"));
        in_order(&mut all);
        assert_eq!(all.iter().map(|e| e.seq).collect::<Vec<_>>(), [0, 1]);
    }
}
