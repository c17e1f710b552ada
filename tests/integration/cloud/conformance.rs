//! The contract of stores, kept by real servers.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use backstay::env::Timestamp;
use backstay::observe::StopFlag;
use backstay::store::cloud::CloudStore;
use backstay::store::retry::{RetryPolicy, RetryStore, ThreadSleeper};
use backstay::store::{ListItem, ObjectName, Store, StoreOptions, conformance, location, probe};

use super::external::External;
use super::server::{BUCKET, KEY_ID, SECRET, Server};

static NEVER: StopFlag = StopFlag::new();

/// A store on a server, whose environment is `variables`.
pub fn open(location: &str, options: &[&str], variables: &[(&str, &str)]) -> Arc<CloudStore> {
    let options = StoreOptions::parse(options.iter().copied()).unwrap();
    location::open_remote(location, &options, &|name| {
        variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    })
    .unwrap()
}

/// Lets the S3 server of these tests in.
pub const S3_VARIABLES: [(&str, &str); 2] =
    [("AWS_ACCESS_KEY_ID", KEY_ID), ("AWS_SECRET_ACCESS_KEY", SECRET)];

#[test]
fn s3_keeps_the_contract() {
    let server = Server::s3();
    for prefix in ["", "/a/prefix"] {
        let store = open(&format!("s3:{}/{BUCKET}{prefix}", server.url()), &[], &S3_VARIABLES);
        probe::run(&store).unwrap();
        conformance::run_without_races(&store);
        let traffic = store.traffic().unwrap();
        assert!(traffic.requests > 100 && traffic.sent > 1 << 20 && traffic.received > 1 << 20);
    }
}

#[test]
fn s3_without_a_condition_keeps_the_contract_of_one_writer() {
    let server = Server::s3();
    let location = format!("s3://{BUCKET}/x");
    let url = server.url();
    let variables = [S3_VARIABLES[0], S3_VARIABLES[1], ("AWS_ENDPOINT_URL", url.as_str())];
    conformance::run_without_races(&open(&location, &["conditional-create=no"], &variables));
}

#[test]
fn webdav_keeps_the_contract() {
    let server = Server::webdav();
    for path in ["", "/new/folder%20here"] {
        let store = open(&format!("{}{path}", server.url()), &[], &[]);
        probe::run(&store).unwrap();
        conformance::run_without_replacing_races(&store);
    }
    let store = open(&format!("{}/place/folder", server.url()), &[], &[]);
    let folder = server.root().join("place/folder");
    conformance::vanishing_folder(&store, &folder);
    // What interrupted writes leave goes once it is old, and nothing else.
    store.put(&ObjectName::parse("keys/one").unwrap(), vec![]).unwrap();
    for name in ["keys/one.0123456789abcdef.part", "keys/two.0123456789abcdef.part", "letter.part"] {
        std::fs::write(folder.join(name), "").unwrap();
    }
    let age = |name: &str, secs: u64| {
        let file = std::fs::File::options().write(true).open(folder.join(name)).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(secs)).unwrap();
    };
    for name in ["keys/one", "keys/one.0123456789abcdef.part", "letter.part"] {
        age(name, 1000);
    }
    let before = Timestamp { secs: 2000, nanos: 0 };
    assert_eq!((store.clean_leftovers(before).unwrap(), store.clean_leftovers(before).unwrap()), (1, 0));
    let left = std::fs::read_dir(folder.join("keys")).unwrap().count();
    assert_eq!((left, folder.join("letter.part").exists()), (2, true));
}

#[test]
fn what_a_file_system_has_at_its_top_is_no_foreign_folder() {
    let server = Server::webdav();
    let folder = server.root().join("lost+found");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("17"), "").unwrap();
    let store = location::create_store(&server.url(), &[], &StoreOptions::default()).unwrap();
    store.put(&ObjectName::parse("keys/one").unwrap(), vec![]).unwrap();
    let mut found = Vec::new();
    store.list("", &mut |item| found.push(item)).unwrap();
    assert!(matches!(&found[..], [ListItem::Object(one)] if one.name.as_str() == "keys/one"), "{found:?}");
    std::fs::create_dir(server.root().join("other")).unwrap();
    std::fs::write(server.root().join("other/17"), "").unwrap();
    let error = location::create_store(&server.url(), &["keys", "index"], &StoreOptions::default());
    assert!(error.unwrap_err().to_string().contains("other"));
}

/// A server that is not part of these tests may be missing; then this says so, and gives nothing.
fn external(result: Result<External, String>) -> Option<External> {
    match result {
        Ok(server) => Some(server),
        Err(why) => {
            eprintln!("\n*** SKIPPED: {why}. `make servers` installs what these tests need. ***\n");
            None
        }
    }
}

#[test]
fn moto_keeps_the_contract() {
    let Some(server) = external(External::moto()) else { return };
    // It fails now and then where several put the same object.
    let store = open(&format!("s3:{}/{BUCKET}/p", server.url), &[], &S3_VARIABLES);
    let store = RetryStore::new(store, RetryPolicy::default(), Arc::new(ThreadSleeper(&NEVER)));
    probe::run(&store).unwrap();
    conformance::run_without_races(&store);
}

#[test]
fn azurite_keeps_the_contract_races_included() {
    let Some(server) = external(External::azurite()) else { return };
    let endpoint = format!("az.endpoint={}/devstoreaccount1", server.url);
    let options = ["az.emulator=yes", endpoint.as_str()];
    let store = open("az://container/p", &options, &[]);
    probe::run(&store).unwrap();
    conformance::run(&store);
}
