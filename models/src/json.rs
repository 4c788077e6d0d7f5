//! Strict JSON as rule 24 wants it: one value, nothing after it, no duplicate key in any object, numbers kept as they
//! are written. Text without escapes is not copied.
//!
//! A reader of its own, because the rule tells `12` from `12.0` and a duplicate key from the last one, both of which a
//! general one has lost by the time it hands the value over.

use std::borrow::Cow;

/// Deepest nesting read; deeper text is bad input.
const MAX_DEPTH: usize = 127;

#[derive(Debug, Clone, PartialEq)]
pub enum Json<'a> {
    Null,
    Bool(bool),
    /// The number's text.
    Number(&'a str),
    String(Cow<'a, str>),
    Array(Vec<Json<'a>>),
    Object(Vec<(Cow<'a, str>, Json<'a>)>),
}

/// Not JSON as above.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem} at byte {at}")]
pub struct JsonError {
    pub problem: &'static str,
    pub at: usize,
}

impl<'a> Json<'a> {
    /// Reads exactly one value.
    pub fn parse(bytes: &'a [u8]) -> Result<Json<'a>, JsonError> {
        let text = std::str::from_utf8(bytes).map_err(|e| JsonError { problem: "not UTF-8", at: e.valid_up_to() })?;
        let mut reader = Reader { text, at: 0 };
        let value = reader.value(0)?;
        reader.space();
        if reader.at < text.len() {
            return Err(reader.error("text after the value"));
        }
        Ok(value)
    }

    /// A field of an object.
    pub fn get(&self, name: &str) -> Option<&Json<'a>> {
        match self {
            Json::Object(fields) => fields.iter().find(|(k, _)| k == name).map(|(_, v)| v),
            _ => None,
        }
    }

    /// The text of a number or a string.
    pub fn text(&self) -> Option<&str> {
        match self {
            Json::Number(text) => Some(text),
            Json::String(text) => Some(text),
            _ => None,
        }
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn error(&self, problem: &'static str) -> JsonError {
        JsonError { problem, at: self.at }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn expect(&mut self, literal: &str) -> Result<(), JsonError> {
        if !self.text[self.at..].starts_with(literal) {
            return Err(self.error("unexpected character"));
        }
        self.at += literal.len();
        Ok(())
    }

    fn value(&mut self, depth: usize) -> Result<Json<'a>, JsonError> {
        self.space();
        match self.peek() {
            None => Err(self.error("text ends too early")),
            Some(b'n') => self.expect("null").map(|()| Json::Null),
            Some(b't') => self.expect("true").map(|()| Json::Bool(true)),
            Some(b'f') => self.expect("false").map(|()| Json::Bool(false)),
            Some(b'"') => self.string().map(Json::String),
            Some(b'[') if depth < MAX_DEPTH => self.array(depth + 1),
            Some(b'{') if depth < MAX_DEPTH => self.object(depth + 1),
            Some(b'[' | b'{') => Err(self.error("nested too deep")),
            Some(_) => self.number(),
        }
    }

    fn array(&mut self, depth: usize) -> Result<Json<'a>, JsonError> {
        self.expect("[")?;
        let mut items = Vec::new();
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Json::Array(items));
        }
        loop {
            items.push(self.value(depth)?);
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(Json::Array(items));
                }
                _ => return Err(self.error("expected , or ]")),
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json<'a>, JsonError> {
        self.expect("{")?;
        let mut fields: Vec<(Cow<'a, str>, Json<'a>)> = Vec::new();
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Json::Object(fields));
        }
        loop {
            self.space();
            let start = self.at;
            let name = self.string()?;
            if fields.iter().any(|(earlier, _)| *earlier == name) {
                return Err(JsonError { problem: "duplicate key", at: start });
            }
            self.space();
            self.expect(":")?;
            let value = self.value(depth)?;
            fields.push((name, value));
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(Json::Object(fields));
                }
                _ => return Err(self.error("expected , or }")),
            }
        }
    }

    fn string(&mut self) -> Result<Cow<'a, str>, JsonError> {
        self.expect("\"")?;
        let mut out = Cow::Borrowed("");
        loop {
            let rest: &'a str = &self.text[self.at..];
            let Some(plain) = rest.bytes().position(|b| b == b'"' || b == b'\\' || b < b' ') else {
                return Err(self.error("text ends inside a string"));
            };
            // The first stretch is borrowed, and often all there is.
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
                _ => return Err(self.error("control character inside a string")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        let c = match self.peek() {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                let high = self.hex4()?;
                let code = if (0xd800..0xdc00).contains(&high) {
                    self.expect("\\u")?;
                    let low = self.hex4()?;
                    if !(0xdc00..0xe000).contains(&low) {
                        return Err(self.error("lone surrogate"));
                    }
                    0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00)
                } else {
                    high
                };
                return char::from_u32(code).ok_or_else(|| self.error("lone surrogate"));
            }
            _ => return Err(self.error("unknown escape")),
        };
        self.at += 1;
        Ok(c)
    }

    fn hex4(&mut self) -> Result<u32, JsonError> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4).ok_or_else(|| self.error("text ends too early"))?;
        let mut code = 0;
        for d in digits {
            let d = char::from(*d).to_digit(16).ok_or_else(|| self.error("expected four hex digits"))?;
            code = code * 16 + d;
        }
        self.at += 4;
        Ok(code)
    }

    fn number(&mut self) -> Result<Json<'a>, JsonError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits()?,
            _ => return Err(self.error("unexpected character")),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(Json::Number(&self.text[start..self.at]))
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { Err(self.error("expected a digit")) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> &'static str {
        Json::parse(text.as_bytes()).unwrap_err().problem
    }

    #[test]
    fn numbers_keep_their_text() {
        for text in ["0", "-0", "12", "12.0", "1e3", "-1.5E-7", "123456789012345678901234567890"] {
            assert_eq!(Json::parse(text.as_bytes()).unwrap(), Json::Number(text));
        }
        for text in ["01", "+1", ".5", "1.", "1e", "-", "0x1", "NaN"] {
            assert!(Json::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn duplicate_keys_are_bad_at_any_depth() {
        assert_eq!(problem(r#"{"a":1,"a":1}"#), "duplicate key");
        assert_eq!(problem(r#"{"b":[{"a":1,"\u0061":2}]}"#), "duplicate key");
        assert!(Json::parse(br#"{"a":{"a":1},"b":{"a":1}}"#).is_ok());
    }

    #[test]
    fn strings_unescape() {
        let text = r#""\u00e9\ud83d\ude00\n\/""#;
        assert_eq!(Json::parse(text.as_bytes()).unwrap(), Json::String("é😀\n/".into()));
        for text in [r#""\ud83d""#, r#""\ude00""#, "\"\n\"", r#""\x""#, r#""abc"#] {
            assert!(Json::parse(text.as_bytes()).is_err(), "{text}");
        }
        assert_eq!(Json::parse(b"\"\xff\"").unwrap_err().problem, "not UTF-8");
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |n: usize| "[".repeat(n) + &"]".repeat(n);
        assert!(Json::parse(nested(MAX_DEPTH).as_bytes()).is_ok());
        assert_eq!(problem(&nested(MAX_DEPTH + 1)), "nested too deep");
        assert_eq!(problem("{} {}"), "text after the value");
    }

    proptest::proptest! {
        /// What both accept they read alike, and this reader accepts nothing that a general one refuses.
        #[test]
        fn agrees_with_a_general_reader(text in r#"[\[\]{}",:0-9a\-\.e \\untrls]{0,24}"#) {
            if let Ok(value) = Json::parse(text.as_bytes()) {
                let general: serde_json::Value = serde_json::from_str(&text).expect("accepted by the strict reader only");
                proptest::prop_assert_eq!(general.is_object(), matches!(value, Json::Object(_)));
            }
        }
    }
}
