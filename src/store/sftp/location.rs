//! The text with which a user names a folder on an SFTP server.

use crate::error::{Error, Result};

/// A folder on a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct SftpLocation {
    pub user: Option<String>,
    /// A name or address, or what `ssh` knows by that name.
    pub host: String,
    pub port: Option<u16>,
    /// From the server's top, or from where the user is let in.
    pub folder: String,
    /// For messages.
    pub location: String,
}

/// What follows `sftp:` in `location`: `//USER@HOST:PORT/FOLDER`, with `/~/FOLDER` for one in the user's
/// home. Fails as [`Usage`](Error::Usage) where it is something else, or holds a password.
pub(in crate::store) fn parse(location: &str, rest: &str) -> Result<SftpLocation> {
    let wrong = |text: &str| Err(Error::Usage(text.to_owned()));
    let form = "a folder on an SFTP server is written sftp://USER@HOST:PORT/FOLDER, without USER@ or :PORT \
        where ssh knows them, with /~/FOLDER for one in the user's home";
    let Some((place, folder)) = rest.strip_prefix("//").and_then(|rest| rest.split_once('/')) else {
        return wrong(form);
    };
    let (user, address) = match place.rsplit_once('@') {
        Some((user, address)) => (Some(user.to_owned()), address),
        None => (None, place),
    };
    if user.as_deref().is_some_and(|user| user.contains(':')) {
        return wrong("a location must not hold a password: ssh lets in by keys (see the guide about SFTP)");
    }
    let (host, port) = match address.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (host, port.strip_prefix(':').or((!port.is_empty()).then_some(port))),
        None => address.split_once(':').map_or((address, None), |(host, port)| (host, Some(port))),
    };
    let port = match port.map(str::parse) {
        None => None,
        Some(Ok(port @ 1_u16..)) => Some(port),
        Some(_) => return wrong("the port in an sftp: location is a number from 1 to 65535"),
    };
    // Nothing that `ssh` could take for an option, or a shell for more than a word.
    let is_name = |name: &str| {
        !name.is_empty()
            && !name.starts_with('-')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "._:%@+-".contains(c))
    };
    let folder = match folder.strip_prefix("~/") {
        Some(below_home) => below_home.trim_end_matches('/').to_owned(),
        None => format!("/{}", folder.trim_matches('/')),
    };
    if !is_name(host) || !user.as_deref().is_none_or(is_name) || folder.is_empty() || folder.contains('\0') {
        return wrong(form);
    }
    let location = location.trim_end_matches('/').to_owned();
    Ok(SftpLocation { user, host: host.to_owned(), port, folder, location })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<SftpLocation> {
        parse(text, text.strip_prefix("sftp:").unwrap())
    }

    #[test]
    fn folders_of_servers() {
        for (text, user, host, port, folder) in [
            ("sftp://host/srv/a", None, "host", None, "/srv/a"),
            ("sftp://me@host:22/srv/a/", Some("me"), "host", Some(22), "/srv/a"),
            ("sftp://me@corp@host/a b", Some("me@corp"), "host", None, "/a b"),
            ("sftp://[fe80::1%eth0]:2222/x", None, "fe80::1%eth0", Some(2222), "/x"),
            ("sftp://[::1]/x", None, "::1", None, "/x"),
            ("sftp://host//srv", None, "host", None, "/srv"),
            ("sftp://host/~/backup/db", None, "host", None, "backup/db"),
            ("sftp://host/", None, "host", None, "/"),
        ] {
            let found = parsed(text).unwrap();
            assert_eq!((found.user.as_deref(), &*found.host, found.port), (user, host, port), "{text}");
            assert_eq!((&*found.folder, &*found.location), (folder, text.trim_end_matches('/')), "{text}");
        }
    }

    #[test]
    fn what_ssh_could_misunderstand_is_refused_without_its_secrets() {
        for text in [
            "sftp:host",
            "sftp:host:/srv",
            "sftp://host",
            "sftp:///srv",
            "sftp://me:secret@host/srv",
            "sftp://-oProxyCommand=secret/srv",
            "sftp://-me@host/srv",
            "sftp://a b/srv",
            "sftp://host;secret/srv",
            "sftp://$(secret)/srv",
            "sftp://`secret`@host/srv",
            "sftp://me|secret@host/srv",
            "sftp://me'secret@host/srv",
            "sftp://host:0/srv",
            "sftp://host:secret/srv",
            "sftp://[::1]secret/srv",
            "sftp://host/~/",
        ] {
            let error = parsed(text).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
