//! Recursive descent over text that is known to be UTF-8 and bounded.

use super::{Json, JsonError, JsonErrorKind, Limits, Object};

pub(super) struct Parser<'t> {
    text: &'t str,
    offset: usize,
    limits: Limits,
    values: usize,
}

type Read<T> = Result<T, JsonError>;

impl<'t> Parser<'t> {
    pub(super) fn new(text: &'t str, limits: Limits) -> Self {
        Self {
            text,
            offset: 0,
            limits,
            values: 0,
        }
    }

    pub(super) fn document(mut self) -> Read<Json> {
        self.skip_space();
        let value = self.value(0)?;
        self.skip_space();
        match self.peek() {
            None => Ok(value),
            Some(_) => Err(self.error(JsonErrorKind::Trailing)),
        }
    }

    fn value(&mut self, depth: usize) -> Read<Json> {
        self.values += 1;
        if self.values > self.limits.values {
            return Err(self.error(JsonErrorKind::TooManyValues));
        }
        match self.peek() {
            Some(b'{') => self.object(depth + 1).map(Json::Object),
            Some(b'[') => self.list(depth + 1).map(Json::List),
            Some(b'"') => self.string().map(Json::Text),
            Some(b't') => self.word("true", Json::Bool(true)),
            Some(b'f') => self.word("false", Json::Bool(false)),
            Some(b'n') => self.word("null", Json::Null),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => Err(self.error(JsonErrorKind::Syntax)),
        }
    }

    fn object(&mut self, depth: usize) -> Read<Object> {
        let start = self.descend(depth)?;
        let mut members = Vec::new();
        if !self.took(b'}') {
            loop {
                self.skip_space();
                let name = self.string()?;
                self.skip_space();
                self.expect(b':')?;
                self.skip_space();
                members.push((name, self.value(depth)?));
                self.skip_space();
                if self.took(b'}') {
                    break;
                }
                self.expect(b',')?;
            }
        }
        if has_duplicates(&members) {
            return Err(JsonError {
                kind: JsonErrorKind::Duplicate,
                offset: start,
            });
        }
        Ok(Object(members))
    }

    fn list(&mut self, depth: usize) -> Read<Vec<Json>> {
        self.descend(depth)?;
        let mut items = Vec::new();
        if self.took(b']') {
            return Ok(items);
        }
        loop {
            self.skip_space();
            items.push(self.value(depth)?);
            self.skip_space();
            if self.took(b']') {
                return Ok(items);
            }
            self.expect(b',')?;
        }
    }

    /// Past the opening bracket and the space behind it.
    fn descend(&mut self, depth: usize) -> Read<usize> {
        if depth > self.limits.depth {
            return Err(self.error(JsonErrorKind::TooDeep));
        }
        let start = self.offset;
        self.offset += 1;
        self.skip_space();
        Ok(start)
    }

    fn string(&mut self) -> Read<String> {
        self.expect(b'"')?;
        let mut text = String::new();
        loop {
            let rest = &self.text[self.offset..];
            let plain = rest
                .bytes()
                .position(|byte| byte == b'"' || byte == b'\\' || byte < 0x20);
            let Some(plain) = plain else {
                return Err(self.error(JsonErrorKind::Syntax));
            };
            text.push_str(&rest[..plain]);
            self.offset += plain;
            match self.peek() {
                Some(b'"') => {
                    self.offset += 1;
                    return Ok(text);
                }
                Some(b'\\') => {
                    self.offset += 1;
                    text.push(self.escape()?);
                }
                _ => return Err(self.error(JsonErrorKind::Syntax)),
            }
        }
    }

    fn escape(&mut self) -> Read<char> {
        let letter = self.peek().ok_or_else(|| self.error(JsonErrorKind::Syntax))?;
        let character = match letter {
            b'"' | b'\\' | b'/' => char::from(letter),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                self.offset += 1;
                return self.unicode_escape();
            }
            _ => return Err(self.error(JsonErrorKind::Syntax)),
        };
        self.offset += 1;
        Ok(character)
    }

    fn unicode_escape(&mut self) -> Read<char> {
        let first = self.four_hex()?;
        let code = match first {
            0xD800..=0xDBFF => {
                if !self.text[self.offset..].starts_with("\\u") {
                    return Err(self.error(JsonErrorKind::Surrogate));
                }
                self.offset += 2;
                match self.four_hex()? {
                    second @ 0xDC00..=0xDFFF => 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00),
                    _ => return Err(self.error(JsonErrorKind::Surrogate)),
                }
            }
            code => code,
        };
        char::from_u32(code).ok_or_else(|| self.error(JsonErrorKind::Surrogate))
    }

    fn four_hex(&mut self) -> Read<u32> {
        let digits = self.text.as_bytes().get(self.offset..self.offset + 4);
        let Some(digits) = digits.filter(|digits| digits.iter().all(u8::is_ascii_hexdigit)) else {
            return Err(self.error(JsonErrorKind::Syntax));
        };
        let hex = |digit: &u8| char::from(*digit).to_digit(16).unwrap_or_default();
        let code = digits.iter().fold(0, |code, digit| code * 16 + hex(digit));
        self.offset += 4;
        Ok(code)
    }

    fn number(&mut self) -> Read<Json> {
        let start = self.offset;
        self.took(b'-');
        match self.peek() {
            Some(b'0') => self.offset += 1,
            _ => self.digits()?,
        }
        let mut whole = true;
        if self.took(b'.') {
            whole = false;
            self.digits()?;
        }
        if self.took(b'e') || self.took(b'E') {
            whole = false;
            if !self.took(b'+') {
                self.took(b'-');
            }
            self.digits()?;
        }
        kept(&self.text[start..self.offset], whole).ok_or(JsonError {
            kind: JsonErrorKind::Number,
            offset: start,
        })
    }

    fn digits(&mut self) -> Read<()> {
        let count = self.text[self.offset..]
            .bytes()
            .take_while(u8::is_ascii_digit)
            .count();
        self.offset += count;
        match count {
            0 => Err(self.error(JsonErrorKind::Syntax)),
            _ => Ok(()),
        }
    }

    fn word(&mut self, word: &str, value: Json) -> Read<Json> {
        if !self.text[self.offset..].starts_with(word) {
            return Err(self.error(JsonErrorKind::Syntax));
        }
        self.offset += word.len();
        Ok(value)
    }

    fn skip_space(&mut self) {
        let space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        self.offset += self.text.as_bytes()[self.offset..]
            .iter()
            .take_while(|byte| space(byte))
            .count();
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.offset).copied()
    }

    fn took(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.offset += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8) -> Read<()> {
        if self.took(byte) {
            return Ok(());
        }
        Err(self.error(JsonErrorKind::Syntax))
    }

    fn error(&self, kind: JsonErrorKind) -> JsonError {
        JsonError {
            kind,
            offset: self.offset,
        }
    }
}

