//! Objects that are not what was written, each in turn.

use super::*;

#[test]
fn truncated_objects_are_found() {
    let f = Fixture::small();
    each_object(
        &f,
        |bytes| bytes.truncate(bytes.len() - 1),
        |name, reports| {
            for report in reports {
                assert!(names_object(&report, name), "{name}: {:?}", report.findings);
            }
        },
    );
    each_object(
        &f,
        |bytes| bytes.clear(),
        |name, reports| {
            for report in reports {
                assert!(names_object(&report, name), "{name}: {:?}", report.findings);
            }
        },
    );
}

#[test]
fn longer_objects_are_found() {
    let f = Fixture::small();
    each_object(
        &f,
        |bytes| bytes.push(0),
        |name, reports| {
            for report in reports {
                assert!(names_object(&report, name), "{name}: {:?}", report.findings);
            }
        },
    );
}

#[test]
fn flipped_bits_are_found() {
    let f = Fixture::small();
    for place in [0usize, 20, 40, 70, 1000, 2000, 4000, usize::MAX - 40, usize::MAX - 3] {
        each_object(
            &f,
            |bytes| {
                let at = if place > 1 << 40 { bytes.len() - (usize::MAX - place) } else { place };
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 0x10;
                }
            },
            |name, [_, report]| {
                // Where no such byte is, nothing was damaged.
                let untouched = f.get(name).len() <= place && place < 1 << 40;
                assert!(untouched || names_object(&report, name), "{name} at {place}: {:?}", report.findings);
            },
        );
    }
}

#[test]
fn removed_objects_are_found() {
    let f = Fixture::small();
    for name in f.names("") {
        // Nothing refers to a snapshot: one that was removed was forgotten.
        if name.as_str().starts_with("snapshots/") {
            continue;
        }
        let before = f.get(&name);
        f.store.delete(&name).unwrap();
        for report in both(&f) {
            assert!(report.is_damaged(), "{name}");
        }
        f.put(&name, before);
    }
    assert_clean(&f);
}

#[test]
fn swapped_objects_are_found() {
    let f = Fixture::small();
    for folder in ["packs/", "index/", "snapshots/"] {
        let names = f.names(folder);
        let (one, two) = (f.get(&names[0]), f.get(&names[1]));
        f.put(&names[0], two.clone());
        f.put(&names[1], one.clone());
        let report = check(&f, ReadData::All);
        assert!(
            names_object(&report, &names[0]) && names_object(&report, &names[1]),
            "{:?}",
            report.findings
        );
        f.put(&names[0], one);
        f.put(&names[1], two);
    }
    assert_clean(&f);
}
