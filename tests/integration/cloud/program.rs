//! The whole program over servers: what works with a folder works there.

use std::fs;
use std::time::Duration;

use super::server::{BUCKET, Fault, KEY_ID, Rule, SECRET, Server};
use crate::support::Sandbox;
use crate::support::compare::capture;
use crate::support::tree::{Node, dir, file, noise, symlink, text};

/// A sandbox whose repository is in the bucket of `server`, and whose user has a profile for it.
pub fn sandbox(server: &Server) -> Sandbox {
    let mut sandbox = Sandbox::empty();
    sandbox.repo = server.root().join(BUCKET).join("some/prefix");
    sandbox.location = Some(format!("s3://{BUCKET}/some/prefix"));
    write_profile(&sandbox, server, KEY_ID, SECRET);
    sandbox
}

pub fn write_profile(sandbox: &Sandbox, server: &Server, id: &str, secret: &str) {
    fs::create_dir_all(sandbox.root().join(".aws")).unwrap();
    let credentials = format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n");
    fs::write(sandbox.root().join(".aws/credentials"), credentials).unwrap();
    let config = format!("[default]\nendpoint_url = {}\nregion = us-east-1\n", server.url());
    fs::write(sandbox.root().join(".aws/config"), config).unwrap();
}

pub fn source() -> Vec<Node> {
    let mut nodes = vec![text("text", 1, 3_000_000), dir("empty"), symlink("link", "text"), file("a b", "ü")];
    nodes.extend((0..30).map(|i| noise(format!("small/{i}"), i, 3_000)));
    nodes.push(noise("large", 77, 6_000_000));
    nodes
}

#[test]
fn a_bucket_is_as_good_as_a_folder() {
    let server = Server::s3();
    let sandbox = sandbox(&server);
    sandbox.build(&source());
    sandbox.run(["snapshots"]).exits(10).says("no repository");
    sandbox.ok(["init"]).says("some/prefix");
    let config: serde_json::Value = serde_json::from_str(&sandbox.ok(["cat", "config"]).text()).unwrap();
    assert_eq!(config["store"]["conditional_create"], true, "{config}");
    assert_eq!(config["store"]["list_after_write"], true, "{config}");
    let mut other = self::sandbox(&server);
    other.location = Some(format!("s3://{BUCKET}/other"));
    other.ok(["init", "-o", "conditional-create=no"]);
    let config: serde_json::Value = serde_json::from_str(&other.ok(["cat", "config"]).text()).unwrap();
    assert_eq!(config["store"]["conditional_create"], false, "{config}");
    sandbox.run(["init"]).exits(1).says("exists");
    let first = sandbox.backup();
    let before = capture(&sandbox.source);
    fs::write(sandbox.source.join("text"), crate::support::rng::text(2, 3_000_000)).unwrap();
    let second = sandbox.backup();
    sandbox.check_clean();
    sandbox.restores_to(&first, &before);
    sandbox.restores_to(&second, &capture(&sandbox.source));
    fs::remove_dir_all(&sandbox.cache).unwrap();
    sandbox.restores_to(&first, &before);
    sandbox.ok(["rebuild-index"]);
    sandbox.ok(["key", "list"]).never_says(&[SECRET]);
    sandbox.check_clean();
}

#[test]
fn a_web_folder_is_as_good_as_a_folder() {
    let server = Server::webdav();
    let mut sandbox = Sandbox::empty();
    sandbox.repo = server.root().join("new/folder");
    sandbox.location = Some(format!("{}/new/folder", server.url()));
    sandbox.build(&source());
    sandbox.ok(["init"]);
    let first = sandbox.backup();
    sandbox.restores_to(&first, &capture(&sandbox.source));
    sandbox.check_clean();
}