fn has_duplicates(members: &[(String, Json)]) -> bool {
    let mut names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    names.windows(2).any(|pair| pair[0] == pair[1])
}

/// The number, if nothing of it is lost beyond the rounding of a fraction.
fn kept(text: &str, whole: bool) -> Option<Json> {
    if whole {
        let signed = text.parse().map(Json::Integer);
        return signed.or_else(|_| text.parse().map(Json::Unsigned)).ok();
    }
    let value: f64 = text.parse().ok()?;
    let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
    let vanished = value == 0.0 && mantissa.bytes().any(|byte| matches!(byte, b'1'..=b'9'));
    (value.is_finite() && !vanished).then_some(Json::Float(value))
}

#[cfg(test)]
mod tests {
    use super::super::{Json, JsonErrorKind, Limits, parse};

    const LIMITS: Limits = Limits {
        bytes: 64,
        depth: 3,
        values: 6,
    };

    #[test]
    fn values_are_what_they_say() {
        for (text, value) in [
            ("null", Json::Null),
            (" true\n", Json::Bool(true)),
            ("-0", Json::Integer(0)),
            ("9223372036854775807", Json::Integer(i64::MAX)),
            ("18446744073709551615", Json::Unsigned(u64::MAX)),
            ("1.50", Json::Float(1.5)),
            ("1e3", Json::Float(1000.0)),
            ("0e9", Json::Float(0.0)),
            (r#""\u0041\ud83d\ude00\/""#, Json::Text("A\u{1F600}/".into())),
            ("[]", Json::List(vec![])),
        ] {
            assert_eq!(parse(text.as_bytes(), LIMITS), Ok(value), "{text}");
        }
    }

    #[test]
    fn what_parsers_disagree_on_is_refused() {
        use JsonErrorKind::*;
        for (text, kind) in [
            (r#"{"a":1,"a":1}"#, Duplicate),
            (r#"{"a":1,"\u0061":2}"#, Duplicate),
            (r#""\ud800""#, Surrogate),
            (r#""\udc00""#, Surrogate),
            (r#""\ud800\u0041""#, Surrogate),
            ("1e999", Number),
            ("1e-999", Number),
            ("18446744073709551616", Number),
            ("-9223372036854775809", Number),
            ("01", Trailing),
            ("1 2", Trailing),
            ("+1", Syntax),
            (".5", Syntax),
            ("1.", Syntax),
            ("-", Syntax),
            ("NaN", Syntax),
            ("[1,]", Syntax),
            ("{,}", Syntax),
            ("{\"a\" 1}", Syntax),
            ("'a'", Syntax),
            ("\"\t\"", Syntax),
            ("\"\\x\"", Syntax),
            ("\"\\u12\u{e9}\"", Syntax),
            ("\"a", Syntax),
            ("\u{feff}{}", Syntax),
            ("", Syntax),
        ] {
            assert_eq!(
                parse(text.as_bytes(), LIMITS).map_err(|error| error.kind),
                Err(kind),
                "{text}"
            );
        }
        assert_eq!(parse(b"\"\xff\"", LIMITS).map_err(|error| error.kind), Err(Utf8));
    }

    #[test]
    fn limits_hold_at_their_edge() {
        let kind = |text: &str| parse(text.as_bytes(), LIMITS).map_err(|error| error.kind).err();
        assert_eq!(kind("[[[1]]]"), None);
        assert_eq!(kind("[[[[]]]]"), Some(JsonErrorKind::TooDeep));
        assert_eq!(kind("[1,2,3,4,5]"), None);
        assert_eq!(kind("[1,2,3,4,5,6]"), Some(JsonErrorKind::TooManyValues));
        assert_eq!(kind(&format!("\"{}\"", "x".repeat(62))), None);
        assert_eq!(
            kind(&format!("\"{}\"", "x".repeat(63))),
            Some(JsonErrorKind::TooLong)
        );
    }
}
