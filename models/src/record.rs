//! From a source record's bytes to key, event time and value, or the reason why it is a dead letter (rule 24).
//!
//! First reason that applies: size, decoding, then the key, the event time and the value, in that order. The Kafka
//! record's own key and timestamp do not matter.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::json::Json;
use crate::spec::{Format, Source};
use crate::time::MAX_EVENT_TIME;

/// A record with a longer value is over-size.
pub const MAX_VALUE_BYTES: usize = 1 << 20;

/// What a job sees of a valid record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    pub key: String,
    /// T, in ms.
    pub event_time: i64,
    /// `None`: null, absent, or the job names no value.
    pub value: Option<i64>,
}

/// Why a record is a dead letter: the text of the dead letter's header `reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    OverSize,
    Undecodable,
    MissingKey,
    MissingEventTime,
    WrongType,
    OutOfRange,
}

impl Reason {
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::OverSize => "over-size",
            Reason::Undecodable => "undecodable",
            Reason::MissingKey => "missing-key",
            Reason::MissingEventTime => "missing-event-time",
            Reason::WrongType => "wrong-type",
            Reason::OutOfRange => "out-of-range",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Decodes the value of a source record.
pub fn decode(source: &Source, value: Option<&[u8]>) -> Result<Event, Reason> {
    let bytes = value.ok_or(Reason::Undecodable)?;
    if bytes.len() > MAX_VALUE_BYTES {
        return Err(Reason::OverSize);
    }
    match source.format {
        Format::Json => decode_json(source, bytes),
        Format::Csv => decode_csv(source, bytes),
    }
}

fn decode_json(source: &Source, bytes: &[u8]) -> Result<Event, Reason> {
    let object = Json::parse(bytes).map_err(|_| Reason::Undecodable)?;
    if !matches!(object, Json::Object(_)) {
        return Err(Reason::Undecodable);
    }
    let key = match object.get(&source.key) {
        None | Some(Json::Null) => return Err(Reason::MissingKey),
        Some(Json::String(text)) => text.clone().into_owned(),
        Some(Json::Number(text)) if is_integer(text) => (*text).to_owned(),
        Some(_) => return Err(Reason::WrongType),
    };
    let event_time = match object.get(&source.event_time) {
        None | Some(Json::Null) => return Err(Reason::MissingEventTime),
        Some(Json::Number(text)) => integer(text)?,
        Some(Json::String(text)) => time_text(text)?,
        Some(_) => return Err(Reason::WrongType),
    };
    let event_time = in_range(event_time)?;
    let value = match source.value.as_ref().and_then(|name| object.get(name)) {
        None | Some(Json::Null) => None,
        Some(json) => Some(value_in_range(integer(json.text().ok_or(Reason::WrongType)?)?)?),
    };
    Ok(Event { key, event_time, value })
}

/// One CSV record of exactly the job's columns. A field is text; an empty key is a key, an empty event time is missing,
/// an empty value is null.
fn decode_csv(source: &Source, bytes: &[u8]) -> Result<Event, Reason> {
    let columns = source.columns.as_deref().unwrap_or_default();
    let row = csv_row(bytes).ok_or(Reason::Undecodable)?;
    if row.len() != columns.len() {
        return Err(Reason::Undecodable);
    }
    let field = |name: &str| columns.iter().position(|c| c == name).and_then(|i| row.get(i)).map(|f| &**f);
    let key = field(&source.key).ok_or(Reason::MissingKey)?.to_owned();
    let event_time = match field(&source.event_time) {
        None | Some("") => return Err(Reason::MissingEventTime),
        Some(text) => in_range(time_text(text)?)?,
    };
    let value = match source.value.as_ref().and_then(|name| field(name)) {
        None | Some("") => None,
        Some(text) => Some(value_in_range(integer(text)?)?),
    };
    Ok(Event { key, event_time, value })
}

/// The fields of exactly one CSV record.
fn csv_row(bytes: &[u8]) -> Option<Vec<Cow<'_, str>>> {
    if !bytes.is_empty() && !bytes.iter().any(|b| matches!(b, b'"' | b'\r' | b'\n')) {
        // Nothing is quoted and nothing ends: what most records are, without a reader and its buffers for each.
        return Some(std::str::from_utf8(bytes).ok()?.split(',').map(Cow::Borrowed).collect());
    }
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(bytes);
    let mut rows = reader.records();
    let row = rows.next()?.ok()?;
    rows.next().is_none().then(|| row.iter().map(|field| Cow::Owned(field.to_owned())).collect())
}

