//! Reproducible randomness: SplitMix64.

/// A generator whose whole future is its seed.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// The generator of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A seed from `BACKSTAY_TEST_SEED`, else from the clock. Printed, so that a failure can be repeated.
    pub fn seeded(what: &str) -> Self {
        let seed = match std::env::var("BACKSTAY_TEST_SEED") {
            Ok(text) => text.parse().expect("BACKSTAY_TEST_SEED is a number"),
            Err(_) => std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64,
        };
        println!("{what}: repeat with BACKSTAY_TEST_SEED={seed}");
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Below `bound`, which is not zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// `len` bytes that do not compress.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&rng.next().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// `len` bytes that compress well and still differ by seed.
pub fn text(seed: u64, len: usize) -> Vec<u8> {
    const WORDS: [&str; 8] = ["mast ", "stay ", "halyard ", "sheet ", "cleat ", "boom ", "keel ", "spar\n"];
    let mut rng = Rng::new(seed);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(WORDS[rng.below(8) as usize].as_bytes());
    }
    bytes.truncate(len);
    bytes
}
