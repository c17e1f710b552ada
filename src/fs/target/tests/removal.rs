//! What is not in the snapshot goes, and nothing else.

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;

use super::*;

#[test]
fn extraneous_names_go_with_all_below_and_links_are_not_followed() {
    let at = Fixture::new(Replace::Nodes);
    std::fs::create_dir_all(at.path("gone/deep/empty")).unwrap();
    std::fs::create_dir_all(at.path("kept/gone")).unwrap();
    std::fs::write(at.path("gone/deep/file"), "x").unwrap();
    std::fs::write(at.path("kept/file"), "x").unwrap();
    symlink(at.outside(), at.path("gone/to-outside")).unwrap();
    symlink(at.outside(), at.path("to-outside")).unwrap();
    symlink("nowhere", at.path("dangling")).unwrap();
    let mut removed = BTreeSet::new();
    at.dir()
        .remove_extraneous(|found| found.as_bytes() == b"kept", &mut |path, result| {
            assert!(result.is_ok(), "{} {result:?}", path.display());
            assert!(removed.insert(path.to_owned()));
        })
        .unwrap();
    let expected = [
        "gone",
        "gone/deep",
        "gone/deep/empty",
        "gone/deep/file",
        "gone/to-outside",
        "to-outside",
        "dangling",
    ];
    assert_eq!(removed, expected.map(|path| at.path(path)).into());
    let left: Vec<_> = std::fs::read_dir(at.path("")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["kept"]);
    assert!(at.path("kept/gone").exists() && at.path("kept/file").exists());
    at.assert_outside_untouched();
}

#[test]
fn a_listing_says_what_would_go_and_removes_nothing() {
    let at = Fixture::new(Replace::Nodes);
    for number in 0..2000 {
        std::fs::write(at.path(&format!("a name of some length, number {number}")), "").unwrap();
    }
    let even = |found: &EntryName| found.as_bytes().last().is_some_and(|digit| digit % 2 == 0);
    for _ in 0..2 {
        assert_eq!(at.dir().extraneous(even).unwrap().len(), 1000);
    }
    at.dir().remove_extraneous(even, &mut |_, result| result.unwrap()).unwrap();
    assert_eq!(at.dir().extraneous(|_| false).unwrap().len(), 1000);
}

#[test]
fn what_cannot_be_removed_is_reported_once_and_the_rest_goes() {
    use std::os::unix::fs::PermissionsExt;
    let at = Fixture::new(Replace::Nodes);
    std::fs::create_dir_all(at.path("gone/own")).unwrap();
    std::fs::write(at.path("gone/own/file"), "x").unwrap();
    std::fs::set_permissions(at.path("gone/own"), PermissionsExt::from_mode(0o0)).unwrap();
    // A directory whose removal keeps failing: somebody adds to it while it is removed.
    std::fs::create_dir_all(at.path("busy/below")).unwrap();
    let again = at.path("busy/again");
    let mut failed = vec![];
    for tree in ["gone", "busy"] {
        at.dir().remove(&name(tree), &mut |path, result| {
            match result {
                Err(_) => failed.push(path.to_owned()),
                Ok(()) if path.ends_with("busy/below") => std::fs::write(&again, "x").unwrap(),
                Ok(()) => {}
            };
        });
    }
    assert_eq!(failed, [at.path("busy")]);
    assert!(!at.path("gone").exists());
    assert!(again.exists());
}

#[test]
fn what_is_mounted_below_stays_a_part_of_the_same_file_system_too() {
    let at = Fixture::new(Replace::Trees);
    for folder in ["gone/mounted", "way/mounted", "shared"] {
        std::fs::create_dir_all(at.path(folder)).unwrap();
    }
    let mounts = ["gone/mounted", "way/mounted", "shared"];
    let Some(_mounts) = BindMounts::new(&at.outside(), &mounts.map(|folder| at.path(folder))) else { return };
    let mut refused = Vec::new();
    for dry_run in [true, false] {
        let rules = Rules { filter: None, dry_run };
        at.dir().remove_selected(&name("gone"), &rules, &mut |path, result| {
            let kind = result.expect_err("nothing can go").kind();
            refused.push((path.to_owned(), kind));
        });
        at.assert_outside_untouched();
    }
    let mounted = (at.path("gone/mounted"), io::ErrorKind::CrossesDevices);
    assert_eq!(refused, [mounted.clone(), mounted]);
    at.dir().write_file(&name("way"), b"data", &meta(0o600)).unwrap_err();
    at.assert_outside_untouched();
    let open = |name_of: &str| at.dir().open_child(&name(name_of)).unwrap().unwrap();
    assert!(open("gone").shares_mount(at.dir()) && !open("shared").shares_mount(at.dir()));
}
