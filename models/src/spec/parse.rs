//! From TOML text to a [`JobSpec`], every refusal with its place and its remedy.
//!
//! Walks `toml`'s spanned tree by hand instead of deriving it: a derived reader knows the line of a wrong type, not of a
//! missing field or an impossible window, and cannot tell "wrong" from "not yet built".

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::nearest;
use super::{
    Accumulation, Delivery, ErrorKind, Format, Function, JobSpec, Sink, Source, SpecError, WatermarkSpec, WindowKind,
    WindowSpec,
};
use crate::time::{LENGTH_LIMIT_MS, parse_duration_ms, print_duration};

pub(super) fn parse(text: &str, file: &str) -> Result<JobSpec, SpecError> {
    let at = Place { text, file };
    let document = DeTable::parse(text).map_err(|e| {
        let span = e.span().unwrap_or(0..0);
        at.invalid(span, e.message().to_owned(), None)
    })?;
    let root = Section { at: &at, name: "", span: 0..0, table: document.get_ref() };
    root.only(&["name", "source", "watermark", "window", "aggregate", "sink"])?;
    let name = root.string("name", "name = \"my-job\"")?;
    at.topic_name(&name.0, &name.1, "the job's name")?;
    if name.0.len() > 240 {
        return Err(at.invalid(
            name.1,
            "the job's name is longer than 240 bytes".into(),
            Some("a shorter name".into()),
        ));
    }
    let source = source(&root.section("source")?)?;
    let watermark = watermark(&root.section("watermark")?)?;
    let window = window(&root.section("window")?)?;
    let aggregate = aggregate(&root.section("aggregate")?, &root.section("source")?, source.value.is_some())?;
    let sink = sink(&root.section("sink")?, &name.0, &source.topic)?;
    Ok(JobSpec { name: name.0, source, watermark, window, aggregate, sink })
}

fn source(s: &Section<'_>) -> Result<Source, SpecError> {
    s.only(&["topic", "format", "key", "event_time", "value", "columns"])?;
    let (topic, span) = s.string("topic", "topic = \"events\"")?;
    s.at.topic_name(&topic, &span, "a topic")?;
    let (format, span) = s.string("format", "format = \"json\"")?;
    let format = match format.as_str() {
        "json" => Format::Json,
        "csv" => Format::Csv,
        "avro" | "protobuf" | "json-schema" => {
            return Err(s.at.not_yet(span, format!("format \"{format}\""), "format = \"json\" or \"csv\""));
        }
        other => {
            let all = ["json", "csv", "avro", "protobuf", "json-schema"];
            return Err(s.at.one_of(span, "format", other, &all));
        }
    };
    let columns = match (format, s.get("columns")) {
        (Format::Csv, None) => return Err(s.missing("columns", "columns = [\"key\", \"event_time\", \"value\"]")),
        (Format::Json, Some((span, _))) => {
            return Err(s.at.invalid(
                span,
                "`columns` belongs to format = \"csv\"; JSON records name their own fields".into(),
                Some("nothing: remove the line, or set format = \"csv\"".into()),
            ));
        }
        (Format::Json, None) => None,
        (Format::Csv, Some(_)) => {
            let names = s.strings("columns", "columns = [\"key\", \"event_time\", \"value\"]")?;
            for (i, (name, span)) in names.iter().enumerate() {
                if names[..i].iter().any(|(earlier, _)| earlier == name) {
                    let message = format!("column \"{name}\" is named twice");
                    return Err(s.at.invalid(span.clone(), message, Some("each column once".into())));
                }
            }
            Some(names.into_iter().map(|(name, _)| name).collect::<Vec<_>>())
        }
    };
    let field = |key: &'static str, hint: &'static str, required: bool| -> Result<Option<String>, SpecError> {
        if !required && s.get(key).is_none() {
            return Ok(None);
        }
        let (name, span) = s.string(key, hint)?;
        if let Some(columns) = &columns
            && !columns.contains(&name)
        {
            let names: Vec<&str> = columns.iter().map(String::as_str).collect();
            return Err(s.at.one_of(span, key, &name, &names));
        }
        Ok(Some(name))
    };
    let key = field("key", "key = \"user_id\"", true)?.unwrap_or_default();
    let event_time = field("event_time", "event_time = \"timestamp_ms\"", true)?.unwrap_or_default();
    let value = field("value", "value = \"amount\"", false)?;
    Ok(Source { topic, format, key, event_time, value, columns })
}

