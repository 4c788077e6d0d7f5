//! Event-time progress: what W is, how a split makes it (rule 2), how inputs combine (rules 3 to 6), and when a split
//! counts as idle (rule 5). Pure: no clock, no I/O.
//!
//! ```text
//!   split 0 ─ Generator ─ IdleDetector ─┐
//!   split 1 ─ Generator ─ IdleDetector ─┴─ CombiningPoint (source-0) ─ channel ─┐
//!   split 2 ─ …                            CombiningPoint (source-1) ─ channel ─┴─ CombiningPoint (window-0)
//! ```

mod combine;
mod generator;
mod idle;

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use combine::{CombiningPoint, Input};
pub use generator::Generator;
pub use idle::{Fetch, IdleDetector};

/// "No more records with event time at or below this will come" (rule 2). Milliseconds; MIN and MAX are values of
/// their own, below and above every event time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Watermark(i64);

impl Watermark {
    pub const MIN: Watermark = Watermark(i64::MIN);
    pub const MAX: Watermark = Watermark(i64::MAX);

    pub const fn from_ms(ms: i64) -> Self {
        Self(ms)
    }

    pub const fn as_ms(self) -> i64 {
        self.0
    }
}

impl fmt::Display for Watermark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::MIN => f.write_str("MIN"),
            Self::MAX => f.write_str("MAX"),
            Self(ms) => write!(f, "{ms}"),
        }
    }
}

impl Serialize for Watermark {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match *self {
            Self::MIN => s.serialize_str("MIN"),
            Self::MAX => s.serialize_str("MAX"),
            Self(ms) => s.serialize_i64(ms),
        }
    }
}

impl<'de> Deserialize<'de> for Watermark {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Repr {
            Ms(i64),
            Name(String),
        }
        match Repr::deserialize(d)? {
            Repr::Ms(ms) => Ok(Self(ms)),
            Repr::Name(n) if n == "MIN" => Ok(Self::MIN),
            Repr::Name(n) if n == "MAX" => Ok(Self::MAX),
            Repr::Name(n) => Err(serde::de::Error::custom(format!("watermark {n:?}"))),
        }
    }
}

/// Where an input stands towards the minimum of its combining point (rules 4 and 5).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// In the minimum at MIN: nothing came yet.
    New,
    /// In the minimum.
    In,
    /// Out of the minimum: nothing came for a while.
    Idle,
    /// Read again after Idle, out of the minimum until its own W has caught up with the point's.
    Behind,
    /// Out of the minimum for good.
    Ended,
}

impl Status {
    pub const fn in_minimum(self) -> bool {
        matches!(self, Self::New | Self::In)
    }

    pub const fn code(self) -> u8 {
        match self {
            Self::New => 0,
            Self::In => 1,
            Self::Idle => 2,
            Self::Behind => 3,
            Self::Ended => 4,
        }
    }

    pub const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::New,
            1 => Self::In,
            2 => Self::Idle,
            3 => Self::Behind,
            4 => Self::Ended,
            _ => return None,
        })
    }
}

/// What an input tells its point, and a point the next one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    Watermark(Watermark),
    Idle,
    Active,
    End,
}
