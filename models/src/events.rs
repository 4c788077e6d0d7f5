//! An events file: JSON lines, or CSV with a header, in arrival order, with an optional `partition` field.
//!
//! Each row becomes the source record that a producer of the job would write. A row that the job cannot use is reported
//! with its line and kept, its bytes as they stand in the file, so that it travels to the dead-letter topic; only a
//! file that cannot be read at all is an error.

use std::fmt;
use std::ops::Range;

use crate::json::Json;
use crate::partition::partition_of;
use crate::record::{Event, Reason, decode};
use crate::spec::{Format, JobSpec};

/// The file's rows, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Events {
    pub records: Vec<SourceRecord>,
    /// What to tell the user, in order of lines.
    pub notes: Vec<Note>,
}

/// A record as it goes onto the source topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceRecord {
    /// In the file, from 1.
    pub line: usize,
    /// The `partition` field, or that of the key (murmur2); 0 without either.
    pub partition: i32,
    /// The Kafka record's key; `None` for a dead letter.
    pub key: Option<String>,
    /// The Kafka record's value.
    pub value: Vec<u8>,
    /// What the job makes of `value`.
    pub decoded: Result<Event, Reason>,
}

/// Something about one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    pub line: usize,
    pub message: String,
}

/// The file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {message}")]
pub struct EventsError {
    pub file: String,
    pub line: usize,
    pub message: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)
    }
}

/// Reads a file for a topic of `partitions` partitions (at least 1). A name that ends in `.csv` is CSV, any other is
/// JSON lines.
pub fn read(job: &JobSpec, name: &str, bytes: &[u8], partitions: i32) -> Result<Events, EventsError> {
    let rows = rows(job, name, bytes)?;
    let mut events = Events { records: Vec::with_capacity(rows.len()), notes: Vec::new() };
    for Row { line, value, partition } in rows {
        let decoded = decode(&job.source, Some(&value));
        if let Err(reason) = decoded {
            events.notes.push(Note { line, message: format!("{reason}: the row goes to the dead-letter topic") });
        }
        let partition = match partition {
            None => None,
            Some(text) => match text.parse().ok().filter(|p| (0..partitions).contains(p)) {
                Some(partition) => Some(partition),
                None => {
                    let message =
                        format!("partition {text} is not one of 0 to {}: the key decides instead", partitions - 1);
                    events.notes.push(Note { line, message });
                    None
                }
            },
        };
        let key = decoded.as_ref().ok().map(|event| event.key.clone());
        let by_key = || key.as_ref().map_or(0, |key| partition_of(key.as_bytes(), partitions));
        let partition = partition.unwrap_or_else(by_key);
        events.records.push(SourceRecord { line, partition, key, value, decoded });
    }
    Ok(events)
}

/// How many partitions the `partition` fields of a file need: one more than the greatest, at most `limit`; 0 without any.
pub fn partitions_named(job: &JobSpec, name: &str, bytes: &[u8], limit: i32) -> Result<i32, EventsError> {
    let named = rows(job, name, bytes)?.into_iter().filter_map(|row| row.partition?.parse::<i32>().ok());
    Ok(named.filter(|p| (0..limit).contains(p)).max().map_or(0, |p| p + 1))
}

fn rows(job: &JobSpec, name: &str, bytes: &[u8]) -> Result<Vec<Row>, EventsError> {
    let is_csv = name.to_ascii_lowercase().ends_with(".csv");
    if !is_csv && job.source.format == Format::Csv {
        let message = "the job reads CSV: write the events as CSV too, with a header, in a file named *.csv";
        return Err(EventsError { file: name.into(), line: 1, message: message.into() });
    }
    if is_csv { csv_rows(job, name, bytes) } else { Ok(json_rows(bytes)) }
}

struct Row {
    line: usize,
    value: Vec<u8>,
    partition: Option<String>,
}

