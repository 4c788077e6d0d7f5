//! Event time, watermarks and durations: the numbers of rule 1.
//!
//! Event time is `i64` milliseconds since 1970-01-01T00:00Z within [-2^53, 2^53]; lengths are below 2^43, so that no
//! sum of an event time and a few lengths can overflow. [`Watermark::MIN`] and [`Watermark::MAX`] are values of W only.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};

/// Largest magnitude of an event time (rule 1), and of an integer printed as a JSON number (rule 17).
pub const MAX_EVENT_TIME: i64 = 1 << 53;

/// Every size, gap, bound, lateness and offset is below this (rule 1).
pub const LENGTH_LIMIT_MS: i64 = 1 << 43;

/// "No more records with T <= W will come." In JSON a number, or the strings `"MIN"` and `"MAX"`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Watermark(pub i64);

impl Watermark {
    /// Before the first record.
    pub const MIN: Watermark = Watermark(i64::MIN);
    /// After the true end of every input.
    pub const MAX: Watermark = Watermark(i64::MAX);

    pub fn ms(self) -> i64 {
        self.0
    }
}

impl fmt::Display for Watermark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Watermark::MIN => f.write_str("MIN"),
            Watermark::MAX => f.write_str("MAX"),
            Watermark(ms) => write!(f, "{ms}"),
        }
    }
}

impl fmt::Debug for Watermark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "W({self})")
    }
}

impl Serialize for Watermark {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self {
            Watermark::MIN => serializer.serialize_str("MIN"),
            Watermark::MAX => serializer.serialize_str("MAX"),
            Watermark(ms) => serializer.serialize_i64(ms),
        }
    }
}

impl<'de> Deserialize<'de> for Watermark {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = Watermark;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("milliseconds, \"MIN\" or \"MAX\"")
            }

            fn visit_i64<E: de::Error>(self, ms: i64) -> Result<Watermark, E> {
                Ok(Watermark(ms))
            }

            fn visit_u64<E: de::Error>(self, ms: u64) -> Result<Watermark, E> {
                i64::try_from(ms).map(Watermark).map_err(|_| E::custom("watermark out of range"))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Watermark, E> {
                match text {
                    "MIN" => Ok(Watermark::MIN),
                    "MAX" => Ok(Watermark::MAX),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }
        }
        deserializer.deserialize_any(V)
    }
}

/// Reads "a signed integer and ms, s, m, h or d" as milliseconds. `None` for anything else, overflow included.
pub fn parse_duration_ms(text: &str) -> Option<i64> {
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(unit_at);
    let factor: i64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    let digits = number.strip_prefix(['-', '+']).unwrap_or(number);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    number.parse::<i64>().ok()?.checked_mul(factor)
}

/// The shortest text that [`parse_duration_ms`] reads back as `ms`.
pub fn print_duration(ms: i64) -> String {
    for (factor, unit) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")] {
        if ms != 0 && ms % factor == 0 {
            return format!("{}{unit}", ms / factor);
        }
    }
    if ms == 0 { "0s".into() } else { format!("{ms}ms") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_a_signed_integer_and_a_unit() {
        assert_eq!(parse_duration_ms("2h"), Some(7_200_000));
        assert_eq!(parse_duration_ms("-15m"), Some(-900_000));
        assert_eq!(parse_duration_ms("+1d"), Some(86_400_000));
        assert_eq!(parse_duration_ms("250ms"), Some(250));
        assert_eq!(parse_duration_ms("0s"), Some(0));
        for bad in ["", "2", "h", "2 h", "1.5h", "2H", "2hours", "--2h", "9223372036854775807s", "1h30m"] {
            assert_eq!(parse_duration_ms(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn durations_print_back() {
        for ms in [0, 1, -1, 1_000, 60_000, 90_000, 3_600_000, -7_200_000, 86_400_000, LENGTH_LIMIT_MS - 1] {
            assert_eq!(parse_duration_ms(&print_duration(ms)), Some(ms), "{ms}");
        }
    }

    #[test]
    fn watermark_json_names_its_ends() {
        for (w, text) in [(Watermark::MIN, "\"MIN\""), (Watermark::MAX, "\"MAX\""), (Watermark(-7), "-7")] {
            assert_eq!(serde_json::to_string(&w).unwrap(), text);
            assert_eq!(serde_json::from_str::<Watermark>(text).unwrap(), w);
        }
    }
}