fn watermark(s: &Section<'_>) -> Result<WatermarkSpec, SpecError> {
    s.only(&["out_of_orderness", "idle_after", "max_drift"])?;
    let (out_of_orderness_ms, span) = s.duration("out_of_orderness", "out_of_orderness = \"5s\"")?;
    if out_of_orderness_ms < 0 {
        return Err(s.at.invalid(span, "`out_of_orderness` is negative".into(), Some("\"0s\" or more".into())));
    }
    let idle_after_ms = match s.get("idle_after") {
        None => None,
        Some(_) => {
            let (ms, span) = s.duration("idle_after", "idle_after = \"30s\"")?;
            if ms <= 0 {
                let remedy = "more than \"0s\", or no `idle_after` if splits never become idle";
                return Err(s.at.invalid(span, "`idle_after` is not positive".into(), Some(remedy.into())));
            }
            Some(ms)
        }
    };
    if let Some((span, _)) = s.get("max_drift") {
        s.duration("max_drift", "max_drift = \"10m\"")?;
        return Err(s.at.not_yet(span, "`max_drift` (watermark alignment)".into(), "nothing: remove the line"));
    }
    Ok(WatermarkSpec { out_of_orderness_ms, idle_after_ms })
}

fn window(s: &Section<'_>) -> Result<WindowSpec, SpecError> {
    s.only(&[
        "type",
        "size",
        "slide",
        "gap",
        "step",
        "offset",
        "allowed_lateness",
        "accumulation",
        "early",
        "session_close",
    ])?;
    let (kind, span) = s.string("type", "type = \"tumbling\"")?;
    match kind.as_str() {
        "tumbling" => {}
        "sliding" | "session" | "cumulating" | "global" => {
            return Err(s.at.not_yet(span, format!("window type \"{kind}\""), "type = \"tumbling\""));
        }
        other => {
            let all = ["tumbling", "sliding", "session", "cumulating", "global"];
            return Err(s.at.one_of(span, "type", other, &all));
        }
    }
    for (key, owner) in [("slide", "sliding"), ("gap", "session"), ("step", "cumulating"), ("session_close", "session")]
    {
        if let Some((span, _)) = s.get(key) {
            let message = format!("`{key}` belongs to type = \"{owner}\", this window is tumbling");
            return Err(s.at.invalid(span, message, Some("nothing: remove the line".into())));
        }
    }
    let (size_ms, span) = s.duration("size", "size = \"1h\"")?;
    if size_ms <= 0 {
        let message = "impossible window: its size is not positive".into();
        return Err(s.at.invalid(span, message, Some("size = \"1h\", say".into())));
    }
    let offset_ms = match s.get("offset") {
        None => 0,
        Some(_) => {
            let (ms, span) = s.duration("offset", "offset = \"15m\"")?;
            if ms.abs() >= size_ms {
                let message = "impossible window: its offset is not smaller than its size".into();
                let same = print_duration(ms % size_ms);
                return Err(s.at.invalid(
                    span,
                    message,
                    Some(format!("offset = \"{same}\", which is the same windows")),
                ));
            }
            ms
        }
    };
    let allowed_lateness_ms = match s.get("allowed_lateness") {
        None => 0,
        Some(_) => {
            let (ms, span) = s.duration("allowed_lateness", "allowed_lateness = \"0s\"")?;
            if ms < 0 {
                return Err(s.at.invalid(span, "`allowed_lateness` is negative".into(), Some("\"0s\" or more".into())));
            }
            ms
        }
    };
    let accumulation = match s.get("accumulation") {
        None => Accumulation::Accumulating,
        Some(_) => {
            let (text, span) = s.string("accumulation", "accumulation = \"accumulating\"")?;
            match text.as_str() {
                "accumulating" => Accumulation::Accumulating,
                "discarding" | "retracting" => {
                    let remedy = "accumulation = \"accumulating\"";
                    return Err(s.at.not_yet(span, format!("accumulation \"{text}\""), remedy));
                }
                other => {
                    let all = ["accumulating", "discarding", "retracting"];
                    return Err(s.at.one_of(span, "accumulation", other, &all));
                }
            }
        }
    };
    if let Some((span, _)) = s.get("early") {
        return Err(s.at.not_yet(span, "early triggers (`[[window.early]]`)".into(), "nothing: remove the table"));
    }
    Ok(WindowSpec { kind: WindowKind::Tumbling { size_ms, offset_ms }, allowed_lateness_ms, accumulation })
}

