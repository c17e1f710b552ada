//! What a rebuild of the index does with the model's packs: all that no segment lists is listed.

use std::sync::Arc;
use std::time::Duration;

use super::model::{ModelIndex, ModelSegment, decode_pack, segment_id};
use super::world::{SimStore, World};
use crate::error::{Result, StoreErrorKind};
use crate::id::PackId;
use crate::observe::StopFlag;
use crate::repo::coord::{Coordination, Fence};
use crate::repo::layout;
use crate::store::{ListItem, Store};

/// Lists packs that runs have left behind, or are about to list themselves.
pub fn rebuild(world: &World, store: &Arc<SimStore>, coordination: &Arc<Coordination>) -> Result<()> {
    let lease = coordination.maintain("rebuild-index", Duration::ZERO, &StopFlag::new())?;
    let result = list_all(world, store, &lease.fence());
    lease.close(&result);
    result
}

fn list_all(world: &World, store: &Arc<SimStore>, fence: &Fence) -> Result<()> {
    // Segments before packs: what they list was stored before them.
    let mut index = ModelIndex::default();
    index.sync(&**store)?;
    let mut stored = Vec::new();
    store.list(layout::PACKS, &mut |item| {
        if let ListItem::Object(info) = item {
            stored.push(PackId::from_hex(info.name.last_component()).unwrap());
        }
    })?;
    let mut segment = ModelSegment::default();
    for pack in stored.into_iter().filter(|pack| !index.knows(pack)) {
        match store.get(&layout::pack(&pack)?) {
            Ok(object) => segment.packs.push((pack, decode_pack(&object))),
            Err(error) if error.kind == StoreErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    if segment.packs.is_empty() {
        return Ok(());
    }
    let name = layout::segment(&segment_id(world.below(u64::MAX)))?;
    fence.publish(|| Ok(store.put(&name, vec![segment.encode()])?))
}