fn json_rows(bytes: &[u8]) -> Vec<Row> {
    let mut rows = Vec::new();
    for (i, line) in bytes.split(|b| *b == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let partition = match Json::parse(line).ok().as_ref().and_then(|json| json.get("partition")) {
            None | Some(Json::Null) => None,
            Some(json) => Some(json.text().unwrap_or("that is no number").to_owned()),
        };
        rows.push(Row { line: i + 1, value: line.to_vec(), partition });
    }
    rows
}

/// For a JSON job each row becomes an object of texts under the header's names, an empty value field null; for a CSV
/// job, a record of the job's columns.
fn csv_rows(job: &JobSpec, name: &str, bytes: &[u8]) -> Result<Vec<Row>, EventsError> {
    let failed = |line: usize, message: String| EventsError { file: name.into(), line, message };
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(bytes);
    let header = reader.headers().map_err(|e| failed(1, format!("the header is unreadable: {e}")))?.clone();
    for (i, column) in header.iter().enumerate() {
        if header.iter().take(i).any(|earlier| earlier == column) {
            return Err(failed(1, format!("the header names column `{column}` twice")));
        }
    }
    let position = |column: &str| header.iter().position(|c| c == column);
    let source = &job.source;
    let mut needed = vec![&source.key, &source.event_time];
    needed.extend(&source.value);
    needed.extend(source.columns.iter().flatten());
    if let Some(column) = needed.into_iter().find(|column| position(column).is_none()) {
        let all: Vec<&str> = header.iter().collect();
        return Err(failed(
            1,
            format!("the header has no column `{column}`, which the job reads; it has {}", all.join(", ")),
        ));
    }
    let partition_at = position("partition");
    let mut rows = Vec::new();
    let mut row = csv::ByteRecord::new();
    loop {
        match reader.read_byte_record(&mut row) {
            Ok(false) => return Ok(rows),
            Ok(true) => {}
            Err(e) => return Err(failed(reader.position().line() as usize, e.to_string())),
        }
        let (start, line) = row.position().map_or((0, 1), |p| (p.byte() as usize, p.line() as usize));
        let raw = trim(bytes, start..reader.position().byte() as usize);
        let text = csv::StringRecord::from_byte_record(row.clone()).ok().filter(|r| r.len() == header.len());
        let value = match &text {
            None => raw,
            Some(fields) => match &source.columns {
                Some(columns) => {
                    let picked = columns.iter().filter_map(|c| position(c)).filter_map(|i| fields.get(i));
                    csv_record(picked).unwrap_or(raw)
                }
                None => json_record(&header, fields, source.value.as_deref()).into_bytes(),
            },
        };
        let partition = text.as_ref().and_then(|fields| fields.get(partition_at?)).filter(|p| !p.is_empty());
        rows.push(Row { line, value, partition: partition.map(str::to_owned) });
    }
}

fn trim(bytes: &[u8], range: Range<usize>) -> Vec<u8> {
    let raw = bytes.get(range).unwrap_or_default();
    raw.trim_ascii().to_vec()
}

fn csv_record<'a>(fields: impl Iterator<Item = &'a str>) -> Option<Vec<u8>> {
    let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
    writer.write_record(fields).ok()?;
    let mut bytes = writer.into_inner().ok()?;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    Some(bytes)
}

