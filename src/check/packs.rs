//! The packs that the index lists are in the store, with the length they should have.

use crate::error::{Result, StoreErrorKind};
use crate::repo::index::PackInfo;
use crate::repo::layout;

use super::objects::StoredPacks;
use super::report::{Advice, CheckCounts, Severity};
use super::{Check, Damage};

impl Check<'_> {
    pub(super) fn packs(
        &self,
        mut stored: StoredPacks,
        damage: &Damage,
        counts: &mut CheckCounts,
    ) -> Result<()> {
        for info in self.repo.index().packs() {
            let info = info?;
            counts.packs += 1;
            counts.pack_bytes += info.size;
            counts.chunks += u64::from(info.chunk_count);
            let size = match stored.remove(&info.id) {
                Some(size) => Some(size),
                // A backup may have stored it since the packs were listed.
                None => self.size_now(&info)?,
            };
            match size {
                Some(size) if size == info.size => {}
                Some(size) => {
                    let what = format!("it has {size} bytes where {} were written", info.size);
                    damage.add_wrong(info.no, what);
                    if size < info.size {
                        // What is left of it may still be readable; reading all of it tells.
                        self.shortened(&info, size, damage)?;
                    }
                }
                None => {
                    damage.add_pack(info.no);
                    let name = layout::pack(&info.id)?;
                    self.findings.error(name, "it is missing from the store", Advice::BackUpAgain);
                }
            }
        }
        counts.unlisted_packs = stored.len() as u64;
        counts.unlisted_bytes = stored.values().sum();
        for id in stored.keys() {
            counts.left_out_packs += u64::from(self.repo.index().is_dropped(id)?);
        }
        if counts.unlisted_packs > 0 {
            let what = format!(
                "it holds {} packs ({} bytes) that no segment lists: an interrupted run left them, or one is \
                 going on",
                counts.unlisted_packs, counts.unlisted_bytes
            );
            self.findings.add(Severity::Note, layout::PACKS, what, Advice::Nothing);
        }
        Ok(())
    }

    fn size_now(&self, info: &PackInfo) -> Result<Option<u64>> {
        match self.repo.store().info(&layout::pack(&info.id)?) {
            Ok(found) => Ok(Some(found.size)),
            Err(error) if error.kind == StoreErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Frames beyond the end of a pack are lost.
    fn shortened(&self, info: &PackInfo, size: u64, damage: &Damage) -> Result<()> {
        let pack = self.repo.index().pack(info.no)?;
        let mut slot = 0u32;
        for frame in &pack.directory.frames {
            if frame.extent.end() > size {
                damage.add_frame(info.no, slot, frame);
            }
            slot = slot.saturating_add(u32::try_from(frame.chunks.len()).unwrap_or(u32::MAX));
        }
        Ok(())
    }
}
