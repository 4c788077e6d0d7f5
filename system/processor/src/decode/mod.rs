//! From a source record's bytes to key, event time and value (semantics rules 1 and 24). Strict: whatever is not
//! clearly right goes to the dead-letter queue with a reason, and never moves W.

mod csv;
mod json;
mod rfc3339;

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;

use crate::job::{Format, SourceConfig};

/// The greatest magnitude of an event time (rule 1).
pub const MAX_EVENT_TIME_MS: i64 = 1 << 53;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decoded {
    pub key: Bytes,
    pub event_time_ms: i64,
    /// None: the field is null or absent, or the job has none.
    pub value: Option<i64>,
}

/// Why a record is bad. [`BadRecord::reason`] is the `reason` header of the dead letter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BadRecord {
    OverSize { bytes: usize, max: usize },
    Undecodable(String),
    MissingKey,
    MissingEventTime,
    WrongType(String),
    OutOfRange(String),
}

impl BadRecord {
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::OverSize { .. } => "over-size",
            Self::Undecodable(_) => "undecodable",
            Self::MissingKey => "missing-key",
            Self::MissingEventTime => "missing-event-time",
            Self::WrongType(_) => "wrong-type",
            Self::OutOfRange(_) => "out-of-range",
        }
    }
}

impl fmt::Display for BadRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())?;
        match self {
            Self::OverSize { bytes, max } => write!(f, ": {bytes} bytes of at most {max}"),
            Self::Undecodable(why) => write!(f, ": {why}"),
            Self::MissingKey | Self::MissingEventTime => Ok(()),
            Self::WrongType(field) | Self::OutOfRange(field) => write!(f, ": {field:?}"),
        }
    }
}

