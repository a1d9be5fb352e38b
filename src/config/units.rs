//! Quantities as people write them: `1280x720`, `2.5 Mbit/s`, `500 ms`.
//!
//! Each reader returns `None` for anything else; who asked says what is allowed. A number without its unit is
//! refused, because a guessed unit is wrong by a factor of a thousand.

use std::time::Duration;

use super::{Bitrate, Size};

/// Reads `WIDTHxHEIGHT`: both even (4:2:0 pictures have no odd sizes) and 64 to 4096.
pub fn size(text: &str) -> Option<Size> {
    let (width, height) = text.split_once('x')?;
    let side = |text: &str| {
        let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let side: u32 = plain.then(|| text.parse().ok()).flatten()?;
        ((64..=4096).contains(&side) && side.is_multiple_of(2)).then_some(side)
    };
    Some(Size {
        width: side(width)?,
        height: side(height)?,
    })
}

/// Reads a number with `bit/s`, `kbit/s` or `Mbit/s`; at most 4 Gbit/s.
pub fn bitrate(text: &str) -> Option<Bitrate> {
    let (number, unit) = number_and_unit(text)?;
    let factor = match unit {
        "Mbit/s" => 1e6,
        "bit/s" => 1.0,
        "kbit/s" => 1e3,
        _ => return None,
    };
    let bits = (number * factor).round();
    (bits <= 4e9).then_some(Bitrate(bits as u32))
}

/// Reads a number with `ms`, `s`, `min` or `h`; at most ten years.
pub fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = number_and_unit(text)?;
    let factor = match unit {
        "h" => 3600.0,
        "min" => 60.0,
        "ms" => 1e-3,
        "s" => 1.0,
        _ => return None,
    };
    let seconds = number * factor;
    (seconds <= 10.0 * 365.0 * 86_400.0).then(|| Duration::from_secs_f64(seconds))
}

/// Reads a number with `KiB`, `MiB` or `GiB`; at most 1024 GiB.
pub fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = number_and_unit(text)?;
    let factor = match unit {
        "GiB" => f64::from(1 << 30),
        "KiB" => 1024.0,
        "MiB" => f64::from(1 << 20),
        _ => return None,
    };
    let bytes = (number * factor).round();
    (bytes <= f64::from(1 << 30) * 1024.0).then_some(bytes as u64)
}

/// Splits `12.5 unit`: a plain decimal number (no sign, no exponent), then its unit, with or without spaces between.
fn number_and_unit(text: &str) -> Option<(f64, &str)> {
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(at);
    let starts_and_ends_with_digit = |t: &str| {
        t.bytes().next().is_some_and(|b| b.is_ascii_digit())
            && t.bytes().last().is_some_and(|b| b.is_ascii_digit())
    };
    let number = starts_and_ends_with_digit(number).then(|| number.parse().ok());
    Some((number.flatten()?, unit.trim_start_matches(' ')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_even_and_bounded() {
        let size_of = |width, height| Some(Size { width, height });
        assert_eq!(size("1280x720"), size_of(1280, 720));
        assert_eq!(size("64x4096"), size_of(64, 4096));
        for bad in [
            "",
            "x",
            "1280",
            "1281x720",
            "62x64",
            "4098x64",
            "1280 x 720",
            "1280X720",
            "+64x64",
            "64x64x64",
            "99999999999x64",
        ] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }

    #[test]
    fn amounts_of_bytes_carry_their_unit() {
        assert_eq!(bytes("16 MiB"), Some(16 << 20));
        assert_eq!(bytes("1.5KiB"), Some(1_536));
        assert_eq!(bytes("1024 GiB"), Some(1 << 40));
        for bad in ["", "16", "16 MB", "-1 MiB", "1025 GiB", "1e3 KiB"] {
            assert_eq!(bytes(bad), None, "{bad}");
        }
    }

    #[test]
    fn bitrates_carry_their_unit() {
        assert_eq!(bitrate("2.5 Mbit/s"), Some(Bitrate(2_500_000)));
        assert_eq!(bitrate("64kbit/s"), Some(Bitrate(64_000)));
        assert_eq!(bitrate("4000000000 bit/s"), Some(Bitrate(4_000_000_000)));
        for bad in [
            "",
            "2500000",
            "2.5 mbit/s",
            "2.5 MB/s",
            "-1 Mbit/s",
            ".5 Mbit/s",
            "5. Mbit/s",
            "1.2.3 bit/s",
            "1e3 bit/s",
            "4001 Mbit/s",
            "Mbit/s",
        ] {
            assert_eq!(bitrate(bad), None, "{bad}");
        }
    }

    #[test]
    fn durations_carry_their_unit() {
        assert_eq!(duration("2s"), Some(Duration::from_secs(2)));
        assert_eq!(duration("1.5 min"), Some(Duration::from_secs(90)));
        assert_eq!(duration("20 ms"), Some(Duration::from_millis(20)));
        assert_eq!(duration("1h"), Some(Duration::from_secs(3600)));
        for bad in ["", "2", "2 sec", "-2s", "999999999999999999999h", "s"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,20}") {
            let read = (size(&text), bitrate(&text), duration(&text));
            if let Some(Size { width, height }) = read.0 {
                proptest::prop_assert!(width % 2 == 0 && height % 2 == 0 && width <= 4096 && height <= 4096);
            }
        }
    }
}
