//! A repository that lost something.

use bytes::Bytes as Object;

use super::*;
use crate::repo::layout;

fn fixture() -> Fixture {
    // Three chunks make a frame: `a`; `b` and the start of `c`; the rest of `c`.
    Fixture::new(vec![
        file("a", &[&noise(1, 5000), &noise(2, 5000), &noise(3, 5000)]),
        file("b", &[&noise(4, 5000)]),
        file("c", &[&noise(5, 5000), &noise(6, 5000), &noise(7, 5000)]),
    ])
}

fn data_pack(f: &Fixture) -> Arc<crate::format::segment::PackRecord> {
    let info = f.repo.index().packs().map(Result::unwrap).find(|pack| pack.kind == PackKind::Data).unwrap();
    f.repo.index().pack(info.no).unwrap()
}

#[test]
fn files_of_a_damaged_frame_are_named_and_the_others_come_back() {
    let f = fixture();
    let pack = data_pack(&f);
    let name = layout::pack(&pack.id).unwrap();
    let mut bytes = f.store.get(&name).unwrap().to_vec();
    bytes[usize::try_from(pack.directory.frames[2].extent.offset()).unwrap() + 9] ^= 1;
    f.store.put(&name, vec![Object::from(bytes)]).unwrap();
    let recorder = Recorder::default();
    let report = f.try_run("", &RestoreOptions::default(), &recorder).unwrap();
    assert_eq!(names(&f.target()), ["a", "b"]);
    assert_eq!((report.errors, report.files_restored), (1, 2));
    let errors = recorder.file_errors();
    assert_eq!(errors[0].0, f.path("c"));
    assert!(errors[0].1.contains("damaged"), "{errors:?}");
}

#[test]
fn a_truncated_or_missing_pack_costs_what_was_in_it() {
    let f = fixture();
    let pack = data_pack(&f);
    let name = layout::pack(&pack.id).unwrap();
    let bytes = f.store.get(&name).unwrap();
    let end = usize::try_from(pack.directory.frames[1].extent.end()).unwrap();
    f.store.put(&name, vec![bytes.slice(..end)]).unwrap();
    let report = f.try_run("", &RestoreOptions::default(), &Recorder::default()).unwrap();
    assert_eq!((report.errors, report.files_restored), (1, 2));
    assert_eq!(f.read("a")[..5000], noise(1, 5000));
    std::fs::remove_dir_all(f.target()).unwrap();
    f.store.delete(&name).unwrap();
    let report = f.try_run("", &RestoreOptions::default(), &Recorder::default()).unwrap();
    assert_eq!((report.errors, report.files_restored), (3, 0));
    assert_eq!(names(&f.target()), Vec::<String>::new());
}

#[test]
fn a_file_that_was_there_is_not_removed_for_what_cannot_be_had() {
    let f = fixture();
    f.restore(&RestoreOptions::default());
    let longer = [b"changed".to_vec(), noise(8, 6000)].concat();
    std::fs::write(f.path("b"), &longer).unwrap();
    f.store.delete(&layout::pack(&data_pack(&f).id).unwrap()).unwrap();
    let report = f.try_run("", &RestoreOptions::default(), &Recorder::default()).unwrap();
    assert_eq!((report.errors, report.files_unchanged), (1, 2));
    assert_eq!(f.read("b"), longer);
}

#[test]
fn a_disk_that_cannot_read_a_sector_costs_what_lies_there_and_no_more() {
    use crate::error::StoreErrorKind;
    use crate::repo::LockedRepository;
    use crate::store::faulty::{Fault, FaultPlan, FaultyStore, Request};

    for remote in [false, true] {
        let store = if remote { MemoryStore::remote(4) } else { MemoryStore::new() };
        let files = vec![
            file("a", &[&noise(1, 5000), &noise(2, 5000), &noise(3, 5000)]),
            file("b", &[&noise(4, 5000)]),
        ];
        let f = Fixture::over(store, files);
        let name = layout::pack(&data_pack(&f).id).unwrap();
        let store = Arc::new(FaultyStore::new(Arc::clone(&f.store), FaultPlan::none()));
        let shared = Arc::clone(&store) as Arc<dyn Store>;
        let repo = LockedRepository::find(shared).unwrap().unlock(&Password::new(b"x".to_vec())).unwrap();
        let cache = tempfile::tempdir().unwrap();
        let repo = IndexedRepository::open(Arc::new(repo), cache.path(), &crate::observe::Silent).unwrap();
        let repo = Arc::new(repo);
        let restore = |plan: FaultPlan| {
            let target = tempfile::tempdir().unwrap();
            let (options, recorder) = (RestoreOptions::default(), Recorder::default());
            store.set_plan(plan);
            let repo = Arc::clone(&repo);
            let report = run(repo, &f.root, &[], target.path(), &options, &recorder, &StopFlag::new());
            report.unwrap()
        };
        let bad = Fault::Fail(StoreErrorKind::Unreadable);
        // All of the pack: its files are named, and the run goes on to its end.
        assert_eq!(restore(FaultPlan::none().object(&name, bad)).errors, 2);
        // Any one read after that of the listing: its frames are tried one by one.
        for nth in 2..5 {
            let report = restore(FaultPlan::none().nth(Request::GetRange, nth, bad));
            assert_eq!((report.errors, report.files_restored), (0, 2), "{nth}");
        }
        assert_eq!(restore(FaultPlan::none()).files_restored, 2);
    }
}
