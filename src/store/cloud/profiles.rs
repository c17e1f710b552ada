//! The files in which the AWS tools keep credentials and settings.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::limits::STORE_PROFILE_MAX_BYTES;
use crate::store::cloud::s3::Variables;

/// What a profile says, in both files.
#[derive(Default)]
pub(super) struct Profile {
    values: BTreeMap<String, String>,
}

impl Profile {
    /// The profile `wanted`, or the one that the environment names, or `default`. Fails as
    /// [`Usage`](Error::Usage) where a profile is named that is in neither file.
    pub(super) fn load(wanted: Option<&str>, variables: Variables<'_>) -> Result<Self> {
        let named = wanted.map(str::to_owned);
        let named = named.or_else(|| variables("AWS_PROFILE")).or_else(|| variables("AWS_DEFAULT_PROFILE"));
        let name = named.as_deref().unwrap_or("default");
        let home = variables("HOME").map(PathBuf::from);
        let file = |variable: &str, below_home: &str| {
            variables(variable).map(PathBuf::from).or_else(|| Some(home.as_ref()?.join(below_home)))
        };
        let mut profile = Self::default();
        let mut found = false;
        let files = [
            (file("AWS_CONFIG_FILE", ".aws/config"), true),
            // What both have counts as the credentials file has it.
            (file("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials"), false),
        ];
        for (path, is_config) in files {
            if let Some(text) = path.as_deref().map(read).transpose()?.flatten() {
                found |= profile.add(&text, name, is_config);
            }
        }
        if !found && named.is_some() {
            let text = format!("there is no profile {name:?} in the AWS credentials and config files");
            return Err(Error::Usage(text));
        }
        Ok(profile)
    }

    /// What the profile says about `key`.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Takes over what stands in the section of the profile. True if there is one.
    fn add(&mut self, text: &str, name: &str, is_config: bool) -> bool {
        let (mut inside, mut found) = (false, false);
        for line in text.lines() {
            let content = line.trim();
            if let Some(section) = content.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
                let section = section.trim();
                let own = match section.strip_prefix("profile ") {
                    Some(profile) if is_config => profile.trim() == name,
                    _ => section == name && (!is_config || name == "default"),
                };
                inside = own;
                found |= own;
            } else if inside
                && !content.starts_with(['#', ';'])
                // Indented lines belong to the setting above, which is none of those that count here.
                && !line.starts_with([' ', '\t'])
                && let Some((key, value)) = content.split_once('=')
            {
                self.values.insert(key.trim().to_ascii_lowercase(), value.trim().to_owned());
            }
        }
        found
    }
}

/// The text of a file, if there is one.
fn read(path: &Path) -> Result<Option<String>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        Err(e) => return Err(Error::io("read", path)(e)),
    };
    let mut text = Vec::new();
    file.take(STORE_PROFILE_MAX_BYTES).read_to_end(&mut text).map_err(Error::io("read", path))?;
    Ok(Some(String::from_utf8_lossy(&text).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_read_from_both_files() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".aws")).unwrap();
        let credentials = "# mine\n[default]\naws_access_key_id = A\nAWS_SECRET_ACCESS_KEY=b=c\n\n\
            [other] ; x\naws_access_key_id=O\n";
        let config = "[default]\nregion = eu-1\naws_access_key_id = old\ns3 =\n  region = nested\n\
            [profile other]\nregion=eu-2\nendpoint_url = https://x\n[other]\nregion=wrong\n";
        std::fs::write(home.path().join(".aws/credentials"), credentials).unwrap();
        std::fs::write(home.path().join(".aws/config"), config).unwrap();
        let load = |wanted: Option<&str>, profile: Option<&str>| {
            Profile::load(wanted, &|name| match name {
                "HOME" => home.path().to_str().map(str::to_owned),
                "AWS_PROFILE" => profile.map(str::to_owned),
                _ => None,
            })
        };
        let default = load(None, None).unwrap();
        assert_eq!(default.get("aws_access_key_id"), Some("A"));
        assert_eq!(default.get("aws_secret_access_key"), Some("b=c"));
        assert_eq!(default.get("region"), Some("eu-1"));
        for other in [load(Some("other"), None), load(None, Some("other"))] {
            let other = other.unwrap();
            assert_eq!((other.get("region"), other.get("aws_access_key_id")), (Some("eu-2"), Some("O")));
            assert_eq!(other.get("endpoint_url"), Some("https://x"));
        }
        assert!(matches!(load(Some("none"), None), Err(Error::Usage(_))));
        assert!(Profile::load(None, &|_| None).unwrap().get("region").is_none());
    }
}
