//! `mount.backstay`: the program under that name is what `mount -t backstay` and `/etc/fstab` call.
//!
//! ```text
//! mount.backstay REPO DIR [-sfnv] [-o OPTION[=VALUE][,...]] [-t TYPE] [-N NAMESPACE]
//! ```
//!
//! becomes `backstay mount --background --repo REPO DIR` with the options that are ours.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use crate::cli::background::PARENT_FLAG;

/// The name under which the program behaves so.
const NAME: &str = "mount.backstay";

/// Options with a value; with `-` for `_` they are those of the command line.
const WITH_VALUE: [&str; 9] = [
    "password_file",
    "password_command",
    "cache_dir",
    "host",
    "tag",
    "path",
    "path_template",
    "time_template",
    "log_file",
];
/// Options without one.
const FLAGS: [&str; 4] = ["allow_other", "owner_root", "no_default_permissions", "no_xattrs"];
/// Options for `mount` itself and others who read `/etc/fstab`, or that are so in any case.
const IGNORED: [&str; 33] = [
    "ro",
    "rw",
    "defaults",
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "owner",
    "group",
    "nofail",
    "_netdev",
    "exec",
    "noexec",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
    "lazytime",
    "nolazytime",
    "async",
    "sync",
    "dirsync",
    "nosymfollow",
    "iversion",
    "noiversion",
];

/// The arguments as the command line has them, if the program was called as the helper.
///
/// # Errors
/// What is wrong with them.
pub fn translate(args: Vec<OsString>) -> Result<Vec<OsString>, String> {
    let name = args.first().and_then(|name| Path::new(name).file_name());
    if name != Some(OsStr::new(NAME)) {
        return Ok(args);
    }
    let mut places = Vec::new();
    let mut ours = Vec::new();
    let mut snapshot = None;
    let mut rest = args.into_iter().skip(1);
    while let Some(arg) = rest.next() {
        match arg.to_str() {
            Some("-o") => {
                let options = rest.next().ok_or("-o needs options")?;
                for option in options.as_bytes().split(|&byte| byte == b',') {
                    match option.strip_prefix(b"snapshot=") {
                        Some(wanted) => snapshot = Some(OsString::from_vec(wanted.to_vec())),
                        None => add(option, &mut ours)?,
                    }
                }
            }
            Some("-t" | "-N") => {
                rest.next();
            }
            Some(flags) if flags.starts_with('-') && flags.len() > 1 => {
                let known = flags.bytes().skip(1).all(|flag| matches!(flag, b's' | b'f' | b'n' | b'v'));
                if !known {
                    return Err(format!("{flags} is no option of {NAME}"));
                }
            }
            _ => places.push(arg),
        }
    }
    let [repo, dir] = <[OsString; 2]>::try_from(places)
        .map_err(|_| format!("usage: {NAME} REPO DIR [-o OPTION[=VALUE][,...]]"))?;
    let mut out: Vec<OsString> = ["backstay", "mount", PARENT_FLAG, "--repo"].map(OsString::from).into();
    out.push(repo);
    out.append(&mut ours);
    out.extend(snapshot);
    out.push(dir);
    Ok(out)
}

fn add(option: &[u8], ours: &mut Vec<OsString>) -> Result<(), String> {
    let mut halves = option.splitn(2, |&byte| byte == b'=');
    let name = String::from_utf8_lossy(halves.next().unwrap_or_default()).into_owned();
    let value = halves.next();
    let written = || format!("--{}", name.replace('_', "-")).into_bytes();
    match value {
        Some(value) if WITH_VALUE.contains(&name.as_str()) => {
            ours.push(OsString::from_vec([&written(), b"=".as_slice(), value].concat()));
        }
        None if FLAGS.contains(&name.as_str()) => ours.push(OsString::from_vec(written())),
        None if name.is_empty() || IGNORED.contains(&name.as_str()) => {}
        _ if name.starts_with("x-") || name.starts_with("X-") || name == "comment" => {}
        _ => return Err(format!("{name} is no option of {NAME}")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(words: &str) -> Result<String, String> {
        let args = translate(words.split(' ').map(OsString::from).collect())?;
        Ok(args.join(OsStr::new(" ")).into_string().unwrap())
    }

    #[test]
    fn what_mount_says_becomes_a_command() {
        assert_eq!(translated("/usr/bin/backstay ls -o x").unwrap(), "/usr/bin/backstay ls -o x");
        assert_eq!(
            translated("/sbin/mount.backstay /srv/repo /mnt -sn -o rw,allow_other,password_file=/k,x-systemd.automount")
                .unwrap(),
            "backstay mount --background --repo /srv/repo --allow-other --password-file=/k /mnt"
        );
        assert_eq!(
            translated("mount.backstay r /m -o snapshot=latest:/home,tag=a,tag=b -t fuse.backstay").unwrap(),
            "backstay mount --background --repo r --tag=a --tag=b latest:/home /m"
        );
    }

    #[test]
    fn what_it_does_not_know_it_refuses() {
        for words in
            ["", " /r", " /r /m /n", " /r /m -o nonsense", " /r /m -o host", " /r /m -x", " /r /m -o"]
        {
            assert!(translated(&format!("mount.backstay{words}")).is_err(), "{words}");
        }
    }
}