fn json_record(header: &csv::StringRecord, fields: &csv::StringRecord, value: Option<&str>) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let pairs: Vec<String> = header
        .iter()
        .zip(fields)
        .filter(|(column, _)| *column != "partition")
        .map(|(column, field)| {
            let field = if field.is_empty() && Some(column) == value { "null".into() } else { quoted(field) };
            format!("{}:{field}", quoted(column))
        })
        .collect();
    format!("{{{}}}", pairs.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: &str = r#"
name = "j"
[source]
topic = "in"
format = "json"
key = "k"
event_time = "t"
value = "v"
[watermark]
out_of_orderness = "0s"
[window]
type = "tumbling"
size = "10ms"
[aggregate]
functions = ["sum"]
[sink]
topic = "out"
late_topic = "late"
dlq_topic = "dlq"
"#;

    fn job() -> JobSpec {
        JobSpec::parse(JOB, "job.toml").unwrap()
    }

    fn csv_job() -> JobSpec {
        let text =
            JOB.replace("\"json\"", "\"csv\"").replace("[watermark]", "columns = [\"t\", \"k\", \"v\"]\n[watermark]");
        JobSpec::parse(&text, "job.toml").unwrap()
    }

    fn event(key: &str, event_time: i64, value: Option<i64>) -> Event {
        Event { key: key.into(), event_time, value }
    }

    #[test]
    fn json_lines_stay_as_they_are() {
        let text = b"{\"k\":\"foobar\",\"t\":1,\"v\":2}\r\n\n{\"k\":\"a\",\"t\":1.0}\n{\"k\":\"a\",\"t\":2,\"partition\":1}\n{\"k\":\"a\",\"t\":3,\"partition\":9}\n\xff\n";
        let events = read(&job(), "e.jsonl", text, 3).unwrap();
        let lines: Vec<usize> = events.records.iter().map(|r| r.line).collect();
        assert_eq!(lines, [1, 3, 4, 5, 6]);
        assert_eq!(events.records[0].decoded, Ok(event("foobar", 1, Some(2))));
        assert_eq!(events.records[0].partition, partition_of(b"foobar", 3));
        assert_eq!(events.records[1].decoded, Err(Reason::WrongType));
        assert_eq!(events.records[1].value, br#"{"k":"a","t":1.0}"#);
        assert_eq!((events.records[1].partition, &events.records[1].key), (0, &None));
        assert_eq!(events.records[2].partition, 1);
        assert_eq!(events.records[3].partition, partition_of(b"a", 3));
        assert_eq!(events.records[4].value, b"\xff");
        assert_eq!(partitions_named(&job(), "e.jsonl", text, 1024), Ok(10));
        assert_eq!(partitions_named(&job(), "e.jsonl", text, 5), Ok(2));
        let notes: Vec<String> = events.notes.iter().map(Note::to_string).collect();
        assert_eq!(
            notes,
            [
                "line 3: wrong-type: the row goes to the dead-letter topic",
                "line 5: partition 9 is not one of 0 to 2: the key decides instead",
                "line 6: undecodable: the row goes to the dead-letter topic"
            ]
        );
    }

    #[test]
    fn csv_rows_become_objects_of_texts() {
        let text = b"k,t,v,partition\na,1,2,0\n\"x,\"\"y\",2013-01-01T00:00:00Z,,1\n,5,-3,\nshort,1\n\xff,1,2,0\n";
        let events = read(&job(), "E.CSV", text, 2).unwrap();
        assert_eq!(events.records[0].value, br#"{"k":"a","t":"1","v":"2"}"#);
        assert_eq!(events.records[1].decoded, Ok(event("x,\"y", 1_356_998_400_000, None)));
        assert_eq!(events.records[1].partition, 1);
        assert_eq!(events.records[2].decoded, Ok(event("", 5, Some(-3))));
        assert_eq!(events.records[3].value, b"short,1");
        assert_eq!((events.records[3].line, &events.records[3].decoded), (5, &Err(Reason::Undecodable)));
        assert_eq!(events.records[4].decoded, Err(Reason::Undecodable));
    }

    #[test]
    fn csv_jobs_get_their_columns() {
        let events = read(&csv_job(), "e.csv", b"k,t,v,note\n\"a,b\",1,2,x\n", 1).unwrap();
        assert_eq!(events.records[0].value, b"1,\"a,b\",2");
        assert_eq!(events.records[0].decoded, Ok(event("a,b", 1, Some(2))));
        assert!(
            read(&csv_job(), "e.jsonl", b"{}", 1).unwrap_err().to_string().starts_with("e.jsonl:1: the job reads CSV")
        );
    }

    #[test]
    fn a_header_without_the_key_is_an_error() {
        let e = read(&job(), "e.csv", b"key,t,v\na,1,2\n", 1).unwrap_err();
        assert_eq!(e.to_string(), "e.csv:1: the header has no column `k`, which the job reads; it has key, t, v");
        assert!(read(&job(), "e.csv", b"k,t,v,k\n", 1).unwrap_err().message.contains("twice"));
    }
}
