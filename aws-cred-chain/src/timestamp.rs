//! Parses and formats times as AWS does: ISO 8601. Pure.

use std::time::{Duration, SystemTime};

const DAY_S: i64 = 86_400;

/// Parses the times that AWS's services, botocore and programs write.
///
/// Accepts `2021-09-21T18:41:26Z`; a fraction, an offset, a blank instead of `T`, `UTC` or `GMT` at
/// the end, a time without seconds; the basic form `20210921T184126Z`; and RFC 2822's `Tue, 21 Sep
/// 2021 18:41:26 GMT`. A time without an offset is UTC. Returns `None` for anything else and for
/// times before 1970.
pub(crate) fn parse(text: &str) -> Option<SystemTime> {
    let text = text.trim();
    if !text.is_ascii() || text.len() > 64 {
        return None;
    }
    let mut cursor = Cursor(text);
    let (year, month, day) = match text.bytes().next()?.is_ascii_alphabetic() {
        true => cursor.mail_date()?,
        false => cursor.date()?,
    };
    let month_days = match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    let (hour, minute, second, nanos) = cursor.time()?;
    if !(1..=month_days).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let seconds = days_from_civil(year, month, day) * DAY_S + hour * 3600 + minute * 60 + second
        - offset(cursor.0.trim())?;
    Some(SystemTime::UNIX_EPOCH + Duration::new(u64::try_from(seconds).ok()?, nanos))
}

/// The unread part of a time.
struct Cursor<'a>(&'a str);

impl Cursor<'_> {
    fn number(&mut self, digits: usize) -> Option<i64> {
        let (number, rest) = self.0.split_at_checked(digits)?;
        self.0 = rest;
        number.bytes().all(|b| b.is_ascii_digit()).then(|| number.parse().ok())?
    }

    /// Consumes one of `marks` if it comes next. Returns whether it did.
    fn mark(&mut self, marks: &[char]) -> bool {
        let rest = self.0.strip_prefix(marks);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    /// Consumes `2021-09-21T` or `20210921T`.
    fn date(&mut self) -> Option<(i64, i64, i64)> {
        let year = self.number(4)?;
        let extended = self.mark(&['-']);
        let month = self.number(2)?;
        if self.mark(&['-']) != extended {
            return None;
        }
        let day = self.number(2)?;
        self.mark(&['T', 't', ' ']).then_some((year, month, day))
    }

    /// Consumes `Tue, 21 Sep 2021 `.
    fn mail_date(&mut self) -> Option<(i64, i64, i64)> {
        const MONTHS: &str = "janfebmaraprmayjunjulaugsepoctnovdec";
        let mut words = self.0.split_ascii_whitespace();
        words.next()?.strip_suffix(',')?;
        let (day, name, year) = (words.next()?, words.next()?, words.next()?);
        let month = (0..12).find(|month| MONTHS[month * 3..][..3].eq_ignore_ascii_case(name))?;
        let after = self.0.find(year)? + year.len();
        self.0 = self.0[after..].trim_start();
        if year.len() != 4 || day.len() > 2 {
            return None;
        }
        Some((year.parse().ok()?, i64::try_from(month).ok()? + 1, day.parse().ok()?))
    }

    /// Consumes `18:41:26`, `18:41` or `184126`, and a fraction of seconds.
    fn time(&mut self) -> Option<(i64, i64, i64, u32)> {
        let hour = self.number(2)?;
        let extended = self.mark(&[':']);
        let minute = self.number(2)?;
        let has_seconds = match extended {
            true => self.mark(&[':']),
            false => self.0.starts_with(|c: char| c.is_ascii_digit()),
        };
        let second = if has_seconds { self.number(2)? } else { 0 };
        let mut nanos = 0;
        if has_seconds && self.mark(&['.', ',']) {
            let digits = self.0.bytes().take_while(u8::is_ascii_digit).count();
            let kept = &self.0[..digits.min(9)];
            let scale = 10_u32.pow(9 - u32::try_from(kept.len()).ok()?);
            nanos = kept.parse::<u32>().ok()? * scale;
            self.0 = &self.0[digits..];
        }
        Some((hour, minute, second, nanos))
    }
}

/// Parses an offset from UTC. Returns it in seconds.
fn offset(text: &str) -> Option<i64> {
    if matches!(text, "Z" | "z" | "UTC" | "GMT" | "") {
        return Some(0);
    }
    let (sign, digits) = match text.split_at_checked(1)? {
        ("+", digits) => (1, digits),
        ("-", digits) => (-1, digits),
        _ => return None,
    };
    let digits = digits.replace(':', "");
    if !matches!(digits.len(), 2 | 4) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let hours: i64 = digits[..2].parse().ok()?;
    let minutes: i64 = if digits.len() == 4 { digits[2..].parse().ok()? } else { 0 };
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

/// Formats as `2021-09-21T18:41:26Z`, the form of AWS's services and of `credential_process`.
#[must_use]
pub fn iso(time: SystemTime) -> String {
    let (y, mo, d, h, mi, s) = civil(time);
    format!("{y:04}-{mo:02}-{d:02}T{h:02}:{mi:02}:{s:02}Z")
}

/// Formats as `20210921T184126Z`.
pub(crate) fn compact(time: SystemTime) -> String {
    let (y, mo, d, h, mi, s) = civil(time);
    format!("{y:04}{mo:02}{d:02}T{h:02}{mi:02}{s:02}Z")
}

fn civil(time: SystemTime) -> (i64, i64, i64, i64, i64, i64) {
    let seconds = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX / 2));
    let (days, rest) = (seconds.div_euclid(DAY_S), seconds.rem_euclid(DAY_S));
    // Howard Hinnant, "chrono-compatible low-level date algorithms", civil_from_days.
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    (year, month, day, rest / 3600, rest % 3600 / 60, rest % 60)
}

/// Howard Hinnant's days_from_civil.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let yoe = year.rem_euclid(400);
    let doy = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(text: &str) -> Option<u64> {
        parse(text).map(|t| t.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs())
    }

    #[test]
    fn reads_and_writes() {
        for text in ["2021-09-21T18:41:26Z", "2000-02-29T23:59:59Z", "2199-03-06T19:53:17Z"] {
            assert_eq!(iso(parse(text).unwrap()), text);
        }
        assert_eq!(seconds("2009-02-13T23:31:30Z"), Some(1_234_567_890));
        assert_eq!(seconds("2009-02-13T23:31:30.215309Z"), Some(1_234_567_890));
        assert_eq!(seconds("2009-02-14T00:31:30+01:00"), Some(1_234_567_890));
        assert_eq!(seconds("2009-02-13T23:31:30UTC"), Some(1_234_567_890));
        for other in [
            "20090213T233130Z",
            "2009-02-13 23:31:30 UTC",
            "Fri, 13 Feb 2009 23:31:30 GMT",
            "2009-02-13T23:31:30,5Z",
            "2009-02-14T01:31:30+02",
            "2009-02-13T23:31:30",
        ] {
            assert_eq!(seconds(other), Some(1_234_567_890), "{other}");
        }
        assert_eq!(seconds("2009-02-13T23:31Z"), Some(1_234_567_860));
        assert_eq!(seconds("2024-02-29T00:00:00Z"), Some(1_709_164_800));
        for bad in [
            "2009-02-30T00:00:00Z",
            "2023-02-29T00:00:00Z",
            "2009-04-31T00:00:00Z",
            "2009-0213T00:00:00Z",
        ] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
        for bad in
            ["", "now", "2009-13-13T23:31:30Z", "2009-02-13T23:31:30Q", "1960-01-01T00:00:00Z"]
        {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }
}
