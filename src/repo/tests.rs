use super::*;
use crate::observe::Silent;
use crate::repo::test_fixture::Fixture;
use crate::store::Store;

fn condemn(repo: &IndexedRepository, pack: PackId) {
    repo.condemned(&[(GenerationId::from_bytes([1; 16]), vec![pack])]).unwrap();
}

/// Packs of the index that may not be referred to.
fn condemned(repo: &IndexedRepository) -> Vec<PackId> {
    let packs = repo.index().packs().map(Result::unwrap);
    packs.filter(|pack| repo.pack_use().is_condemned(pack.no)).map(|pack| pack.id).collect()
}

/// Numbers are given out as packs come: what is condemned is known by its id.
#[test]
fn condemned_packs_are_known_again_in_an_index_that_was_made_anew() {
    let f = Fixture::small();
    let names = f.names("index/");
    let whole: Vec<_> = names.iter().map(|name| f.get(name)).collect();
    for (name, bytes) in names.iter().zip(&whole) {
        // The index learns of this segment only after its pack was condemned.
        let id = crate::id::SegmentId::from_hex(name.last_component()).unwrap();
        let pack = segments::load(&f.repo, &id).unwrap().packs[0].id;
        f.store.inner().delete(name).unwrap();
        let cache = tempfile::TempDir::new().unwrap();
        let repo = IndexedRepository::open(Arc::clone(&f.repo), cache.path(), &Silent).unwrap();
        condemn(&repo, pack);
        assert!(condemned(&repo).is_empty());
        f.put(name, bytes.clone());
        repo.sync(&Silent).unwrap();
        assert_eq!(condemned(&repo), [pack]);
        assert!(repo.refresh_after_loss().unwrap());
        assert_eq!(condemned(&repo), [pack]);
    }
}

/// Somebody lists a pack that a generation had named, and that no segment listed when a run acknowledged it.
#[test]
fn a_condemned_pack_that_is_listed_later_is_not_referred_to() {
    for by_loss in [true, false] {
        let f = Fixture::small();
        let name = f.names("index/").remove(0);
        let whole = f.get(&name);
        let id = crate::id::SegmentId::from_hex(name.last_component()).unwrap();
        let listed = segments::load(&f.repo, &id).unwrap();
        let pack = &listed.packs[0];
        let chunks: Vec<ChunkId> = pack.directory.chunks().map(|(_, chunk)| chunk.id).collect();
        f.store.inner().delete(&name).unwrap();
        let cache = tempfile::TempDir::new().unwrap();
        let repo = IndexedRepository::open(Arc::clone(&f.repo), cache.path(), &Silent).unwrap();
        condemn(&repo, pack.id);
        f.put(&name, whole);
        if by_loss {
            assert!(repo.refresh_after_loss().unwrap());
        } else {
            let other = (GenerationId::from_bytes([2; 16]), vec![PackId::from_bytes([9; 32])]);
            repo.condemned(&[other]).unwrap();
        }
        assert!(repo.index().lookup(&chunks[0]).unwrap().is_some());
        assert!(repo.refer_many(&chunks).unwrap().iter().all(Option::is_none), "{by_loss}");
        let others = &listed.packs[1];
        let (_, chunk) = others.directory.chunks().next().unwrap();
        assert!(repo.refer_many(&[chunk.id]).unwrap()[0].is_some());
    }
}
