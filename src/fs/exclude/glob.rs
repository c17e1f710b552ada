//! Patterns for a single path component.

use std::borrow::Cow;

/// A pattern for one name, by how it is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Glob {
    /// `*`
    Any,
    /// Nothing special in it.
    Exact(Box<[u8]>),
    /// `*` and then nothing special.
    Suffix(Box<[u8]>),
    /// Nothing special and then `*`.
    Prefix(Box<[u8]>),
    /// Anything else.
    Tokens(Box<[Token]>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    Byte(u8),
    One,
    Many,
    Class { negated: bool, ranges: Box<[(char, char)]> },
}

impl Glob {
    /// Reads the pattern; the error says what is wrong with it.
    pub(super) fn parse(pattern: &[u8]) -> Result<Self, &'static str> {
        let mut tokens = Vec::with_capacity(pattern.len());
        let mut rest = pattern;
        while let Some((&first, tail)) = rest.split_first() {
            rest = tail;
            match first {
                b'*' if tokens.last() == Some(&Token::Many) => {}
                b'*' => tokens.push(Token::Many),
                b'?' => tokens.push(Token::One),
                b'[' => {
                    let (class, tail) = parse_class(tail)?;
                    tokens.push(class);
                    rest = tail;
                }
                b'\\' => {
                    let (&escaped, tail) = tail.split_first().ok_or("a '\\' at the end of a component")?;
                    tokens.push(Token::Byte(escaped));
                    rest = tail;
                }
                byte => tokens.push(Token::Byte(byte)),
            }
        }
        Ok(Self::from_tokens(tokens))
    }

    fn from_tokens(tokens: Vec<Token>) -> Self {
        let literal = |tokens: &[Token]| {
            let byte = |token: &Token| if let Token::Byte(byte) = token { Some(*byte) } else { None };
            tokens.iter().map(byte).collect::<Option<Box<[u8]>>>()
        };
        match tokens.as_slice() {
            [Token::Many] => return Self::Any,
            [Token::Many, rest @ ..] => {
                if let Some(suffix) = literal(rest) {
                    return Self::Suffix(suffix);
                }
            }
            [start @ .., Token::Many] => {
                if let Some(prefix) = literal(start) {
                    return Self::Prefix(prefix);
                }
            }
            all => {
                if let Some(exact) = literal(all) {
                    return Self::Exact(exact);
                }
            }
        }
        Self::Tokens(tokens.into_boxed_slice())
    }

    /// True if all of `name` matches. Needs no memory, and time of at most pattern times name.
    pub(super) fn matches(&self, name: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => **exact == *name,
            Self::Suffix(suffix) => name.ends_with(suffix),
            Self::Prefix(prefix) => name.starts_with(prefix),
            Self::Tokens(tokens) => match_tokens(tokens, name),
        }
    }
}

fn match_tokens(mut tokens: &[Token], mut name: &[u8]) -> bool {
    // Where to go on if the rest fails: after the last `*`, which then takes one character more.
    // An earlier `*` need not be tried again: the last one can take whatever that would.
    let mut retry: Option<(&[Token], &[u8])> = None;
    loop {
        match tokens.split_first() {
            None if name.is_empty() => return true,
            Some((Token::Many, rest)) => {
                tokens = rest;
                retry = Some((rest, name));
                continue;
            }
            Some((token, rest)) => {
                if let Some(tail) = match_one(token, name) {
                    (tokens, name) = (rest, tail);
                    continue;
                }
            }
            None => {}
        }
        let Some((after_star, from)) = retry else { return false };
        let (_, len) = first_char(from);
        let Some(tail) = from.get(len..).filter(|_| len > 0) else { return false };
        (tokens, name) = (after_star, tail);
        retry = Some((after_star, tail));
    }
}

/// What is left of `name` after `token`, if it matches.
fn match_one<'a>(token: &Token, name: &'a [u8]) -> Option<&'a [u8]> {
    let (first, len) = match token {
        Token::Byte(byte) => return name.strip_prefix(std::slice::from_ref(byte)),
        _ => first_char(name),
    };
    let hit = match token {
        Token::Class { negated, ranges } => {
            let inside = first.is_some_and(|c| ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)));
            inside != *negated
        }
        _ => true,
    };
    if hit && len > 0 { name.get(len..) } else { None }
}

/// The first character and its length; no character and 1 for a byte that is not UTF-8; no
/// character and 0 at the end.
fn first_char(bytes: &[u8]) -> (Option<char>, usize) {
    let len = match bytes.first() {
        None => return (None, 0),
        Some(0x00..=0x7f) => 1,
        Some(0xc0..=0xdf) => 2,
        Some(0xe0..=0xef) => 3,
        Some(_) => 4,
    };
    let first = bytes.get(..len).and_then(|bytes| std::str::from_utf8(bytes).ok());
    match first.and_then(|text| text.chars().next()) {
        Some(c) => (Some(c), c.len_utf8()),
        None => (None, 1),
    }
}

