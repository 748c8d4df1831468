//! Dates of the Gregorian calendar, in UTC, in the forms of events and access logs.

/// Returns a time as `12/Mar/2020:19:03:58 +0000`.
pub(crate) fn clf(unix_ms: u64) -> String {
    let (year, month, day) = civil(unix_ms / 86_400_000);
    let (hour, minute, second) = time(unix_ms);
    let month = usize::try_from(month).ok().and_then(|it| MONTHS.get(it - 1)).unwrap_or(&"Jan");
    format!("{day:02}/{month}/{year:04}:{hour:02}:{minute:02}:{second:02} +0000")
}

/// Returns a time as `2020-03-12T19:03:58.123Z`.
#[cfg(feature = "websocket")]
pub(crate) fn iso(unix_ms: u64) -> String {
    let (year, month, day) = civil(unix_ms / 86_400_000);
    let ((hour, minute, second), ms) = (time(unix_ms), unix_ms % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

fn time(unix_ms: u64) -> (u64, u64, u64) {
    let second = unix_ms / 1000 % 86_400;
    (second / 3600, second / 60 % 60, second % 60)
}

/// The year, month and day of a day counted from 1970-01-01.
///
/// Source: Neri and Schneider, "Euclidean affine functions and their application to calendar
/// algorithms", 2022.
fn civil(days: u64) -> (u64, u64, u64) {
    // Days from 0000-03-01: the leap day is the last of such a year.
    let days = days + 719_468;
    let (centuries, day) = ((4 * days + 3) / 146_097, (4 * days + 3) % 146_097 / 4);
    let (years, day) = ((4 * day + 3) / 1_461, (4 * day + 3) % 1_461 / 4);
    let (month, day) = ((5 * day + 2) / 153, (5 * day + 2) % 153 / 5);
    let (year, month) = if month < 10 { (0, month + 3) } else { (1, month - 9) };
    (100 * centuries + years + year, month, day + 1)
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_form_of_the_common_log_format() {
        assert_eq!(clf(0), "01/Jan/1970:00:00:00 +0000");
        assert_eq!(clf(1_709_208_245_067), "29/Feb/2024:12:04:05 +0000");
        assert_eq!(clf(1_767_225_599_999), "31/Dec/2025:23:59:59 +0000");
    }
}
