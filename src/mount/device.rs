//! Mounting and unmounting, by the system itself or by its helper `fusermount3`.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::io::{FdFlags, IoSliceMut, fcntl_setfd};
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType, recvmsg,
    socketpair,
};

use crate::env::withhold_secrets;

const DEVICE: &str = "/dev/fuse";
const SUBTYPE: &str = "backstay";
const HELPER: &str = "fusermount3";

/// How the file system is mounted.
pub(super) struct Flags {
    /// Other users may look.
    pub allow_other: bool,
    /// The kernel compares owners and modes with who asks.
    pub default_permissions: bool,
}

/// Mounts at `target` what will be served over the file that is returned; `source` is shown as the name of
/// the device.
pub(super) fn mount(target: &Path, source: &str, flags: &Flags) -> io::Result<OwnedFd> {
    match mount_directly(target, source, flags) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => mount_by_helper(target, source, flags),
        result => result,
    }
}

fn mount_directly(target: &Path, source: &str, flags: &Flags) -> io::Result<OwnedFd> {
    if !rustix::process::geteuid().is_root() {
        return Err(ErrorKind::PermissionDenied.into());
    }
    let device = OwnedFd::from(File::options().read(true).write(true).open(DEVICE)?);
    let mut options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
    if flags.allow_other {
        options.push_str(",allow_other");
    }
    if flags.default_permissions {
        options.push_str(",default_permissions");
    }
    let kind = format!("fuse.{SUBTYPE}");
    let mount_flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME;
    let options = CString::new(options)?;
    rustix::mount::mount(source, target, kind, mount_flags, Some(options.as_c_str()))?;
    Ok(device)
}

/// `fusermount3` mounts, and hands the device over through a socket.
fn mount_by_helper(target: &Path, source: &str, flags: &Flags) -> io::Result<OwnedFd> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // Commas and backslashes separate options.
    let escaped = source.replace('\\', "\\\\").replace(',', "\\,");
    let mut options = format!("ro,nosuid,nodev,noatime,subtype={SUBTYPE},fsname={escaped}");
    if flags.allow_other {
        options.push_str(",allow_other");
    }
    if flags.default_permissions {
        options.push_str(",default_permissions");
    }
    let mut command = helper();
    command.arg("-o").arg(options).arg("--").arg(target);
    command.env("_FUSE_COMMFD", theirs.as_raw_fd().to_string());
    fcntl_setfd(&theirs, FdFlags::empty())?;
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    drop(theirs);
    let child = child.map_err(|error| match error.kind() {
        ErrorKind::NotFound => io::Error::other(format!("{HELPER} is not installed (Debian: fuse3)")),
        _ => error,
    })?;
    let device = receive(&ours);
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(said.trim().to_owned()));
    }
    device
}

/// The helper, which gets none of our secrets.
fn helper() -> Command {
    let mut command = Command::new(HELPER);
    withhold_secrets(&mut command);
    command
}

fn receive(socket: &OwnedFd) -> io::Result<OwnedFd> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(mut files) = message
            && let Some(device) = files.next()
        {
            return Ok(device);
        }
    }
    Err(io::Error::other(format!("{HELPER} gave no device")))
}

/// Unmounts `target`; what is still in use goes on until nobody uses it. Gives whether it was in use.
pub(super) fn unmount(target: &Path) -> io::Result<bool> {
    match unmount_now(target, false) {
        Ok(()) => Ok(false),
        Err(_) => unmount_now(target, true).map(|()| true),
    }
}

fn unmount_now(target: &Path, lazy: bool) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        let flags = if lazy { UnmountFlags::DETACH } else { UnmountFlags::empty() };
        return Ok(rustix::mount::unmount(target, flags | UnmountFlags::NOFOLLOW)?);
    }
    let mut command = helper();
    command.arg("-q").arg(if lazy { "-uz" } else { "-u" }).arg("--").arg(target);
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other("it is in use")) }
}

/// The folder to mount at, by its full path.
pub(super) fn folder(path: &Path) -> io::Result<PathBuf> {
    let path = path.canonicalize()?;
    if path.is_dir() { Ok(path) } else { Err(ErrorKind::NotADirectory.into()) }
}

/// Lets the kernel read further ahead in files of the mount at `target` than it does by itself. Only root may.
pub(super) fn raise_read_ahead(target: &Path, kib: u32) -> io::Result<()> {
    let table = std::fs::read("/proc/self/mountinfo")?;
    let wanted = escaped(target);
    // Of several mounts at one place the last is on top.
    let device = table.split(|&byte| byte == b'\n').rev().find_map(|line| {
        let fields: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
        let (device, point) = (fields.get(2)?, fields.get(4)?);
        (*point == wanted.as_bytes()).then(|| String::from_utf8_lossy(device).into_owned())
    });
    let device = device.ok_or(ErrorKind::NotFound)?;
    std::fs::write(format!("/sys/class/bdi/{device}/read_ahead_kb"), kib.to_string())
}

/// A path as the system's table of mounts has it.
fn escaped(path: &Path) -> OsString {
    use std::os::unix::ffi::OsStringExt;

    let mut out = Vec::new();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' => out.extend_from_slice(format!("\\{byte:03o}").as_bytes()),
            byte => out.push(*byte),
        }
    }
    OsString::from_vec(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_found_in_the_table_of_mounts() {
        assert_eq!(escaped(Path::new("/a b\\c")), "/a\\040b\\134c");
        assert!(raise_read_ahead(Path::new("/no such mount"), 128).is_err());
    }

    #[test]
    fn only_folders_are_mounted_at() {
        assert_eq!(folder(Path::new("/proc/self/status")).unwrap_err().kind(), ErrorKind::NotADirectory);
        assert_eq!(folder(Path::new("/no such folder")).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
