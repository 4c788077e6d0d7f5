//! A strict JSON reader (RFC 8259) that keeps the text of numbers and refuses duplicate keys at any depth: a general
//! parser would turn 12.0 into a number like any other and let the last duplicate win.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::{BadRecord, Scalar};

/// Deeper nesting is refused: the reader recurses.
const MAX_DEPTH: u32 = 64;

/// The top-level fields `wanted` of the object in `text`, Null for one that is absent.
pub(super) fn fields<'a, const N: usize>(
    text: &'a str,
    wanted: &[Option<&str>; N],
) -> Result<[Scalar<'a>; N], BadRecord> {
    let mut reader = Reader { text, at: 0 };
    let mut found = [const { Scalar::Null }; N];
    reader.space();
    reader.object(0, &mut |name, scalar| {
        for (slot, _) in found.iter_mut().zip(wanted).filter(|(_, w)| **w == Some(name)) {
            *slot = scalar.clone();
        }
    })?;
    reader.space();
    if reader.at != text.len() {
        return Err(reader.bad("trailing text"));
    }
    Ok(found)
}

/// The names of an object's fields so far. Few are compared with each other; many are kept in order, so that an object
/// of a million fields does not take a million squared steps.
#[derive(Default)]
struct Seen<'a> {
    few: Vec<Cow<'a, str>>,
    many: BTreeSet<Cow<'a, str>>,
}

impl<'a> Seen<'a> {
    const FEW: usize = 16;

    /// Gives the name back if it was there.
    fn repeated(&mut self, name: Cow<'a, str>) -> Option<Cow<'a, str>> {
        if self.few.contains(&name) || self.many.contains(&name) {
            return Some(name);
        }
        if self.few.len() < Self::FEW {
            self.few.push(name);
        } else {
            self.many.insert(name);
        }
        None
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn bad(&self, what: &str) -> BadRecord {
        BadRecord::Undecodable(format!("{what} at byte {}", self.at))
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), BadRecord> {
        if self.peek() != Some(byte) {
            return Err(self.bad(&format!("expected {:?}", byte as char)));
        }
        self.at += 1;
        Ok(())
    }

    fn object(&mut self, depth: u32, field: &mut dyn FnMut(&str, &Scalar<'a>)) -> Result<(), BadRecord> {
        if depth > MAX_DEPTH {
            return Err(self.bad("nested too deep"));
        }
        self.expect(b'{')?;
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        let mut seen = Seen::default();
        loop {
            self.space();
            let name = self.string()?;
            self.space();
            self.expect(b':')?;
            let scalar = self.value(depth)?;
            field(&name, &scalar);
            if let Some(name) = seen.repeated(name) {
                return Err(BadRecord::Undecodable(format!("duplicate field {name:?}")));
            }
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(self.bad("expected ',' or '}'")),
            }
        }
    }

    fn array(&mut self, depth: u32) -> Result<(), BadRecord> {
        if depth > MAX_DEPTH {
            return Err(self.bad("nested too deep"));
        }
        self.expect(b'[')?;
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.value(depth)?;
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(self.bad("expected ',' or ']'")),
            }
        }
    }

    fn value(&mut self, depth: u32) -> Result<Scalar<'a>, BadRecord> {
        self.space();
        match self.peek() {
            Some(b'"') => Ok(Scalar::Text(self.string()?)),
            Some(b'{') => {
                self.object(depth + 1, &mut |_, _| ())?;
                Ok(Scalar::Other)
            }
            Some(b'[') => {
                self.array(depth + 1)?;
                Ok(Scalar::Other)
            }
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => {
                for (word, scalar) in [("null", Scalar::Null), ("true", Scalar::Other), ("false", Scalar::Other)] {
                    if self.text[self.at..].starts_with(word) {
                        self.at += word.len();
                        return Ok(scalar);
                    }
                }
                Err(self.bad("expected a value"))
            }
        }
    }

    fn digits(&mut self) -> usize {
        let from = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        self.at - from
    }

    fn number(&mut self) -> Result<Scalar<'a>, BadRecord> {
        let from = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let leading_zero = self.peek() == Some(b'0');
        let n = self.digits();
        if n == 0 || (leading_zero && n > 1) {
            return Err(self.bad("malformed number"));
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            if self.digits() == 0 {
                return Err(self.bad("malformed number"));
            }
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            if self.digits() == 0 {
                return Err(self.bad("malformed number"));
            }
        }
        Ok(Scalar::Number(&self.text[from..self.at]))
    }

    /// Borrowed if nothing in it is escaped.
    fn string(&mut self) -> Result<Cow<'a, str>, BadRecord> {
        self.expect(b'"')?;
        let mut out = Cow::Borrowed("");
        loop {
            let rest: &'a str = &self.text[self.at..];
            let plain = rest.bytes().position(|b| matches!(b, b'"' | b'\\' | 0..=0x1f)).unwrap_or(rest.len());
            out += &rest[..plain];
            self.at += plain;
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => {
                    self.at += 1;
                    let c = self.escape()?;
                    out.to_mut().push(c);
                }
                _ => return Err(self.bad("unterminated string")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, BadRecord> {
        let byte = self.peek().ok_or_else(|| self.bad("unterminated escape"))?;
        self.at += 1;
        Ok(match byte {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let unit = self.hex4()?;
                let code = match unit {
                    0xd800..=0xdbff => {
                        self.expect(b'\\')?;
                        self.expect(b'u')?;
                        let low = self.hex4()?;
                        if !(0xdc00..=0xdfff).contains(&low) {
                            return Err(self.bad("lone surrogate"));
                        }
                        0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00)
                    }
                    other => other,
                };
                char::from_u32(code).ok_or_else(|| self.bad("lone surrogate"))?
            }
            _ => return Err(self.bad("unknown escape")),
        })
    }

    fn hex4(&mut self) -> Result<u32, BadRecord> {
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|b| (b as char).to_digit(16)).ok_or_else(|| self.bad("bad \\u escape"))?;
            unit = unit * 16 + digit;
            self.at += 1;
        }
        Ok(unit)
    }
}
