//! Names of objects.

use std::fmt;

/// An object's name: one to three components of `[a-z0-9-]`, joined by `/`.
///
/// The alphabet is safe in every store: a folder, a bucket, a case-folding disk.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName(Box<str>);

/// The folders at the top of a store in which objects lie.
pub const TOP_FOLDERS: [&str; 6] = ["gc", "index", "keys", "leases", "packs", "snapshots"];

/// A text that is no object name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an object name")]
pub struct NameParseError(String);

impl ObjectName {
    /// Checks `text` and makes a name of it.
    pub fn parse(text: &str) -> Result<Self, NameParseError> {
        let component_ok = |component: &str| {
            !component.is_empty()
                && component.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        let components = text.split('/').count();
        if components <= 3 && text.split('/').all(component_ok) {
            Ok(Self(text.into()))
        } else {
            Err(NameParseError(text.to_owned()))
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part after the last `/`.
    pub fn last_component(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectName({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_flat_lower_case_names_are_names() {
        for good in ["config", "packs/ab/abcdef", "index/0", "a-b"] {
            assert!(ObjectName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "/", "a/", "/a", "a//b", "A", "a.b", "../x", "a/b/c/d", "a b", "ä"] {
            assert!(ObjectName::parse(bad).is_err(), "{bad}");
        }
    }
}
