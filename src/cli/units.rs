//! Sizes, numbers and durations: shown, and sizes understood.

use std::time::Duration;

const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// A size in binary units with three digits: `512 B`, `1.50 KiB`, `23.4 MiB`.
pub fn size(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    for (unit, name) in (1..).zip(UNITS) {
        let whole = 1u128 << (10 * unit);
        let rounded = |scale: u128| (u128::from(bytes) * scale + whole / 2) / whole;
        let (hundredths, tenths, ones) = (rounded(100), rounded(10), rounded(1));
        if hundredths < 1000 {
            return format!("{}.{:02} {name}", hundredths / 100, hundredths % 100);
        }
        if tenths < 1000 {
            return format!("{}.{} {name}", tenths / 10, tenths % 10);
        }
        if ones < 1024 {
            return format!("{ones} {name}");
        }
    }
    format!("{bytes} B")
}

/// Bytes per second, or nothing to speak of where no time passed.
pub fn rate(bytes: u64, time: Duration) -> String {
    format!("{}/s", size(per_second(bytes, time)))
}

/// How many a second.
pub fn per_second(amount: u64, time: Duration) -> u64 {
    let millis = time.as_millis().max(1);
    u64::try_from(u128::from(amount) * 1000 / millis).unwrap_or(u64::MAX)
}

/// A number with its thousands set apart: `1,234,567`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A number of things: `1 file`, `2,000 files`.
pub fn counted(number: u64, one: &str, many: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{} {many}", count(number)) }
}

/// A duration as people say it: `0.04 s`, `12.3 s`, `3:07 min`, `1:02:03 h`.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..10 => format!("{:.2} s", time.as_secs_f64()),
        10..60 => format!("{:.1} s", time.as_secs_f64()),
        60..3600 => format!("{}:{:02} min", seconds / 60, seconds % 60),
        _ => format!("{}:{:02}:{:02} h", seconds / 3600, seconds / 60 % 60, seconds % 60),
    }
}

/// A duration of which only whole seconds matter: `0:12`, `1:02:03`.
pub fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..3600 => format!("{}:{:02}", seconds / 60, seconds % 60),
        _ => format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60),
    }
}

/// How much of `whole` the `part` is, rounded down: `45%`.
pub fn percent(part: u64, whole: u64) -> String {
    let percent = (u128::from(part) * 100).checked_div(u128::from(whole)).unwrap_or(100);
    format!("{}%", percent.min(100))
}

/// Understands a duration: whole numbers with the units `d`, `h`, `m` and `s`, such as `1h30m`, or `0`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration such as 30s, 10m or 1h30m");
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    let mut seconds = 0u64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(end);
        let mut letters = tail.chars();
        let unit = match letters.next() {
            Some('d') => 86_400,
            Some('h') => 3_600,
            Some('m') => 60,
            Some('s') => 1,
            _ => return Err(wrong()),
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let more = number.checked_mul(unit).ok_or_else(wrong)?;
        seconds = seconds.checked_add(more).ok_or_else(wrong)?;
        rest = letters.as_str();
    }
    if text.trim().is_empty() { Err(wrong()) } else { Ok(Duration::from_secs(seconds)) }
}

/// Understands a size: a number, which may have a fraction, and a unit (`K`, `M`, `G`, `T`, `P`, also
/// as `KiB` or `KB`; all are binary).
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a size such as 500K, 10M or 1.5G");
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return Err(wrong()),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let whole: u128 = whole.parse().map_err(|_| wrong())?;
    let scale = 10u128.pow(u32::try_from(fraction.len()).unwrap_or(0));
    let fraction: u128 = if fraction.is_empty() { 0 } else { fraction.parse().map_err(|_| wrong())? };
    let bytes = whole.checked_mul(scale).and_then(|n| n.checked_add(fraction)).and_then(|n| {
        let factor = 1u128 << shift;
        n.checked_mul(factor).map(|n| n / scale)
    });
    bytes.and_then(|bytes| u64::try_from(bytes).ok()).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        let seconds = |text: &str| parse_duration(text).map(|d| d.as_secs());
        assert_eq!(
            ["0", "30s", "10m", "1h30m", "2d"].map(|t| seconds(t).unwrap()),
            [0, 30, 600, 5400, 172_800]
        );
        for wrong in ["", "5", "m", "1x", "1h5", "-1s", "99999999999999999999d"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_have_three_digits() {
        for (bytes, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (1536, "1.50 KiB"),
            (10_239, "10.0 KiB"),
            (102_348, "99.9 KiB"),
            (102_399, "100 KiB"),
            (1_048_000, "1023 KiB"),
            (1_048_575, "1.00 MiB"),
            (1_048_576, "1.00 MiB"),
            (5 << 30, "5.00 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(size(bytes), expected, "{bytes}");
        }
    }

    #[test]
    fn sizes_are_understood() {
        for (text, expected) in [
            ("0", 0),
            ("17", 17),
            ("1k", 1024),
            ("10M", 10 << 20),
            ("1.5G", 3 << 29),
            ("2 TiB", 2 << 40),
            ("0.5kb", 512),
        ] {
            assert_eq!(parse_size(text), Ok(expected), "{text}");
        }
        for text in ["", "M", "-1", "1x", "1.2.3M", ".5M", "1e3", "99999999999999999999P"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_and_times_are_readable() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(counted(1, "file", "files"), "1 file");
        assert_eq!(counted(1000, "file", "files"), "1,000 files");
        assert_eq!(duration(Duration::from_millis(40)), "0.04 s");
        assert_eq!(duration(Duration::from_secs(187)), "3:07 min");
        assert_eq!(duration(Duration::from_secs(3723)), "1:02:03 h");
        assert_eq!(clock(Duration::from_secs(12)), "0:12");
        assert_eq!(percent(1, 3), "33%");
        assert_eq!(percent(5, 0), "100%");
        assert_eq!(rate(1 << 20, Duration::from_millis(500)), "2.00 MiB/s");
    }
}
