//! A range of bytes inside an object, with checked arithmetic.

/// `len` bytes that start at `offset`. Cannot reach past `u64::MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Extent {
    offset: u64,
    len: u64,
}

impl Extent {
    /// The extent, or nothing where its end would overflow.
    pub const fn new(offset: u64, len: u64) -> Option<Self> {
        match offset.checked_add(len) {
            Some(_) => Some(Self { offset, len }),
            None => None,
        }
    }

    /// First byte.
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// Number of bytes.
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// True if it holds no byte.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// One past the last byte.
    pub const fn end(&self) -> u64 {
        // `new` has shown that this cannot overflow.
        self.offset + self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extent_that_would_overflow_cannot_be_made() {
        assert_eq!(Extent::new(u64::MAX, 1), None);
        assert_eq!(Extent::new(u64::MAX, 0).map(|e| e.end()), Some(u64::MAX));
        assert_eq!(Extent::new(3, 4).map(|e| e.end()), Some(7));
    }
}
