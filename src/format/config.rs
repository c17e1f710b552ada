//! The repository's configuration: the JSON inside the sealed object `config`.
//!
//! Unknown fields are ignored; a feature in `required_features` that is not known means that a newer
//! program made the repository.

use serde::{Deserialize, Serialize};

use crate::format::wire::DecodeError;
use crate::id::RepoId;
use crate::limits::{CHUNK_AVG_BYTES, CHUNK_HARD_MAX_BYTES, CHUNK_MAX_BYTES, CHUNK_MIN_BYTES};

/// Smallest average that the chunker takes, in bytes.
const CHUNK_AVG_LOWEST_BYTES: u32 = 4096;
/// Largest average that the chunker takes, in bytes.
const CHUNK_AVG_HIGHEST_BYTES: u32 = 4 * 1024 * 1024;

/// How streams are cut into chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "algorithm", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ChunkerProfile {
    /// FastCDC as of 2020 with normalization level 1 and a gear table derived from the master key.
    Fastcdc2020 {
        /// Smallest chunk in bytes, but for the last of a stream.
        min: u32,
        /// Average chunk in bytes; a power of two.
        avg: u32,
        /// Largest chunk in bytes.
        max: u32,
    },
}

impl Default for ChunkerProfile {
    fn default() -> Self {
        Self::Fastcdc2020 { min: CHUNK_MIN_BYTES, avg: CHUNK_AVG_BYTES, max: CHUNK_MAX_BYTES }
    }
}

impl ChunkerProfile {
    /// True if the chunker can work with these sizes.
    pub fn is_valid(&self) -> bool {
        let Self::Fastcdc2020 { min, avg, max } = *self;
        let even = |n: u32| n.is_multiple_of(2);
        avg.is_power_of_two()
            && (CHUNK_AVG_LOWEST_BYTES..=CHUNK_AVG_HIGHEST_BYTES).contains(&avg)
            && (64..avg).contains(&min)
            && max > avg
            && max <= CHUNK_HARD_MAX_BYTES
            && even(min)
            && even(max)
    }

    /// Length in bytes of the largest chunk.
    pub fn max_len(&self) -> u32 {
        let Self::Fastcdc2020 { max, .. } = *self;
        max
    }
}

/// A repository's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepoConfig {
    /// The repository's id in hex; the same as in the header of every object.
    #[serde(with = "repo_id_hex")]
    pub repo: RepoId,
    /// When `init` made it, RFC 3339.
    pub created: String,
    /// The program that made it.
    pub program: String,
    /// What a program must know to use the repository.
    pub required_features: Vec<String>,
    /// How streams are cut.
    pub chunker: ChunkerProfile,
    /// What `init` found out about the store, where that is on a server. For people: nothing is decided by it, as
    /// a repository can be moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<ProbedStore>,
}

/// What a trial of a store has shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbedStore {
    /// When, RFC 3339.
    pub probed: String,
    /// What was written was read as it was written, and what was replaced as the new one.
    pub read_after_write: bool,
    /// What was written was listed at once.
    pub list_after_write: bool,
    /// The store itself refuses to create what is there; else it is asked before, and of two at the same moment
    /// both may succeed.
    pub conditional_create: bool,
}

impl RepoConfig {
    /// The JSON text.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    /// Decodes and checks the JSON text.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        check_features(bytes)?;
        let config: Self =
            serde_json::from_slice(bytes).map_err(|_| DecodeError::Invalid("the configuration"))?;
        if config.chunker.is_valid() { Ok(config) } else { Err(DecodeError::Invalid("the chunker's sizes")) }
    }
}

/// Fails with [`DecodeError::TooNew`] if the JSON object asks for a feature that is not known, before
/// anything else of it is looked at: a newer program may have changed all the rest.
pub fn check_features(bytes: &[u8]) -> Result<(), DecodeError> {
    #[derive(Deserialize)]
    struct Features {
        #[serde(default)]
        required_features: Vec<String>,
    }
    let features: Features =
        serde_json::from_slice(bytes).map_err(|_| DecodeError::Invalid("the JSON text"))?;
    match features.required_features.first() {
        None => Ok(()),
        Some(feature) => Err(DecodeError::TooNew(format!("the feature {feature:?}"))),
    }
}

mod repo_id_hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::id::RepoId;

    pub fn serialize<S: Serializer>(id: &RepoId, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&id.to_string())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<RepoId, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes).map_err(D::Error::custom)?;
        Ok(RepoId::from_bytes(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_round_trips_and_unknown_fields_are_ignored() {
        let config = RepoConfig {
            repo: RepoId::from_bytes([5; 16]),
            created: "2026-01-02T03:04:05Z".to_owned(),
            program: "backstay 0.1.0".to_owned(),
            required_features: vec![],
            chunker: ChunkerProfile::default(),
            store: None,
        };
        let bytes = config.encode().unwrap();
        assert_eq!(RepoConfig::decode(&bytes), Ok(config.clone()));
        let text = String::from_utf8(bytes).unwrap().replacen('{', "{\"later\":[1],", 1);
        assert_eq!(RepoConfig::decode(text.as_bytes()), Ok(config));
    }

    #[test]
    fn what_the_store_was_found_to_be_is_kept_and_may_be_absent() {
        let text = br#"{"repo":"05050505050505050505050505050505","created":"","program":"",
            "required_features":[],
            "chunker":{"algorithm":"fastcdc2020","min":16384,"avg":65536,"max":262144}}"#;
        let old = RepoConfig::decode(text).unwrap();
        assert_eq!(old.store, None);
        assert!(!String::from_utf8(old.encode().unwrap()).unwrap().contains("store"));
        let store = ProbedStore {
            probed: "2026-01-02T03:04:05Z".to_owned(),
            read_after_write: true,
            list_after_write: true,
            conditional_create: false,
        };
        let new = RepoConfig { store: Some(store), ..old };
        assert_eq!(RepoConfig::decode(&new.encode().unwrap()), Ok(new));
    }

    #[test]
    fn an_unknown_required_feature_is_too_new_even_if_the_rest_makes_no_sense() {
        let text = br#"{"required_features":["time-travel"],"chunker":7}"#;
        assert!(matches!(RepoConfig::decode(text), Err(DecodeError::TooNew(f)) if f.contains("time-travel")));
    }

    #[test]
    fn sizes_the_chunker_cannot_take_are_refused() {
        for (min, avg, max) in
            [(0, 65536, 262144), (16384, 65535, 262144), (16384, 65536, 65536), (16383, 65536, 262144)]
        {
            assert!(!ChunkerProfile::Fastcdc2020 { min, avg, max }.is_valid(), "{min} {avg} {max}");
        }
        assert!(ChunkerProfile::default().is_valid());
    }
}
