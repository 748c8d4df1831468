//! Dates of the Gregorian calendar, in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

/// Returns a time as `2024-02-29T12:00:00.000Z`.
pub(super) fn iso(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (year, month, day) = civil(since.as_secs() / 86_400);
    let second = since.as_secs() % 86_400;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let ms = since.subsec_millis();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// The year, month and day of a day counted from 1970-01-01, in the Gregorian calendar.
///
/// Source: Neri and Schneider, "Euclidean affine functions and their application to calendar
/// algorithms", 2022.
pub(crate) fn civil(days: u64) -> (u64, u64, u64) {
    // Days from 0000-03-01: the leap day is the last of such a year.
    let days = days + 719_468;
    let (centuries, day) = ((4 * days + 3) / 146_097, (4 * days + 3) % 146_097 / 4);
    let (years, day) = ((4 * day + 3) / 1_461, (4 * day + 3) % 1_461 / 4);
    let (month, day) = ((5 * day + 2) / 153, (5 * day + 2) % 153 / 5);
    let (year, month) = if month < 10 { (0, month + 3) } else { (1, month - 9) };
    (100 * centuries + years + year, month, day + 1)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn days_have_their_civil_dates() {
        for (days, expected) in [
            (0, (1970, 1, 1)),
            (58, (1970, 2, 28)),
            (59, (1970, 3, 1)),
            (789, (1972, 2, 29)),
            (10_956, (1999, 12, 31)),
            (11_016, (2000, 2, 29)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(civil(days), expected, "{days}");
        }
    }

    #[test]
    fn times_have_their_form() {
        let at = UNIX_EPOCH + Duration::from_millis(1_709_208_245_067);
        assert_eq!(iso(at), "2024-02-29T12:04:05.067Z");
    }
}
