//! Snapshots in groups: by host, paths, tags, or series.

use std::collections::BTreeMap;

use crate::format::manifest::Manifest;
use crate::repo::snapshots::Snapshot;

/// What the snapshots of a group have in common. With nothing chosen all are one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupBy {
    /// The host.
    pub host: bool,
    /// The paths, in any order.
    pub paths: bool,
    /// The tags, in any order.
    pub tags: bool,
    /// The series they were made in.
    pub series: bool,
}

/// What a group has in common: the fields that it was made by.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupKey {
    /// The host.
    pub host: Option<String>,
    /// The paths, sorted.
    pub paths: Option<Vec<String>>,
    /// The tags, sorted.
    pub tags: Option<Vec<String>>,
    /// The series.
    pub series: Option<String>,
}

impl Default for GroupBy {
    /// Host and paths: what a series is unless the user says otherwise.
    fn default() -> Self {
        Self { host: true, paths: true, ..Self::NOTHING }
    }
}

impl GroupBy {
    /// All snapshots are one group.
    pub const NOTHING: Self = Self { host: false, paths: false, tags: false, series: false };

    /// The group that a snapshot belongs to.
    pub fn key(&self, manifest: &Manifest) -> GroupKey {
        let sorted = |texts: &Vec<String>| {
            let mut texts = texts.clone();
            texts.sort();
            texts.dedup();
            texts
        };
        GroupKey {
            host: self.host.then(|| manifest.host.clone()),
            paths: self.paths.then(|| sorted(&manifest.paths)),
            tags: self.tags.then(|| sorted(&manifest.tags)),
            series: self.series.then(|| manifest.series.clone()),
        }
    }

    /// The name of the series that a snapshot of `host`, `names` (paths, or that of a stream) and `tags`
    /// belongs to: `HOST:NAME,NAME#TAG,TAG`, without the parts that do not count.
    pub fn series(&self, host: &str, names: &[String], tags: &[String]) -> String {
        // A separator in a text is written with a backslash, so that no two series look the same.
        let plain = |text: &str, separators: &[char]| {
            separators.iter().fold(text.to_owned(), |text, c| text.replace(*c, &format!("\\{c}")))
        };
        let list = |texts: &[String]| {
            texts.iter().map(|text| plain(text, &[',', '#'])).collect::<Vec<_>>().join(",")
        };
        let mut series = String::new();
        if self.host {
            series += &plain(host, &[':', '#']);
        }
        if self.paths {
            series.push(':');
            series += &list(names);
        }
        if self.tags {
            let mut tags = tags.to_vec();
            tags.sort();
            tags.dedup();
            series.push('#');
            series += &list(&tags);
        }
        series
    }
}

/// The name of the series after a change of labels. It stays where it does not follow from them.
pub fn series_after(old: &Manifest, host: &str, tags: &[String]) -> String {
    let parts = [(true, true), (true, false), (false, true), (false, false)];
    let of_parts = |(host, paths)| [false, true].map(|tags| GroupBy { host, paths, tags, series: false });
    parts
        .into_iter()
        .flat_map(of_parts)
        .find(|by| by.series(&old.host, &old.paths, &old.tags) == old.series)
        .map_or_else(|| old.series.clone(), |by| by.series(host, &old.paths, tags))
}

/// Puts snapshots into their groups, sorted by what these have in common; within a group they stay in order.
pub fn group(snapshots: Vec<Snapshot>, by: GroupBy) -> Vec<(GroupKey, Vec<Snapshot>)> {
    let mut groups: BTreeMap<GroupKey, Vec<Snapshot>> = BTreeMap::new();
    for snapshot in snapshots {
        groups.entry(by.key(&snapshot.manifest)).or_default().push(snapshot);
    }
    groups.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn manifest(host: &str, paths: &[&str], tags: &[&str], series: &str) -> Manifest {
        let text = r#"{"kind":"full","series":"","root":"000000","time":"","started":"","finished":"",
            "host":"","user":"u","paths":[],"program":"p"}"#;
        Manifest {
            host: host.into(),
            paths: texts(paths),
            tags: texts(tags),
            series: series.into(),
            ..Manifest::decode(text.as_bytes()).unwrap()
        }
    }

    #[test]
    fn series_have_names_of_their_own() {
        let by = GroupBy::default();
        let tagged = GroupBy { tags: true, ..by };
        assert_eq!(by.series("h", &texts(&["/a", "/b"]), &texts(&["t"])), "h:/a,/b");
        assert_eq!(tagged.series("h", &texts(&["/a"]), &texts(&["t", "s", "t"])), "h:/a#s,t");
        assert_eq!(GroupBy { paths: false, ..by }.series("h", &texts(&["/a"]), &[]), "h");
        assert_eq!(GroupBy { host: false, ..by }.series("h", &texts(&["/a"]), &[]), ":/a");
        assert_eq!(GroupBy::NOTHING.series("h", &texts(&["/a"]), &[]), "");
        assert_ne!(
            by.series("h", &texts(&["/a#t"]), &[]),
            tagged.series("h", &texts(&["/a"]), &texts(&["t"]))
        );
        assert_ne!(by.series("h", &texts(&["/a,b"]), &[]), by.series("h", &texts(&["/a", "b"]), &[]));
        assert_ne!(by.series("h:x", &texts(&["/a"]), &[]), by.series("h", &texts(&["x:/a"]), &[]));
    }

    #[test]
    fn a_series_follows_its_labels() {
        let after =
            |series: &str| series_after(&manifest("h", &["/a"], &["t"], series), "new", &texts(&["u"]));
        for (series, expected) in [
            ("h:/a", "new:/a"),
            ("h:/a#t", "new:/a#u"),
            ("h", "new"),
            (":/a", ":/a"),
            (":/a#t", ":/a#u"),
            ("h#t", "new#u"),
            ("#t", "#u"),
            ("", ""),
            ("some other", "some other"),
        ] {
            assert_eq!(after(series), expected, "{series}");
        }
    }

    #[test]
    fn groups_do_not_depend_on_the_order_of_paths_and_tags() {
        let key = |by: GroupBy, m: &Manifest| by.key(m);
        let one = manifest("h", &["/a", "/b"], &["s", "t"], "1");
        let two = manifest("h", &["/b", "/a"], &["t", "s"], "2");
        let all = GroupBy { host: true, paths: true, tags: true, series: false };
        assert_eq!(key(all, &one), key(all, &two));
        assert_ne!(key(GroupBy { series: true, ..all }, &one), key(GroupBy { series: true, ..all }, &two));
        assert_eq!(key(GroupBy::NOTHING, &one), GroupKey::default());
    }
}