fn aggregate(s: &Section<'_>, source: &Section<'_>, has_value: bool) -> Result<Vec<Function>, SpecError> {
    s.only(&["functions"])?;
    let names = s.strings("functions", "functions = [\"count\"]")?;
    let mut functions = Vec::new();
    for (name, span) in names {
        let Some(function) = Function::ALL.into_iter().find(|f| f.name() == name) else {
            if name == "avg" || name == "count_distinct" {
                let remedy = if name == "avg" { "\"sum\" and \"count\"" } else { "\"count\"" };
                return Err(s.at.not_yet(span, format!("function \"{name}\""), remedy));
            }
            let all = ["count", "sum", "min", "max", "avg", "count_distinct", "digest"];
            return Err(s.at.one_of(span, "function", &name, &all));
        };
        if functions.contains(&function) {
            let message = format!("function \"{name}\" is named twice");
            return Err(s.at.invalid(span, message, Some("each function once".into())));
        }
        if function.needs_value() && !has_value {
            let mut e = source.missing("value", "value = \"amount\"");
            e.message = format!("missing `value` in [source], which function \"{name}\" reads");
            return Err(e);
        }
        functions.push(function);
    }
    Ok(functions)
}

fn sink(s: &Section<'_>, job: &str, source_topic: &str) -> Result<Sink, SpecError> {
    s.only(&["topic", "delivery", "feature_store", "lake", "late_topic", "dlq_topic", "decisions_topic"])?;
    for key in ["feature_store", "lake"] {
        if let Some((span, _)) = s.get(key) {
            return Err(s.at.not_yet(span, format!("sink `{key}`"), "nothing: remove the line; results go to `topic`"));
        }
    }
    let mut taken: Vec<(String, &str)> =
        vec![(source_topic.to_owned(), "the source's topic"), (format!("{job}-epochs"), "the job's epochs topic")];
    let mut topic = |key: &'static str, hint: &'static str| -> Result<String, SpecError> {
        let (name, span) = s.string(key, hint)?;
        s.at.topic_name(&name, &span, "a topic")?;
        if let Some((_, owner)) = taken.iter().find(|(t, _)| *t == name) {
            let message = format!("`{key}` is \"{name}\", which is {owner} already");
            return Err(s.at.invalid(span, message, Some("a topic of its own".into())));
        }
        taken.push((name.clone(), key));
        Ok(name)
    };
    let rows = topic("topic", "topic = \"results\"")?;
    let late_topic = topic("late_topic", "late_topic = \"events-late\"")?;
    let dlq_topic = topic("dlq_topic", "dlq_topic = \"events-dlq\"")?;
    let decisions_topic = match s.get("decisions_topic") {
        None => None,
        Some(_) => Some(topic("decisions_topic", "decisions_topic = \"events-decisions\"")?),
    };
    let delivery = match s.get("delivery") {
        None => Delivery::ExactlyOnce,
        Some(_) => {
            let (text, span) = s.string("delivery", "delivery = \"exactly-once\"")?;
            match text.as_str() {
                "exactly-once" => Delivery::ExactlyOnce,
                "at-least-once" => Delivery::AtLeastOnce,
                other => return Err(s.at.one_of(span, "delivery", other, &["exactly-once", "at-least-once"])),
            }
        }
    };
    Ok(Sink { topic: rows, delivery, late_topic, dlq_topic, decisions_topic })
}

