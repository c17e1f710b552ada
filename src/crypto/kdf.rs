//! From a password to the master key.

use std::time::Instant;

use argon2::{Algorithm, Argon2, Params, Version};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::crypto::aead::ObjectKey;
use crate::crypto::keys::{KEY_LEN, MasterKey};
use crate::format::header::Header;
use crate::format::key_slot::{COMMITMENT_LEN, KdfParams, KeySlot, WRAPPED_KEY_LEN};
use crate::limits::{ARGON2_LANES, ARGON2_MAX_MEMORY_KIB, ARGON2_MIN_MEMORY_KIB, ARGON2_MIN_PASSES};

/// A password as the user gave it.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Password(Vec<u8>);

impl Password {
    /// Takes the bytes over.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// True if it has no byte.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Why a password gave no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KdfError {
    /// Memory for the password function could not be had, or its parameters are impossible.
    #[error("the password function cannot run with these parameters")]
    Params,
    /// The password is not this slot's.
    #[error("the password does not fit")]
    WrongPassword,
    /// The password fits, yet the sealed key does not open.
    #[error("the sealed master key is damaged")]
    Damaged,
}

struct Derived {
    key: Zeroizing<[u8; KEY_LEN]>,
    commitment: [u8; COMMITMENT_LEN],
}

fn derive(password: &Password, salt: &[u8; 32], kdf: &KdfParams) -> Result<Derived, KdfError> {
    let params = Params::new(kdf.memory_kib, kdf.passes, kdf.lanes, Some(KEY_LEN + COMMITMENT_LEN))
        .map_err(|_| KdfError::Params)?;
    let mut output = Zeroizing::new([0u8; KEY_LEN + COMMITMENT_LEN]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(&password.0, salt, output.as_mut_slice())
        .map_err(|_| KdfError::Params)?;
    let mut key = Zeroizing::new([0; KEY_LEN]);
    let mut commitment = [0; COMMITMENT_LEN];
    let (head, tail) = output.split_at(KEY_LEN);
    key.copy_from_slice(head);
    commitment.copy_from_slice(tail);
    Ok(Derived { key, commitment })
}

/// The associated header of the sealed master key: the slot's header, with the parameters and the
/// commitment hashed in, so that none can be exchanged.
fn slot_key(derived: &Derived, header: &Header, kdf: &KdfParams) -> ObjectKey {
    let bytes = header.encode();
    let mut hasher = blake3::Hasher::new_keyed(&derived.key);
    hasher.update(&bytes).update(&KeySlot::encode_bound(kdf, &derived.commitment));
    ObjectKey::new(&Zeroizing::new(*hasher.finalize().as_bytes()), bytes)
}

/// Seals `master` for `password` in a slot with this header.
pub fn wrap(
    master: &MasterKey,
    password: &Password,
    header: &Header,
    kdf: KdfParams,
    label: Vec<u8>,
) -> Result<KeySlot, KdfError> {
    let derived = derive(password, &header.salt, &kdf)?;
    let mut sealed = Zeroizing::new(Vec::with_capacity(WRAPPED_KEY_LEN));
    sealed.extend_from_slice(master.expose());
    slot_key(&derived, header, &kdf).into_sealer().seal_next(&mut sealed).map_err(|_| KdfError::Params)?;
    let wrapped = sealed.as_slice().try_into().map_err(|_| KdfError::Params)?;
    Ok(KeySlot { kdf, commitment: derived.commitment, wrapped, label })
}

/// Opens a slot.
pub fn unwrap(slot: &KeySlot, password: &Password, header: &Header) -> Result<MasterKey, KdfError> {
    let derived = derive(password, &header.salt, &slot.kdf)?;
    if !bool::from(derived.commitment.ct_eq(&slot.commitment)) {
        return Err(KdfError::WrongPassword);
    }
    let mut sealed = Zeroizing::new(slot.wrapped.to_vec());
    slot_key(&derived, header, &slot.kdf).open(0, &mut sealed).map_err(|_| KdfError::Damaged)?;
    let mut master = Zeroizing::new([0; KEY_LEN]);
    if sealed.len() != KEY_LEN {
        return Err(KdfError::Damaged);
    }
    master.copy_from_slice(&sealed);
    Ok(MasterKey::from_bytes(master))
}

/// Parameters that take about `target_ms` milliseconds on this machine, never below the minimum.
pub fn calibrate(target_ms: u64) -> KdfParams {
    let mut kdf =
        KdfParams { memory_kib: ARGON2_MIN_MEMORY_KIB, passes: ARGON2_MIN_PASSES, lanes: ARGON2_LANES };
    let start = Instant::now();
    if derive(&Password::new(b"calibration".to_vec()), &[0; 32], &kdf).is_err() {
        return kdf;
    }
    let took_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
    let times = u32::try_from(target_ms / took_ms).unwrap_or(1).max(1);
    kdf.memory_kib = kdf.memory_kib.saturating_mul(times).min(ARGON2_MAX_MEMORY_KIB);
    kdf
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::header::ObjectKind;
    use crate::id::RepoId;

    const KDF: KdfParams =
        KdfParams { memory_kib: ARGON2_MIN_MEMORY_KIB, passes: ARGON2_MIN_PASSES, lanes: ARGON2_LANES };

    #[test]
    fn only_the_password_and_the_very_slot_give_the_master_key() {
        let header = Header { kind: ObjectKind::Key, repo: RepoId::from_bytes([1; 16]), salt: [2; 32] };
        let master = MasterKey::from_bytes(Zeroizing::new([9; KEY_LEN]));
        let password = Password::new(b"correct horse".to_vec());
        let slot = wrap(&master, &password, &header, KDF, vec![]).unwrap();
        assert_eq!(unwrap(&slot, &password, &header).map(|k| *k.expose()).ok(), Some([9; KEY_LEN]));

        let wrong = Password::new(b"correct hors".to_vec());
        assert_eq!(unwrap(&slot, &wrong, &header).err(), Some(KdfError::WrongPassword));
        let mut damaged = slot.clone();
        damaged.wrapped[0] ^= 1;
        assert_eq!(unwrap(&damaged, &password, &header).err(), Some(KdfError::Damaged));
        let moved = Header { repo: RepoId::from_bytes([3; 16]), ..header };
        assert_eq!(unwrap(&slot, &password, &moved).err(), Some(KdfError::Damaged));
    }

    #[test]
    fn a_derived_slot_is_pinned() {
        let header = Header { kind: ObjectKind::Key, repo: RepoId::from_bytes([1; 16]), salt: [2; 32] };
        let master = MasterKey::from_bytes(Zeroizing::new([9; KEY_LEN]));
        let slot = wrap(&master, &Password::new(b"pw".to_vec()), &header, KDF, vec![]).unwrap();
        let expected = [
            "000001000300000002000000",
            "61cc1b45ad7147f5c0c55a5c7a5be6427d99323c8a45e2e23560e11b66543131",
            "e8cd261476133194be709abae522a8e972549ec0613f53d23eeed065d1cc4930",
            "8a70dfbbbcda740d7b437fe3049e0db2",
        ]
        .concat();
        assert_eq!(hex::encode(slot.encode()), expected);
    }
}
