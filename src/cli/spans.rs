//! Durations of the calendar: understood and shown, such as `1y5m7d2h`.

use jiff::Span;

/// Units with their letters, long ones first. A month is `m`, as elsewhere; a minute is `min`.
const UNITS: [&str; 7] = ["y", "m", "w", "d", "h", "min", "s"];

/// Understands numbers with units: `7d`, `1y5m7d2h`. Each unit comes once at most.
pub fn parse(text: &str) -> Result<Span, String> {
    let wrong = || {
        format!(
            "{text:?} is not a duration such as 7d, 12h or 1y6m (y years, m months, w weeks, d days, h hours, \
             min minutes, s seconds)"
        )
    };
    let (mut span, mut seen) = (Span::new(), Vec::new());
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let (digits, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()));
        let (unit, after) = after.split_at(after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len()));
        let number: i64 = digits.parse().map_err(|_| wrong())?;
        if seen.contains(&unit) {
            return Err(wrong());
        }
        let extended = match unit {
            "y" => span.try_years(number),
            "m" => span.try_months(number),
            "w" => span.try_weeks(number),
            "d" => span.try_days(number),
            "h" => span.try_hours(number),
            "min" => span.try_minutes(number),
            "s" => span.try_seconds(number),
            _ => return Err(wrong()),
        };
        span = extended.map_err(|_| format!("{text:?} is too long a duration"))?;
        seen.push(unit);
        rest = after;
    }
    Ok(span)
}

/// As it is written on the command line: `1y5m7d2h`.
pub fn show(span: &Span) -> String {
    let numbers = [
        i64::from(span.get_years()),
        i64::from(span.get_months()),
        i64::from(span.get_weeks()),
        i64::from(span.get_days()),
        i64::from(span.get_hours()),
        span.get_minutes(),
        span.get_seconds(),
    ];
    let parts = numbers.iter().zip(UNITS).filter(|(number, _)| **number != 0);
    let text: String = parts.map(|(number, unit)| format!("{number}{unit}")).collect();
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_understood_and_shown() {
        for text in ["7d", "1y5m7d2h", "12h", "3m", "90min", "1y2m3w4d5h6min7s"] {
            assert_eq!(show(&parse(text).unwrap()), text);
        }
        assert_eq!(show(&parse("2h7d").unwrap()), "7d2h");
        assert_eq!(show(&parse("0d").unwrap()), "0s");
        let span = parse("1m30min").unwrap();
        assert_eq!((span.get_months(), span.get_minutes()), (1, 30));
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "7", "d", "7x", "7d7d", "-7d", "7 d", "1.5h", "7d-", "99999999999999999999d"] {
            assert!(parse(text).unwrap_err().contains("is not a duration"), "{text}");
        }
        assert!(parse("99999999y").unwrap_err().contains("too long"));
    }
}
