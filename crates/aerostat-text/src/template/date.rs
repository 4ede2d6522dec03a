//! `strftime`.

use std::fmt::Write;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// Formats a time given in seconds since 1970 as `strftime` does in the C locale. What it does not know stays as it is.
pub(super) fn strftime(format: &str, seconds: i64) -> String {
    let date = Date::new(seconds);
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(char) = chars.next() {
        if char != '%' {
            out.push(char);
            continue;
        }
        let rest = chars.as_str();
        let plain = rest.strip_prefix('-');
        let Some(directive) = plain.unwrap_or(rest).chars().next() else {
            out.push('%');
            continue;
        };
        chars = plain.unwrap_or(rest).chars();
        chars.next();
        date.write(&mut out, directive, plain.is_some());
    }
    out
}

/// A moment of the Gregorian calendar, in UTC.
struct Date {
    year: i64,
    month: usize,
    day: i64,
    weekday: usize,
    day_of_year: i64,
    second_of_day: i64,
    seconds: i64,
}

impl Date {
    fn new(seconds: i64) -> Self {
        let days = seconds.div_euclid(86_400);
        // Years that begin in March put the leap day last: 400 of them are 146,097 days.
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_from_march = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_from_march + 2) / 153;
        let day = day_from_march - (153 * month_from_march + 2) / 5 + 1;
        let month = (month_from_march + 2) % 12;
        let year = era * 400 + year_of_era + i64::from(month < 2);
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let before_march = 59 + i64::from(leap);
        let day_of_year = if month < 2 { day_from_march - 306 } else { day_from_march + before_march } + 1;
        Date {
            year,
            month: month as usize,
            day,
            weekday: (days + 4).rem_euclid(7) as usize,
            day_of_year,
            second_of_day: seconds.rem_euclid(86_400),
            seconds,
        }
    }

    fn write(&self, out: &mut String, directive: char, plain: bool) {
        let (hour, minute, second) =
            (self.second_of_day / 3600, self.second_of_day / 60 % 60, self.second_of_day % 60);
        let month = MONTHS.get(self.month).copied().unwrap_or_default();
        let weekday = DAYS.get(self.weekday).copied().unwrap_or_default();
        let mut padded = |value: i64, width: usize| {
            let width = if plain { 0 } else { width };
            let _ = write!(out, "{value:0width$}");
        };
        match directive {
            'Y' => padded(self.year, 4),
            'y' => padded(self.year.rem_euclid(100), 2),
            'm' => padded(self.month as i64 + 1, 2),
            'd' => padded(self.day, 2),
            'H' => padded(hour, 2),
            'I' => padded((hour + 11) % 12 + 1, 2),
            'M' => padded(minute, 2),
            'S' => padded(second, 2),
            'f' => padded(0, 6),
            's' => padded(self.seconds, 1),
            'j' => padded(self.day_of_year, 3),
            'w' => padded(self.weekday as i64, 1),
            'u' => padded((self.weekday as i64 + 6) % 7 + 1, 1),
            'B' => out.push_str(month),
            'b' | 'h' => out.push_str(month.get(..3).unwrap_or_default()),
            'A' => out.push_str(weekday),
            'a' => out.push_str(weekday.get(..3).unwrap_or_default()),
            'p' => out.push_str(if hour < 12 { "AM" } else { "PM" }),
            'e' => drop(write!(out, "{:>2}", self.day)),
            'F' => "Y-m-d".chars().for_each(|part| self.part(out, part)),
            'T' | 'X' => "H:M:S".chars().for_each(|part| self.part(out, part)),
            'R' => "H:M".chars().for_each(|part| self.part(out, part)),
            'D' | 'x' => "m/d/y".chars().for_each(|part| self.part(out, part)),
            'c' => "a b e T Y".chars().for_each(|part| self.part(out, part)),
            'Z' | 'z' => {}
            'n' => out.push('\n'),
            't' => out.push('\t'),
            '%' => out.push('%'),
            other => out.extend(['%', other]),
        }
    }

    /// A letter as a directive, anything else as itself.
    fn part(&self, out: &mut String, part: char) {
        if part.is_ascii_alphabetic() {
            self.write(out, part, false);
        } else {
            out.push(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let format = "%Y-%m-%d %a %A %j %b %B %-d %H:%M:%S %I%p %y %% %q %c";
        for (seconds, want) in [
            (0, "1970-01-01 Thu Thursday 001 Jan January 1 00:00:00 12AM 70 % %q Thu Jan  1 00:00:00 1970"),
            (
                951_825_599,
                "2000-02-29 Tue Tuesday 060 Feb February 29 11:59:59 11AM 00 % %q Tue Feb 29 11:59:59 2000",
            ),
            (
                951_868_800,
                "2000-03-01 Wed Wednesday 061 Mar March 1 00:00:00 12AM 00 % %q Wed Mar  1 00:00:00 2000",
            ),
            (
                4_107_542_399,
                "2100-02-28 Sun Sunday 059 Feb February 28 23:59:59 11PM 00 % %q Sun Feb 28 23:59:59 2100",
            ),
            (
                1_735_646_400,
                "2024-12-31 Tue Tuesday 366 Dec December 31 12:00:00 12PM 24 % %q Tue Dec 31 12:00:00 2024",
            ),
            (
                -1,
                "1969-12-31 Wed Wednesday 365 Dec December 31 23:59:59 11PM 69 % %q Wed Dec 31 23:59:59 1969",
            ),
        ] {
            assert_eq!(strftime(format, seconds), want);
        }
        assert_eq!(strftime("100%", 0), "100%");
    }
}