/// A field's value as far as a job can use it.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Scalar<'a> {
    Null,
    Text(Cow<'a, str>),
    /// A number's own text: `12`, `12.0` and `1e2` are different things here.
    Number(&'a str),
    Other,
}

#[derive(Clone, Debug)]
pub struct Decoder {
    config: SourceConfig,
}

impl Decoder {
    pub fn new(config: &SourceConfig) -> Self {
        Self { config: config.clone() }
    }

    pub fn decode(&self, value: Option<&Bytes>) -> Result<Decoded, BadRecord> {
        let raw = value.ok_or_else(|| BadRecord::Undecodable("null value".into()))?;
        if raw.len() > self.config.max_record_bytes {
            return Err(BadRecord::OverSize { bytes: raw.len(), max: self.config.max_record_bytes });
        }
        let text = std::str::from_utf8(raw).map_err(|e| BadRecord::Undecodable(e.to_string()))?;
        let wanted = [Some(&*self.config.key), Some(&*self.config.event_time), self.config.value.as_deref()];
        let ([key, event_time, value], is_csv) = match &self.config.format {
            Format::Json => (json::fields(text, &wanted)?, false),
            Format::Csv { columns } => (csv::fields(text, columns, &wanted)?, true),
        };
        // A key that stands in the record as it is shares its memory.
        let key = match key {
            Scalar::Text(Cow::Borrowed(s)) => raw.slice_ref(s.as_bytes()),
            Scalar::Text(Cow::Owned(s)) => Bytes::from(s),
            Scalar::Number(n) if is_integer(n) => raw.slice_ref(n.as_bytes()),
            Scalar::Null => return Err(BadRecord::MissingKey),
            _ => return Err(BadRecord::WrongType(self.config.key.clone())),
        };
        let event_time_ms = self.event_time(event_time, is_csv)?;
        let value = match (&self.config.value, value) {
            (None, _) | (_, Scalar::Null) => None,
            (Some(_), Scalar::Text(t)) if is_csv && t.is_empty() => None,
            (Some(name), Scalar::Text(t)) => Some(integer(name, &t)?),
            (Some(name), Scalar::Number(t)) => Some(integer(name, t)?),
            (Some(name), Scalar::Other) => return Err(BadRecord::WrongType(name.clone())),
        };
        Ok(Decoded { key, event_time_ms, value })
    }

    fn event_time(&self, field: Scalar<'_>, is_csv: bool) -> Result<i64, BadRecord> {
        let name = &self.config.event_time;
        let ms = match field {
            Scalar::Null => return Err(BadRecord::MissingEventTime),
            Scalar::Text(t) if is_csv && t.is_empty() => return Err(BadRecord::MissingEventTime),
            Scalar::Number(t) => integer(name, t)?,
            Scalar::Text(t) if is_integer(&t) => integer(name, &t)?,
            Scalar::Text(t) => rfc3339::to_ms(&t).ok_or_else(|| BadRecord::WrongType(name.clone()))?,
            Scalar::Other => return Err(BadRecord::WrongType(name.clone())),
        };
        if !(-MAX_EVENT_TIME_MS..=MAX_EVENT_TIME_MS).contains(&ms) {
            return Err(BadRecord::OutOfRange(name.clone()));
        }
        Ok(ms)
    }
}

/// `-?[0-9]+`.
fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

fn integer(name: &str, text: &str) -> Result<i64, BadRecord> {
    if !is_integer(text) {
        return Err(BadRecord::WrongType(name.to_owned()));
    }
    text.parse().map_err(|_| BadRecord::OutOfRange(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::JobConfig;

    fn decode(text: &str) -> Result<Decoded, BadRecord> {
        let config = JobConfig::new("j", "in", "out").source;
        Decoder::new(&config).decode(Some(&Bytes::copy_from_slice(text.as_bytes())))
    }

    #[test]
    fn good_records() {
        let d = decode(r#" {"key":" a ","t":-5,"value":"12","more":[1,{"x":null}]} "#).unwrap();
        assert_eq!(d, Decoded { key: Bytes::from_static(b" a "), event_time_ms: -5, value: Some(12) });
        let d = decode(r#"{"value":null,"key":"","t":"1970-01-01T00:00:01Z"}"#).unwrap();
        assert_eq!(d, Decoded { key: Bytes::new(), event_time_ms: 1000, value: None });
        assert_eq!(decode(r#"{"key":7,"t":"-3"}"#).unwrap().key, Bytes::from_static(b"7"));
        assert_eq!(decode(r#"{"key":"\u00e9\ud83d\ude00","t":0}"#).unwrap().key, "é😀".as_bytes());
    }

    #[test]
    fn bad_records() {
        for (text, reason) in [
            ("", "undecodable"),
            ("nonsense", "undecodable"),
            ("[1]", "undecodable"),
            (r#"{"key":"a","t":1} x"#, "undecodable"),
            (r#"{"key":"a","t":01}"#, "undecodable"),
            (r#"{"key":"a","t":1,"key":"b"}"#, "undecodable: duplicate"),
            (r#"{"key":"a","t":1,"x":{"y":1,"\u0079":2}}"#, "undecodable: duplicate"),
            (r#"{"t":1}"#, "missing-key"),
            (r#"{"key":null,"t":1}"#, "missing-key"),
            (r#"{"key":"a"}"#, "missing-event-time"),
            (r#"{"key":true,"t":1}"#, "wrong-type"),
            (r#"{"key":1.5,"t":1}"#, "wrong-type"),
            (r#"{"key":"a","t":12.0}"#, "wrong-type"),
            (r#"{"key":"a","t":"soon"}"#, "wrong-type"),
            (r#"{"key":"a","t":1,"value":12.0}"#, "wrong-type"),
            (r#"{"key":"a","t":1,"value":1e2}"#, "wrong-type"),
            (r#"{"key":"a","t":1,"value":"1 "}"#, "wrong-type"),
            (r#"{"key":"a","t":1,"value":{}}"#, "wrong-type"),
            (r#"{"key":"a","t":9007199254740993}"#, "out-of-range: \"t\""),
            (r#"{"key":"a","t":-9007199254740993}"#, "out-of-range: \"t\""),
            (r#"{"key":"a","t":1,"value":9223372036854775808}"#, "out-of-range: \"value\""),
        ] {
            let e = decode(text).unwrap_err().to_string();
            assert!(e.starts_with(reason), "{text}: {e}");
        }
        let config = JobConfig::new("j", "in", "out").source;
        assert!(Decoder::new(&config).decode(None).is_err());
    }

    #[test]
    fn csv_lines() {
        let mut config = JobConfig::new("j", "in", "out").source;
        config.format = Format::Csv { columns: ["x", "t", "key", "value"].map(String::from).to_vec() };
        let d = Decoder::new(&config);
        let one = |t: &str| d.decode(Some(&Bytes::copy_from_slice(t.as_bytes())));
        assert_eq!(one("1,5,\"a,\"\"b\",-2\r\n").unwrap().key, Bytes::from_static(b"a,\"b"));
        assert_eq!(one("1,5,,").unwrap(), Decoded { key: Bytes::new(), event_time_ms: 5, value: None });
        assert!(one("1,,a,2").is_err());
        assert!(one("1,5,a").is_err());
        assert!(one("1,5,\"a,2").is_err());
        assert!(one("1,5,a,2.0").is_err());
    }
}
