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