/// The file being read: turns byte spans into lines.
struct Place<'a> {
    text: &'a str,
    file: &'a str,
}

impl Place<'_> {
    fn error(&self, kind: ErrorKind, span: Range<usize>, message: String, suggestion: Option<String>) -> SpecError {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        SpecError { kind, file: self.file.to_owned(), line, column, message, suggestion }
    }

    fn invalid(&self, span: Range<usize>, message: String, suggestion: Option<String>) -> SpecError {
        self.error(ErrorKind::Invalid, span, message, suggestion)
    }

    fn not_yet(&self, span: Range<usize>, what: String, instead: &str) -> SpecError {
        self.error(ErrorKind::NotYetBuilt, span, format!("{what} is not yet built"), Some(instead.to_owned()))
    }

    fn one_of(&self, span: Range<usize>, what: &str, found: &str, all: &[&str]) -> SpecError {
        let suggestion = match nearest(found, all) {
            Some(word) => format!("\"{word}\""),
            None => format!("one of {}", quoted(all)),
        };
        self.invalid(span, format!("unknown {what} \"{found}\""), Some(suggestion))
    }

    /// Kafka's rule for topic names; names with two leading underscores are the broker's own.
    fn topic_name(&self, name: &str, span: &Range<usize>, what: &str) -> Result<(), SpecError> {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let problem = if name.is_empty() || name == "." || name == ".." {
            format!("\"{name}\" cannot name {what}")
        } else if name.len() > 249 {
            format!("{what} is longer than 249 bytes")
        } else if let Some(c) = name.chars().find(|c| !legal(*c)) {
            format!("'{c}' cannot stand in {what}")
        } else if name.starts_with("__") {
            format!("\"{name}\" starts with `__`, which is the broker's own")
        } else {
            return Ok(());
        };
        let clean: String =
            name.trim_start_matches('_').chars().map(|c| if legal(c) { c } else { '-' }).take(240).collect();
        let clean = if clean.trim_matches('.').is_empty() { "events".to_owned() } else { clean };
        Err(self.invalid(span.clone(), problem, Some(format!("\"{clean}\""))))
    }
}

/// One table of the file.
struct Section<'a> {
    at: &'a Place<'a>,
    name: &'static str,
    span: Range<usize>,
    table: &'a DeTable<'a>,
}

impl<'a> Section<'a> {
    /// Refuses keys that are not `known`.
    fn only(&self, known: &[&str]) -> Result<(), SpecError> {
        let mut unknown: Vec<_> = self.table.keys().filter(|k| !known.contains(&k.get_ref().as_ref())).collect();
        unknown.sort_by_key(|k| k.span().start);
        let Some(key) = unknown.first() else { return Ok(()) };
        let word = key.get_ref().as_ref();
        let place = if self.name.is_empty() { "at the top".to_owned() } else { format!("in [{}]", self.name) };
        let suggestion = match nearest(word, known) {
            Some(near) => format!("`{near}`"),
            None => format!("one of {}", known.join(", ")),
        };
        Err(self.at.invalid(key.span(), format!("unknown key `{word}` {place}"), Some(suggestion)))
    }

    fn get(&self, key: &str) -> Option<(Range<usize>, &'a Spanned<DeValue<'a>>)> {
        self.table.iter().find(|(k, _)| k.get_ref().as_ref() == key).map(|(k, v)| (k.span(), v))
    }