/// `-?[0-9]+`.
fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

fn integer(text: &str) -> Result<i128, Reason> {
    if !is_integer(text) {
        return Err(Reason::WrongType);
    }
    text.parse().map_err(|_| Reason::OutOfRange)
}

fn value_in_range(value: i128) -> Result<i64, Reason> {
    i64::try_from(value).map_err(|_| Reason::OutOfRange)
}

fn in_range(time: i128) -> Result<i64, Reason> {
    let bound = i128::from(MAX_EVENT_TIME);
    if time < -bound || time > bound {
        return Err(Reason::OutOfRange);
    }
    value_in_range(time)
}

/// Digits, or RFC 3339.
fn time_text(text: &str) -> Result<i128, Reason> {
    if is_integer(text) { integer(text) } else { rfc3339_ms(text).ok_or(Reason::WrongType) }
}

/// `YYYY-MM-DDThh:mm:ss[.f…](Z|±hh:mm)` in milliseconds since 1970, what is finer dropped. `None` for anything else: a
/// second 60, a day that the month lacks.
fn rfc3339_ms(text: &str) -> Option<i128> {
    let bytes = text.as_bytes();
    let two = |at: usize| number(bytes.get(at..at + 2)?);
    let mark = |at: usize, any: &[u8]| bytes.get(at).is_some_and(|b| any.contains(b));
    let year = number(bytes.get(..4)?)?;
    let (month, day, hour, minute, second) = (two(5)?, two(8)?, two(11)?, two(14)?, two(17)?);
    if !(mark(4, b"-") && mark(7, b"-") && mark(10, b"Tt") && mark(13, b":") && mark(16, b":")) {
        return None;
    }
    if !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut rest = &bytes[19..];
    let mut ms = 0;
    if let Some(fraction) = rest.strip_prefix(b".") {
        let digits = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
        if digits == 0 {
            return None;
        }
        let shown = fraction[..digits].iter().chain(b"000").take(3);
        ms = shown.fold(0, |ms, digit| ms * 10 + i128::from(digit - b'0'));
        rest = &fraction[digits..];
    }
    let offset_minutes = match rest {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (h, m) = (number(&[*h1, *h2])?, number(&[*m1, *m2])?);
            if h > 23 || m > 59 {
                return None;
            }
            if *sign == b'+' { h * 60 + m } else { -(h * 60 + m) }
        }
        _ => return None,
    };
    let days = days_before_year(year) + (1..month).map(|m| days_in_month(year, m)).sum::<i64>() + day - 1;
    let seconds = (days - days_before_year(1970)) * 86_400 + hour * 3_600 + (minute - offset_minutes) * 60 + second;
    Some(i128::from(seconds) * 1_000 + ms)
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |n, b| b.is_ascii_digit().then(|| n * 10 + i64::from(b - b'0')))
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + i64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 0000-01-01 to the first of the year.
fn days_before_year(year: i64) -> i64 {
    let leaps = (year + 3) / 4 - (year + 99) / 100 + (year + 399) / 400;
    year * 365 + leaps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> Source {
        Source {
            topic: "t".into(),
            format: Format::Json,
            key: "k".into(),
            event_time: "t".into(),
            value: Some("v".into()),
            columns: None,
        }
    }

    fn json(text: &str) -> Result<Event, Reason> {
        decode(&source(), Some(text.as_bytes()))
    }

    fn ok(key: &str, event_time: i64, value: Option<i64>) -> Result<Event, Reason> {
        Ok(Event { key: key.into(), event_time, value })
    }

    #[test]
    fn valid_json() {
        assert_eq!(json(r#"{"k":"a","t":5,"v":-3}"#), ok("a", 5, Some(-3)));
        assert_eq!(json(r#" {"k":" ","t":"-5","v":"007","x":{"y":[1.5]}} "#), ok(" ", -5, Some(7)));
        assert_eq!(json(r#"{"k":"","t":5,"v":null}"#), ok("", 5, None));
        assert_eq!(json(r#"{"k":12,"t":5}"#), ok("12", 5, None));
        assert_eq!(
            json(r#"{"k":"a","t":9007199254740992,"v":"9223372036854775807"}"#),
            ok("a", 1 << 53, Some(i64::MAX))
        );
    }

    #[test]
    fn dead_letters() {
        use Reason::*;
        for (text, reason) in [
            ("", Undecodable),
            ("[]", Undecodable),
            (r#"{"k":"a","t":5}x"#, Undecodable),
            (r#"{"k":"a","t":5,"t":5}"#, Undecodable),
            (r#"{"t":5}"#, MissingKey),
            (r#"{"k":null,"t":5}"#, MissingKey),
            (r#"{"k":"a"}"#, MissingEventTime),
            (r#"{"k":"a","t":null,"v":1.5}"#, MissingEventTime),
            (r#"{"k":1.0,"t":5}"#, WrongType),
            (r#"{"k":true}"#, WrongType),
            (r#"{"k":"a","t":12.0}"#, WrongType),
            (r#"{"k":"a","t":1e3}"#, WrongType),
            (r#"{"k":"a","t":"x"}"#, WrongType),
            (r#"{"k":"a","t":5,"v":"1.5"}"#, WrongType),
            (r#"{"k":"a","t":5,"v":""}"#, WrongType),
            (r#"{"k":"a","t":5,"v":" 1"}"#, WrongType),
            (r#"{"k":"a","t":5,"v":"+1"}"#, WrongType),
            (r#"{"k":"a","t":5,"v":true}"#, WrongType),
            (r#"{"k":"a","t":9007199254740993}"#, OutOfRange),
            (r#"{"k":"a","t":-9007199254740993}"#, OutOfRange),
            (r#"{"k":"a","t":5,"v":9223372036854775808}"#, OutOfRange),
        ] {
            assert_eq!(json(text), Err(reason), "{text}");
        }
        assert_eq!(decode(&source(), None), Err(Undecodable));
        assert_eq!(decode(&source(), Some(&vec![b' '; MAX_VALUE_BYTES + 1])), Err(OverSize));
    }

    #[test]
    fn csv_records() {
        let columns = Some(vec!["v".to_owned(), "k".into(), "t".into()]);
        let source = Source { format: Format::Csv, columns, ..source() };
        let csv = |text: &str| decode(&source, Some(text.as_bytes()));
        assert_eq!(csv("3,a,5"), ok("a", 5, Some(3)));
        assert_eq!(csv("3,\"a,\"\"b\",5\r\n"), ok("a,\"b", 5, Some(3)));
        assert_eq!(csv(",,2013-01-01T00:00:00Z"), ok("", 1_356_998_400_000, None));
        assert_eq!(csv("3,a"), Err(Reason::Undecodable));
        assert_eq!(csv("3,a,5\n3,a,5"), Err(Reason::Undecodable));
        assert_eq!(csv("3,a,"), Err(Reason::MissingEventTime));
        assert_eq!(csv("x,a,5"), Err(Reason::WrongType));
    }

    #[test]
    fn rfc3339() {
        for (text, ms) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1969-12-31T23:59:59.9999Z", -1),
            ("2013-01-01T10:00:00.25z", 1_357_034_400_250),
            ("2000-02-29t12:00:00+01:30", 951_820_200_000),
            ("0000-01-01T00:00:00Z", -62_167_219_200_000),
            ("9999-12-31T23:59:59-00:01", 253_402_300_859_000),
        ] {
            assert_eq!(rfc3339_ms(text), Some(ms), "{text}");
            let general: jiff::Timestamp = text.parse().unwrap_or_default();
            if general != jiff::Timestamp::default() {
                assert_eq!(
                    i128::from(general.as_millisecond().min(general.as_nanosecond().div_euclid(1_000_000) as i64)),
                    ms
                );
            }
        }
        for text in [
            "2013-01-01",
            "2013-01-01 00:00:00Z",
            "2013-01-01T00:00:00",
            "2013-02-29T00:00:00Z",
            "1900-02-29T00:00:00Z",
            "2013-01-01T24:00:00Z",
            "2013-01-01T23:59:60Z",
            "2013-01-01T00:00:00.Z",
            "2013-01-01T00:00:00+0100",
            "2013-01-01T00:00:00Z ",
            "+013-01-01T00:00:00Z",
        ] {
            assert_eq!(rfc3339_ms(text), None, "{text}");
        }
    }
}