#[test]
fn what_is_wrong_is_said_without_secrets() {
    let server = Server::s3();
    let mut sandbox = sandbox(&server);
    let secrets = [SECRET, "another-secret"];
    sandbox.location = Some("s3://no-such-bucket/x".to_owned());
    sandbox.run(["init"]).exits(1).says("bucket").says("its name").never_says(&secrets);
    sandbox.run(["snapshots", "--json"]).exits(1).says("NoSuchBucket").never_says(&secrets);

    sandbox.location = Some(format!("s3://{BUCKET}/x"));
    write_profile(&sandbox, &server, KEY_ID, "another-secret");
    sandbox.run(["init"]).exits(1).says("SignatureDoesNotMatch").says("credentials").never_says(&secrets);
    write_profile(&sandbox, &server, "AKNOBODY", SECRET);
    sandbox.run(["init"]).exits(1).says("credentials").never_says(&secrets);
    write_profile(&sandbox, &server, KEY_ID, SECRET);

    sandbox.run(["init", "-o", "s3.profile=none"]).exits(2).says("profile");
    sandbox.run(["init", "-o", "s3.nonsense=1"]).exits(2).says("s3.region");
    sandbox.run(["init", "-o", "ca-file=/does/not/exist"]).exits(1).says("/does/not/exist");
    sandbox.location = Some(format!("s3:http://me:{SECRET}@127.0.0.1/{BUCKET}"));
    sandbox.run(["init"]).exits(2).says("environment").never_says(&secrets);
    fs::write(server.root().join(BUCKET).join("stranger"), "x").unwrap();
    sandbox.location = Some(format!("s3://{BUCKET}"));
    sandbox.run(["init"]).exits(1).says("stranger");
}

#[test]
fn without_credentials_it_says_so_and_does_not_wait() {
    let server = Server::s3();
    let sandbox = sandbox(&server);
    fs::remove_file(sandbox.root().join(".aws/credentials")).unwrap();
    let mut command = sandbox.command(["init"]);
    // Where a machine in the cloud would ask; nobody is there.
    command.env("AWS_EC2_METADATA_DISABLED", "true");
    let finished = crate::support::run::finish(command, None).exits(1);
    let finished = finished.says("credentials").says("AWS_ACCESS_KEY_ID");
    assert!(finished.took < Duration::from_secs(10), "{finished}");
}

#[test]
fn a_bucket_whose_server_forgets_conditions_is_refused() {
    let server = Server::s3();
    let sandbox = sandbox(&server);
    server.add(Rule::every(1, "PUT", "probe", Fault::IgnoreConditions));
    sandbox.run(["init"]).exits(1).says("must not replace").says("conditional-create=no");
    server.heal();
    server.add(Rule::every(1, "GET", "list-type=2&prefix=some%2Fprefix%2Findex", Fault::StaleList));
    sandbox.run(["snapshots"]).exits(10);
    server.heal();
    sandbox.ok(["init"]);
}

#[test]
fn a_backup_that_lost_its_server_goes_on() {
    let mut server = Server::s3();
    let sandbox = sandbox(&server);
    sandbox.build(&source());
    sandbox.ok(["init"]);
    // Later than the keys and the config, in the middle of the packs.
    server.add(Rule { after: 1, ..Rule::every(1, "PUT", "/packs/", Fault::Status(500)) });
    let mut command = sandbox.command(["backup", sandbox.source.to_str().unwrap()]);
    command.env("BACKSTAY_OPTION", "connect-timeout=1");
    crate::support::run::finish(command, None).exits(1).says("run the same command again");
    let root = server.root();
    server.stop();
    let again = Server::s3_at(&root);
    write_profile(&sandbox, &again, KEY_ID, SECRET);
    let id = sandbox.backup();
    sandbox.restores_to(&id, &capture(&sandbox.source));
    sandbox.check_clean();
}

#[test]
fn a_certificate_of_an_own_authority_has_to_be_named() {
    let (server, certificate) = Server::s3_tls();
    let sandbox = sandbox(&server);
    sandbox.run(["init"]).exits(1).says("no safe connection").says("ca-file");
    let file = sandbox.root().join("authority.pem");
    fs::write(&file, certificate).unwrap();
    let option = format!("ca-file={}", file.display());
    sandbox.ok(["init", "-o", &option]);
    sandbox.run(["snapshots"]).exits(1);
    let mut command = sandbox.command(["snapshots"]);
    command.env("AWS_CA_BUNDLE", &file);
    crate::support::run::finish(command, None).exits(0);
}
