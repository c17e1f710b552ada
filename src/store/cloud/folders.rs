//! What is different where objects are files in the folders of a web server.

use std::sync::Arc;

use futures_util::StreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt, PutPayload};

use crate::env::Timestamp;
use crate::error::StoreError;
use crate::limits::STORE_FOLDERS_MAX_DEPTH;
use crate::store::cloud::{CloudStore, PART_SUFFIX, failure, webdav};
use crate::store::{LOST_AND_FOUND, ObjectName};

impl CloudStore {
    /// Makes the folder of an object, but not on the empty place of a store that vanished.
    pub(super) fn prepare_folder(&self, mover: &webdav::Mover, name: &ObjectName) -> Result<(), StoreError> {
        let failed = |e| failure::of(&self.place, "write", name.as_str(), &e);
        let path = self.path(name.as_str());
        let is_there = match name.as_str().split_once('/') {
            Some(_) if mover.knows_folder_of(&path) => return Ok(()),
            Some((top, _)) => self.run(mover.finds_folder(&self.path(top))).map_err(failed)?,
            None => false,
        };
        if !is_there {
            self.confirm("write", name.as_str())?;
        }
        self.run(mover.prepare(&path)).map_err(failed)
    }

    pub(super) async fn write_and_move(
        &self,
        mover: &webdav::Mover,
        path: &Path,
        payload: PutPayload,
        replace: bool,
    ) -> object_store::Result<()> {
        let part = webdav::Mover::part(path)
            .map_err(|e| object_store::Error::Generic { store: "WebDAV", source: Box::new(e) })?;
        let written = match mover.put(&part, payload).await {
            Ok(()) => mover.rename(&part, path, replace).await,
            Err(e) => Err(e),
        };
        if written.is_err() {
            // If this fails too, what is left is no object.
            let _ = self.place.objects.delete(&part).await;
        }
        written
    }

    /// Lists folder by folder: servers refuse to list a whole tree. Gives false if some folder is empty or missing.
    pub(super) fn walk(&self, top: Path, each: &mut dyn FnMut(&ObjectMeta)) -> object_store::Result<bool> {
        let mut is_sure = true;
        let mut folders = vec![top];
        while !folders.is_empty() {
            let listed =
                folders.into_iter().map(|folder| {
                    let objects = Arc::clone(&self.place.objects);
                    async move {
                        objects.list_with_delimiter((!folder.as_ref().is_empty()).then_some(&folder)).await
                    }
                });
            let listed = futures_util::stream::iter(listed).buffer_unordered(self.network.connections());
            let listed: Vec<_> = self.run(listed.collect());
            folders = Vec::new();
            for folder in listed {
                let folder = match folder {
                    Ok(folder) => folder,
                    // Nothing was ever put there.
                    Err(object_store::Error::NotFound { .. }) => {
                        is_sure = false;
                        continue;
                    }
                    Err(e) => return Err(e),
                };
                // So is one that is missing.
                is_sure &= !(folder.objects.is_empty() && folder.common_prefixes.is_empty());
                folder.objects.iter().for_each(&mut *each);
                // Deeper, no object can be: a link that leads back to where it is must not be followed for ever.
                let depth =
                    |path: &Path| path.parts().count().saturating_sub(self.place.prefix.parts().count());
                let deeper = folder.common_prefixes.into_iter();
                // What the file system has at its top is no folder of ours, and often may not be read.
                let is_ours = |path: &Path| depth(path) != 1 || path.filename() != Some(LOST_AND_FOUND);
                folders.extend(deeper.filter(|path| is_ours(path) && depth(path) <= STORE_FOLDERS_MAX_DEPTH));
            }
        }
        Ok(is_sure)
    }

    /// Removes files that were to become objects, and were last written before `before`. Gives their number.
    pub(super) fn clean_parts(&self, before: Timestamp) -> Result<u64, StoreError> {
        let mut parts = Vec::new();
        let listed = self.walk(self.path(""), &mut |meta| {
            let is_old = meta.last_modified.timestamp() < before.secs;
            if is_old && self.name_of(meta).is_some_and(is_part) {
                parts.push(meta.location.clone());
            }
        });
        listed.map_err(|e| failure::of(&self.place, "list", "", &e))?;
        let mut removed = 0;
        for part in parts {
            match self.run(self.place.objects.delete(&part)) {
                Ok(()) => removed += 1,
                Err(object_store::Error::NotFound { .. }) => {}
                Err(e) => return Err(failure::of(&self.place, "delete", part.as_ref(), &e)),
            }
        }
        Ok(removed)
    }
}

/// True for the name of an object that is being written to a folder of a server.
pub(in crate::store) fn is_part(shown: &str) -> bool {
    let name = shown.strip_suffix(PART_SUFFIX).and_then(|rest| rest.rsplit_once('.'));
    name.is_some_and(|(name, random)| {
        ObjectName::parse(name).is_ok() && random.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}
