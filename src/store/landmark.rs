//! Tells a store that holds nothing from one that is gone.
//!
//! A server offers some folder. If the disk with it is unmounted, or the folder is moved, the server goes on
//! as if nothing was ever there: what is read is missing, listings are empty, and whatever is deleted was
//! deleted before. So every answer of that kind is believed only if an object is still there that was seen
//! before, and that a repository keeps as long as it lives.

use parking_lot::Mutex;

use crate::error::{StoreError, StoreErrorKind};
use crate::store::ObjectName;

/// The object that is asked for: a repository's configuration.
const LANDMARK: &str = "config";

/// Remembers whether the object was seen.
#[derive(Debug, Default)]
pub(super) struct Landmark(Mutex<Option<ObjectName>>);

impl Landmark {
    /// The object `name` was read or written.
    pub(super) fn saw(&self, name: &ObjectName) {
        if name.as_str() == LANDMARK {
            self.0.lock().get_or_insert_with(|| name.clone());
        }
    }

    /// The object `name` is about to be deleted, and says nothing any more.
    pub(super) fn forget(&self, name: &ObjectName) {
        if name.as_str() == LANDMARK {
            *self.0.lock() = None;
        }
    }

    /// Fails as [`Vanished`](StoreErrorKind::Vanished) if the object was seen and is gone, by what `ask` says of
    /// it. `action` on `object` found nothing.
    pub(super) fn confirm(
        &self,
        action: &'static str,
        object: impl ToString,
        ask: impl FnOnce(&ObjectName) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let Some(name) = self.0.lock().clone() else { return Ok(()) };
        match ask(&name) {
            Err(e) if e.kind == StoreErrorKind::NotFound && self.0.lock().is_some() => {
                let reason = format!("the whole store is gone: it has no {name} any more; unmounted?");
                Err(StoreError::new(StoreErrorKind::Vanished, action, object, reason))
            }
            Err(e) if e.kind == StoreErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}