/// Reads a class after its `[`; returns what follows its `]`.
fn parse_class(pattern: &[u8]) -> Result<(Token, &[u8]), &'static str> {
    let (negated, mut rest) = match pattern.split_first() {
        Some((b'!' | b'^', rest)) => (true, rest),
        _ => (false, pattern),
    };
    let mut ranges = Vec::new();
    loop {
        if let Some((b']', tail)) = rest.split_first() {
            if ranges.is_empty() {
                return Err("an empty '[]'");
            }
            return Ok((Token::Class { negated, ranges: ranges.into_boxed_slice() }, tail));
        }
        let (low, tail) = class_char(rest)?;
        rest = tail;
        let mut high = low;
        if let Some(tail) = rest.strip_prefix(b"-")
            && !tail.starts_with(b"]")
        {
            (high, rest) = class_char(tail)?;
        }
        if low > high {
            return Err("a range in '[]' that runs backwards");
        }
        ranges.push((low, high));
    }
}

fn class_char(pattern: &[u8]) -> Result<(char, &[u8]), &'static str> {
    const OPEN: &str = "a '[' without its ']'";
    let pattern = pattern.strip_prefix(b"\\").unwrap_or(pattern);
    match first_char(pattern) {
        (Some(c), len) => Ok((c, pattern.get(len..).ok_or(OPEN)?)),
        (None, 0) => Err(OPEN),
        (None, _) => Err("bytes in '[]' that are not UTF-8"),
    }
}

/// `name` in lower case, for patterns that ignore case. Bytes that are not UTF-8 stay.
pub(super) fn fold(name: &[u8]) -> Cow<'_, [u8]> {
    if name.iter().all(|b| b.is_ascii() && !b.is_ascii_uppercase()) {
        return Cow::Borrowed(name);
    }
    let mut folded = Vec::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        folded.extend_from_slice(chunk.valid().to_lowercase().as_bytes());
        folded.extend_from_slice(chunk.invalid());
    }
    Cow::Owned(folded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: impl AsRef<[u8]>, name: impl AsRef<[u8]>) -> bool {
        Glob::parse(pattern.as_ref()).unwrap().matches(name.as_ref())
    }

    #[test]
    fn components_match() {
        for (pattern, name, expected) in [
            ("abc", "abc", true),
            ("abc", "abcd", false),
            ("*", "anything", true),
            ("***", "x", true),
            ("*.o", "main.o", true),
            ("*.o", "main.oo", false),
            ("core*", "core.123", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("?", "x", true),
            ("?", "\u{e4}", true),
            ("??", "\u{20ac}", false),
            ("*??", "\u{20ac}", false),
            ("a?c", "ac", false),
            ("[a-c]x", "bx", true),
            ("[a-c]x", "dx", false),
            ("[!a-c]x", "dx", true),
            ("[^a-c]", "b", false),
            ("[\u{e0}-\u{e9}]", "\u{e4}", true),
            ("[a-]", "-", true),
            ("[-a]", "-", true),
            (r"[\]]", "]", true),
            (r"\*", "*", true),
            (r"\*", "x", false),
            (r"\[x", "[x", true),
            ("{a,b}", "{a,b}", true),
            ("{a,b}", "a", false),
            ("!x", "!x", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
        assert!(matches(b"\xff*", b"\xff\xfe"));
        assert!(matches(b"?", b"\xff"));
        assert!(matches(b"[!a]", b"\xff"));
        assert!(!matches(b"[a-z]", b"\xff"));
    }

    #[test]
    fn bad_syntax_is_refused() {
        for bad in ["[", "[a", "[]", "[!]", "[a-", "[z-a]", "a\\", "[\\"] {
            assert!(Glob::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(Glob::parse(b"[\xff]").is_err());
    }

    #[test]
    fn simple_patterns_are_recognised() {
        assert_eq!(Glob::parse(b"a\\*b"), Ok(Glob::Exact((*b"a*b").into())));
        assert_eq!(Glob::parse(b"*.tmp"), Ok(Glob::Suffix((*b".tmp").into())));
        assert_eq!(Glob::parse(b"tmp*"), Ok(Glob::Prefix((*b"tmp").into())));
        assert!(matches!(Glob::parse(b"*a*"), Ok(Glob::Tokens(_))));
    }

    #[test]
    fn case_is_folded_beyond_ascii() {
        assert_eq!(&*fold(b"abc.1"), b"abc.1");
        assert_eq!(&*fold("\u{c4}B\u{df}".as_bytes()), "\u{e4}b\u{df}".as_bytes());
        assert_eq!(&*fold(b"A\xffB"), b"a\xffb");
    }

    /// The same by plain recursion.
    fn slow(pattern: &[char], name: &[char]) -> bool {
        match pattern.split_first() {
            None => name.is_empty(),
            Some(('*', rest)) => (0..=name.len()).any(|n| slow(rest, &name[n..])),
            Some(('?', rest)) => !name.is_empty() && slow(rest, &name[1..]),
            Some((c, rest)) => name.first() == Some(c) && slow(rest, &name[1..]),
        }
    }

    proptest! {
        #[test]
        fn agrees_with_plain_recursion(pattern in "[ab\u{e4}?*]{0,7}", name in "[ab\u{e4}]{0,7}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(matches(&pattern, &name), slow(&chars(&pattern), &chars(&name)));
        }

        #[test]
        fn any_bytes_are_parsed_and_matched_without_panic(pattern: Vec<u8>, name: Vec<u8>) {
            if let Ok(glob) = Glob::parse(&pattern) {
                let _ = glob.matches(&name);
            }
            let _ = fold(&name);
        }

        #[test]
        fn an_escaped_name_matches_itself(name: Vec<u8>) {
            let escaped: Vec<u8> = name.iter().flat_map(|&b| [b'\\', b]).collect();
            prop_assert!(matches(&escaped, &name));
        }
    }
}