    fn missing(&self, key: &str, hint: &str) -> SpecError {
        let place = if self.name.is_empty() { String::new() } else { format!(" in [{}]", self.name) };
        self.at.invalid(self.span.clone(), format!("missing `{key}`{place}"), Some(format!("a line like {hint}")))
    }

    fn wrong_type(&self, key: &str, value: &Spanned<DeValue<'_>>, wanted: &str, hint: &str) -> SpecError {
        let message = format!("`{key}` is {}, not {wanted}", value.get_ref().type_str());
        self.at.invalid(value.span(), message, Some(hint.to_owned()))
    }

    fn section(&self, key: &'static str) -> Result<Section<'a>, SpecError> {
        let Some((span, value)) = self.get(key) else {
            return Err(self
                .missing(&format!("[{key}]"), &format!("[{key}]"))
                .with_message(format!("missing section [{key}]")));
        };
        match value.get_ref() {
            DeValue::Table(table) => Ok(Section { at: self.at, name: key, span, table }),
            _ => Err(self.wrong_type(key, value, "a section", &format!("[{key}]"))),
        }
    }

    /// A text that is not empty, and its place.
    fn string(&self, key: &str, hint: &str) -> Result<(String, Range<usize>), SpecError> {
        let (_, value) = self.get(key).ok_or_else(|| self.missing(key, hint))?;
        let text = value.get_ref().as_str().ok_or_else(|| self.wrong_type(key, value, "text", hint))?;
        if text.is_empty() {
            return Err(self.at.invalid(value.span(), format!("`{key}` is empty"), Some(hint.to_owned())));
        }
        Ok((text.to_owned(), value.span()))
    }

    fn strings(&self, key: &str, hint: &str) -> Result<Vec<(String, Range<usize>)>, SpecError> {
        let (_, value) = self.get(key).ok_or_else(|| self.missing(key, hint))?;
        let list = value.get_ref().as_array().ok_or_else(|| self.wrong_type(key, value, "a list of texts", hint))?;
        if list.is_empty() {
            return Err(self.at.invalid(value.span(), format!("`{key}` is empty"), Some(hint.to_owned())));
        }
        list.iter()
            .map(|item| match item.get_ref().as_str() {
                Some(text) if !text.is_empty() => Ok((text.to_owned(), item.span())),
                _ => Err(self.wrong_type(key, item, "text", hint)),
            })
            .collect()
    }

    /// Milliseconds of magnitude below 2^43 (rule 1).
    fn duration(&self, key: &str, hint: &str) -> Result<(i64, Range<usize>), SpecError> {
        let (_, value) = self.get(key).ok_or_else(|| self.missing(key, hint))?;
        if let Some(number) = value.get_ref().as_integer() {
            let message = format!("`{key}` has no unit (ms, s, m, h or d)");
            return Err(self.at.invalid(value.span(), message, Some(format!("{key} = \"{}ms\"", number.as_str()))));
        }
        let text = value.get_ref().as_str().ok_or_else(|| self.wrong_type(key, value, "a duration", hint))?;
        let Some(ms) = parse_duration_ms(text) else {
            let message = format!("`{key}` is \"{text}\", not an integer followed by ms, s, m, h or d");
            return Err(self.at.invalid(value.span(), message, Some(hint.to_owned())));
        };
        if ms.unsigned_abs() >= LENGTH_LIMIT_MS.unsigned_abs() {
            let message = format!("`{key}` is {ms} ms, not below 2^43 ms (about 278 years)");
            return Err(self.at.invalid(value.span(), message, Some(hint.to_owned())));
        }
        Ok((ms, value.span()))
    }
}

impl SpecError {
    fn with_message(mut self, message: String) -> SpecError {
        self.message = message;
        self
    }
}

fn quoted(words: &[&str]) -> String {
    words.iter().map(|w| format!("\"{w}\"")).collect::<Vec<_>>().join(", ")
}
