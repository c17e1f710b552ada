//! Tries out whether a store keeps what the contract of [`Store`] asks, before a repository trusts it.

use bytes::Bytes;

use crate::env::fill_random;
use crate::error::{StoreError, StoreErrorKind};
use crate::extent::Extent;
use crate::store::{ListItem, ObjectName, Store};

/// Where the trial object is put: a repository has such a folder, so an interrupted trial spoils none.
const FOLDER: &str = "index";

/// Writes, reads, lists and removes one small object. Fails as [`Unusable`](StoreErrorKind::Unusable),
/// with the reason, where the store says one thing and does another.
pub fn run(store: &dyn Store) -> Result<(), StoreError> {
    let mut random = [0; 16];
    fill_random(&mut random).map_err(|e| lie(format!("no random bytes: {e}")))?;
    let name = ObjectName::parse(&format!("{FOLDER}/probe-{}", hex::encode(random)))
        .map_err(|e| lie(e.to_string()))?;
    let result = trial(store, &name);
    let removed = store.delete(&name);
    result?;
    removed?;
    match store.get(&name) {
        Err(e) if e.kind == StoreErrorKind::NotFound => Ok(()),
        Ok(_) => Err(lie("an object was still there after it had been deleted")),
        Err(e) => Err(e),
    }
}

fn trial(store: &dyn Store, name: &ObjectName) -> Result<(), StoreError> {
    const FIRST: &[u8] = b"backstay tries out this store";
    const SECOND: &[u8] = b"this must not replace what is there";
    const THIRD: &[u8] = b"but this must replace it";
    let parts = |content: &'static [u8]| vec![Bytes::from_static(content)];
    store.create(name, parts(FIRST))?;
    if store.get(name)? != FIRST {
        return Err(lie("an object that had just been written read differently"));
    }
    match store.create(name, parts(SECOND)) {
        Err(e) if e.kind == StoreErrorKind::AlreadyExists => {}
        Ok(()) => {
            let hint = "`--option conditional-create=no` does without";
            return Err(lie(format!("an object was replaced by a write that must not replace: {hint}")));
        }
        Err(e) => return Err(e),
    }
    if store.get(name)? != FIRST {
        return Err(lie("a write that was refused changed the object all the same"));
    }
    store.put(name, parts(THIRD))?;
    if store.get(name)? != THIRD {
        return Err(lie("an object that had just been replaced read as before"));
    }
    if let Some(extent) = Extent::new(4, 4)
        && Some(&*store.get_range(name, extent)?) != THIRD.get(4..8)
    {
        return Err(lie("a part of an object was read wrongly"));
    }
    let mut listed = None;
    store.list(FOLDER, &mut |item| {
        if let ListItem::Object(info) = item
            && info.name == *name
        {
            listed = Some(info.size);
        }
    })?;
    match listed {
        Some(size) if size == THIRD.len() as u64 => Ok(()),
        Some(_) => Err(lie("a listing gave an object a wrong length")),
        None => Err(lie("a listing left out an object that had just been written")),
    }
}

fn lie(reason: impl Into<String>) -> StoreError {
    StoreError::new(StoreErrorKind::Unreliable, "use", "", reason.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::StoreErrorKind as K;
    use crate::store::faulty::{Fault, FaultPlan, FaultyStore, Request};
    use crate::store::memory::MemoryStore;

    #[test]
    fn an_honest_store_passes_and_is_left_empty() {
        let store = MemoryStore::new();
        run(&store).unwrap();
        assert_eq!(store.total_bytes(), 0);
    }

    #[test]
    fn a_store_that_lies_is_refused_with_the_reason() {
        for (fault, request, nth, reason) in [
            (Fault::ForgetCondition, Request::Create, 2, "must not replace"),
            (Fault::FlipBit, Request::Get, 1, "read differently"),
            (Fault::Ignore, Request::Put, 1, "read as before"),
            (Fault::FlipBit, Request::GetRange, 1, "a part"),
            (Fault::StaleList, Request::List, 1, "left out"),
            (Fault::Ignore, Request::Delete, 1, "deleted"),
        ] {
            let store = FaultyStore::new(MemoryStore::new(), FaultPlan::none().nth(request, nth, fault));
            let error = run(&store).unwrap_err();
            assert_eq!(error.kind, K::Unreliable, "{error}");
            assert!(error.reason.contains(reason), "{error}");
        }
    }

    #[test]
    fn a_store_that_fails_is_not_called_a_liar() {
        let fault = Fault::Fail(K::Denied);
        for request in [Request::Create, Request::Get, Request::List, Request::Delete] {
            let store = FaultyStore::new(MemoryStore::new(), FaultPlan::none().nth(request, 1, fault));
            assert_eq!(run(&store).unwrap_err().kind, K::Denied, "{request:?}");
        }
    }
}
