//! Leases: the JSON inside the sealed objects `leases/<lease id>-<number>`.
//!
//! Unknown fields are ignored; an unknown feature in `required_features` means "too new". Whoever meets a
//! lease that it cannot read takes it for one that is in force and has acknowledged nothing.

use serde::{Deserialize, Serialize};

use crate::env::Timestamp;
use crate::format::config::check_features;
use crate::format::entry::Content;
use crate::format::wire::DecodeError;
use crate::id::{GenerationId, PackId};

/// What a lease allows its holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LeaseRole {
    /// Adds snapshots.
    Writer,
    /// Reads snapshots over a long time.
    Reader,
    /// Deletes packs or replaces the index: one at a time.
    Maintenance,
}

/// A generation that the holder knows of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledged {
    /// Which.
    #[serde(with = "hex_text")]
    pub generation: GenerationId,
    /// Packs of it that the holder has referred to before it knew. It will not refer to others.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "hex_texts")]
    pub needs: Vec<PackId>,
}

/// A process as the system it runs on can find it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessMark {
    /// Which start of which system.
    pub boot: String,
    /// Where its number counts.
    pub namespace: String,
    /// When it was started, in the system's ticks: its number may be given again.
    pub started: u64,
    /// The system's age in milliseconds when the lease was renewed.
    pub now_ms: u64,
}

/// What a lease says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRecord {
    /// What a program must know to read it.
    #[serde(default)]
    pub required_features: Vec<String>,
    /// What it allows its holder.
    pub role: LeaseRole,
    /// The holder's command.
    pub operation: String,
    /// Its host.
    pub host: String,
    /// Its user.
    pub user: String,
    /// Its process.
    pub pid: u32,
    /// Its process as its own system can find it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessMark>,
    /// When the holder got its first object, by the store's clock. Absent in that object itself.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time")]
    pub started: Option<Timestamp>,
    /// Roots of trees that the holder refers to without having looked at every chunk.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "contents")]
    pub pins: Vec<Content>,
    /// The generations that the holder knows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seen: Vec<Acknowledged>,
}

impl LeaseRecord {
    /// The JSON text.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    /// Decodes the JSON text.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        check_features(bytes)?;
        serde_json::from_slice(bytes).map_err(|_| DecodeError::Invalid("the lease"))
    }
}

/// Ids as hex texts.
trait Hex: Sized {
    fn text(&self) -> String;
    fn parse(text: &str) -> Option<Self>;
}

impl Hex for GenerationId {
    fn text(&self) -> String {
        self.to_hex()
    }
    fn parse(text: &str) -> Option<Self> {
        Self::from_hex(text).ok()
    }
}

impl Hex for PackId {
    fn text(&self) -> String {
        self.to_hex()
    }
    fn parse(text: &str) -> Option<Self> {
        Self::from_hex(text).ok()
    }
}

mod hex_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::Hex;

    pub fn serialize<T: Hex, S: Serializer>(id: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&id.text())
    }

    pub fn deserialize<'de, T: Hex, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        T::parse(&String::deserialize(deserializer)?).ok_or_else(|| D::Error::custom("no id"))
    }
}

mod hex_texts {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::Hex;

    pub fn serialize<T: Hex, S: Serializer>(ids: &[T], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(ids.iter().map(Hex::text))
    }

    pub fn deserialize<'de, T: Hex, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        texts.iter().map(|text| T::parse(text).ok_or_else(|| D::Error::custom("no id"))).collect()
    }
}

/// Seconds and nanoseconds.
mod time {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    use crate::env::Timestamp;

    pub fn serialize<S: Serializer>(time: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
        time.map(|time| (time.secs, time.nanos)).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
        match Option::<(i64, u32)>::deserialize(deserializer)? {
            Some((_, 1_000_000_000..)) => Err(D::Error::custom("no time")),
            found => Ok(found.map(|(secs, nanos)| Timestamp { secs, nanos })),
        }
    }
}

mod contents {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::format::content::{decode_content, encode_content};
    use crate::format::entry::Content;
    use crate::format::wire::Reader;

    pub fn serialize<S: Serializer>(contents: &[Content], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(contents.iter().map(|content| {
            let mut bytes = Vec::new();
            encode_content(&mut bytes, content);
            hex::encode(bytes)
        }))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Content>, D::Error> {
        let mut contents = Vec::new();
        for text in Vec::<String>::deserialize(deserializer)? {
            let bytes = hex::decode(text).map_err(D::Error::custom)?;
            let mut reader = Reader::new(&bytes);
            contents.push(decode_content(&mut reader).map_err(D::Error::custom)?);
            reader.finish().map_err(D::Error::custom)?;
        }
        Ok(contents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_of_this_version_stays_readable() {
        let text = format!(
            r#"{{"required_features":[],"role":"writer","operation":"backup","host":"h","user":"u","pid":7,
            "process":{{"boot":"b","namespace":"n","started":3,"now_ms":5}},"started":[10,5],
            "pins":["000000"],"seen":[{{"generation":"{}","needs":["{}"]}}],"unknown":{{}}}}"#,
            "ab".repeat(16),
            "cd".repeat(32),
        );
        let lease = LeaseRecord::decode(text.as_bytes()).unwrap();
        assert_eq!((lease.role, lease.pid), (LeaseRole::Writer, 7));
        assert_eq!(lease.started, Some(Timestamp { secs: 10, nanos: 5 }));
        assert_eq!(lease.pins, [Content::default()]);
        assert_eq!(lease.seen[0].generation, GenerationId::from_bytes([0xab; 16]));
        assert_eq!(lease.seen[0].needs, [PackId::from_bytes([0xcd; 32])]);
        assert_eq!(lease.process.as_ref().map(|p| p.now_ms), Some(5));
        assert_eq!(LeaseRecord::decode(&lease.encode().unwrap()), Ok(lease));
    }

    #[test]
    fn the_least_that_a_lease_says() {
        let text = br#"{"role":"reader","operation":"restore","host":"h","user":"u","pid":1}"#;
        let lease = LeaseRecord::decode(text).unwrap();
        assert!(lease.pins.is_empty() && lease.seen.is_empty() && lease.started.is_none());
        let encoded = String::from_utf8(lease.encode().unwrap()).unwrap();
        assert!(!encoded.contains("pins") && !encoded.contains("started"), "{encoded}");
    }

    #[test]
    fn a_lease_that_needs_more_is_too_new() {
        let text = br#"{"required_features":["x"]}"#;
        assert!(matches!(LeaseRecord::decode(text), Err(DecodeError::TooNew(_))));
        assert!(matches!(LeaseRecord::decode(b"{"), Err(DecodeError::Invalid(_))));
    }
}
