//! The contract of stores, kept by real servers.

use std::sync::Arc;

use backstay::store::cloud::CloudStore;
use backstay::store::{StoreOptions, conformance, location, probe};

use super::server::{BUCKET, KEY_ID, SECRET, Server};

/// A store on a server, whose environment is `variables`.
pub fn open(location: &str, options: &[&str], variables: &[(&str, &str)]) -> Arc<CloudStore> {
    let options = StoreOptions::parse(options.iter().copied()).unwrap();
    location::open_remote(location, &options, &|name| {
        variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    })
    .unwrap()
}

const S3_VARIABLES: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", KEY_ID), ("AWS_SECRET_ACCESS_KEY", SECRET)];

#[test]
fn s3_keeps_the_contract() {
    let server = Server::s3();
    for prefix in ["", "/a/prefix"] {
        let store = open(&format!("s3:{}/{BUCKET}{prefix}", server.url()), &[], &S3_VARIABLES);
        probe::run(&store).unwrap();
        conformance::run_without_races(&store);
        assert!(store.traffic().requests > 100 && store.traffic().sent > 1 << 20);
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
        conformance::run_without_races(&store);
    }
}
