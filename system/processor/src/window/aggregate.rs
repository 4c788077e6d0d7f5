//! What a window keeps of its records (rule 17): commutative and associative, exact integers only.

use std::fmt::Write as _;

use crate::codec::{CodecError, Reader, Writer};
use crate::job::Aggregate;
use crate::record::Record;

/// Integers beyond this magnitude are printed as strings: a reader with doubles would round them.
const JSON_EXACT: i128 = 1 << 53;

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Accumulator {
    count: u64,
    sum: i128,
    /// Least and greatest value; None until a record has one.
    bounds: Option<(i64, i64)>,
    digest: u64,
}

impl Accumulator {
    pub const BYTES_MIN: usize = 8 + 16 + 1 + 8;

    pub fn add(&mut self, record: &Record) {
        self.count += 1;
        self.digest = self.digest.wrapping_add(lineage(record.partition, record.offset));
        if let Some(v) = record.value {
            self.sum += i128::from(v);
            self.bounds = Some(self.bounds.map_or((v, v), |(min, max)| (min.min(v), max.max(v))));
        }
    }

    pub fn merge(&mut self, other: &Accumulator) {
        self.count += other.count;
        self.sum += other.sum;
        self.digest = self.digest.wrapping_add(other.digest);
        self.bounds = match (self.bounds, other.bounds) {
            (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
            (a, b) => a.or(b),
        };
    }

    /// Appends `,"count":6,"sum":41` in the order of `functions`.
    pub fn print(&self, functions: &[Aggregate], out: &mut String) {
        for function in functions {
            let (name, value) = match function {
                Aggregate::Count => ("count", Some(i128::from(self.count))),
                Aggregate::Sum => ("sum", self.bounds.map(|_| self.sum)),
                Aggregate::Min => ("min", self.bounds.map(|(min, _)| i128::from(min))),
                Aggregate::Max => ("max", self.bounds.map(|(_, max)| i128::from(max))),
                Aggregate::Digest => ("digest", Some(i128::from(self.digest))),
            };
            // Writing to a String cannot fail.
            let _ = match value {
                None => write!(out, ",\"{name}\":null"),
                Some(v) if v.abs() <= JSON_EXACT => write!(out, ",\"{name}\":{v}"),
                Some(v) => write!(out, ",\"{name}\":\"{v}\""),
            };
        }
    }

    pub fn write(&self, w: &mut Writer) {
        w.u64(self.count);
        w.i128(self.sum);
        w.opt_i64(self.bounds.map(|(min, _)| min));
        if let Some((_, max)) = self.bounds {
            w.i64(max);
        }
        w.u64(self.digest);
    }

    pub fn read(r: &mut Reader) -> Result<Self, CodecError> {
        let count = r.u64()?;
        let sum = r.i128()?;
        let bounds = match r.opt_i64()? {
            Some(min) => Some((min, r.i64()?)),
            None => None,
        };
        Ok(Self { count, sum, bounds, digest: r.u64()? })
    }
}

/// The hash of where a record came from.
fn lineage(partition: i32, offset: i64) -> u64 {
    mix(mix(partition as u64).wrapping_add(offset as u64))
}

/// One step of splitmix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators").
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn record(offset: i64, value: Option<i64>) -> Record {
        Record { partition: 1, offset, event_time_ms: 0, key: Bytes::new(), value, raw_key: None, raw_value: None }
    }

    #[test]
    fn printing() {
        let all = [Aggregate::Count, Aggregate::Sum, Aggregate::Min, Aggregate::Max];
        let mut a = Accumulator::default();
        a.add(&record(0, None));
        let mut text = String::new();
        a.print(&all, &mut text);
        assert_eq!(text, r#","count":1,"sum":null,"min":null,"max":null"#);
        a.add(&record(1, Some(i64::MAX)));
        a.add(&record(2, Some(-3)));
        a.add(&record(3, Some(i64::MAX)));
        let mut text = String::new();
        a.print(&all, &mut text);
        assert_eq!(text, r#","count":4,"sum":"18446744073709551611","min":-3,"max":"9223372036854775807""#);
    }

    #[test]
    fn merging_is_adding_and_the_codec_is_exact() {
        let (mut a, mut b, mut both) = (Accumulator::default(), Accumulator::default(), Accumulator::default());
        for (i, v) in [Some(3), None, Some(-9), Some(1 << 60)].into_iter().enumerate() {
            let r = record(i as i64, v);
            if i % 2 == 0 {
                a.add(&r)
            } else {
                b.add(&r)
            }
            both.add(&r);
        }
        b.merge(&a);
        assert_eq!(b, both);
        for acc in [both, Accumulator::default()] {
            let mut w = Writer::new();
            acc.write(&mut w);
            let mut r = Reader::new("test", w.finish());
            assert_eq!(Accumulator::read(&mut r).unwrap(), acc);
            r.end().unwrap();
        }
    }

    #[test]
    fn the_lineage_hash_is_splitmix64() {
        // The first output of splitmix64 seeded with 0.
        assert_eq!(mix(0), 0xE220_A839_7B1D_CDAF);
    }
}
