//! Points in time: shown in the local time zone, and understood.

use jiff::Timestamp as Instant;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::env::{Clock, SystemClock, Timestamp};
use crate::repo;

/// The current time.
pub fn now() -> Timestamp {
    SystemClock.now()
}

/// A point in time of a manifest or label, as `2024-02-29 03:04:05` in local time.
pub fn local(text: &str) -> String {
    text.parse::<Instant>().map_or_else(|_| text.to_owned(), |instant| shown(instant, &TimeZone::system()))
}

/// A point in time, as `2024-02-29 03:04:05` in local time.
pub fn local_of(time: Timestamp) -> String {
    local(&repo::format_time(time))
}

fn shown(instant: Instant, zone: &TimeZone) -> String {
    instant.to_zoned_datetime(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// Understands `now`, `YYYY-MM-DD [HH:MM[:SS]]` in local time, and RFC 3339.
pub fn parse(text: &str) -> Result<Timestamp, String> {
    parse_in(text, &TimeZone::system())
}

/// As [`parse`], and an age: a number with `s`, `m` (minutes), `h`, `d`, `w` or `y`.
pub fn parse_or_age(text: &str) -> Result<Timestamp, String> {
    let now = now();
    match age_secs(text) {
        Some(age) => Ok(Timestamp { secs: now.secs.saturating_sub(age), ..now }),
        None => parse(text).map_err(|error| format!("{error}, and no age such as 12h, 3d or 2w")),
    }
}

fn age_secs(text: &str) -> Option<i64> {
    let text = text.trim();
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let secs = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        "y" => 365 * 86_400,
        _ => return None,
    };
    let number: u32 = number.parse().ok()?;
    Some(i64::from(number) * secs)
}

fn parse_in(text: &str, zone: &TimeZone) -> Result<Timestamp, String> {
    if text == "now" {
        return Ok(now());
    }
    let wrong = || format!("{text:?} is not a time such as \"2024-02-29 03:04:05\" or \"now\"");
    let instant = text.parse::<Instant>().or_else(|_| {
        let local = text.parse::<DateTime>().map_err(|_| wrong())?;
        local.to_zoned_datetime(zone.clone()).map(|zoned| zoned.timestamp()).map_err(|_| wrong())
    })?;
    Ok(repo::parse_time(&instant.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_understood_in_their_zone() {
        let east = TimeZone::fixed(jiff::tz::offset(2));
        let secs = |text: &str| parse_in(text, &east).map(|time| time.secs);
        assert_eq!(secs("1970-01-01 02:00:10"), Ok(10));
        assert_eq!(secs("1970-01-01T02:00:10"), Ok(10));
        assert_eq!(secs("1970-01-01 02:00"), Ok(0));
        assert_eq!(secs("1970-01-02"), Ok(22 * 3600));
        assert_eq!(secs("1970-01-01T00:00:10Z"), Ok(10));
        assert_eq!(secs("1970-01-01T01:00:10+01:00"), Ok(10));
        assert!(parse("now").is_ok());
        for text in ["", "yesterday", "2024-13-01", "12:00", "@5"] {
            assert!(secs(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ages_count_back_from_now() {
        assert_eq!(age_secs("2d"), Some(172_800));
        assert_eq!(age_secs("90m"), Some(5400));
        for text in ["", "d", "-1d", "1x", "2024-01-01", "\u{e4}"] {
            assert_eq!(age_secs(text), None, "{text}");
        }
        let ago = parse_or_age("1h").unwrap();
        assert!((3599..=3601).contains(&(now().secs - ago.secs)));
        assert!(parse_or_age("2024-02-29").is_ok() && parse_or_age("sometime").is_err());
    }

    #[test]
    fn times_are_shown_in_their_zone() {
        let instant: Instant = "2024-02-29T23:59:59.5Z".parse().unwrap();
        assert_eq!(shown(instant, &TimeZone::fixed(jiff::tz::offset(1))), "2024-03-01 00:59:59");
        assert_eq!(local("no time"), "no time");
    }
}
