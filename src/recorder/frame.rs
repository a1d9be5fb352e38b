//! Records in a file that may end anywhere. Pure.
//!
//! ```text
//! FF 6F 6E 72   length (u32, little endian)   CRC-32 of length and payload (u32, little endian)   payload
//! ```
//!
//! The payload is one line of JSON with its line feed, in UTF-8, in which the byte FF never occurs. So whatever was
//! torn, overwritten with zeros or never written, the next whole record is found by its first four bytes, and none
//! is ever taken for one that is not: a reader that is lost goes on byte by byte to the next mark whose length fits
//! and whose checksum holds.

use flate2::Crc;

/// What each record begins with.
const MARK: [u8; 4] = [0xFF, b'o', b'n', b'r'];
/// Bytes before the payload.
pub const HEADER: usize = 12;
/// Longest payload, in bytes.
pub const PAYLOAD_MAX: usize = 32 << 10;

/// Appends `line` as a record to `out`; its line feed is added. False, and nothing is appended, if it is too long.
pub fn write(line: &str, out: &mut Vec<u8>) -> bool {
    let length = line.len() + 1;
    if length > PAYLOAD_MAX {
        return false;
    }
    // Below 2^32 as it is below the maximum.
    let length = (length as u32).to_le_bytes();
    let payload = [line.as_bytes(), b"\n"];
    out.reserve(HEADER + line.len() + 1);
    out.extend_from_slice(&MARK);
    out.extend_from_slice(&length);
    out.extend_from_slice(&checksum(length, &payload).to_le_bytes());
    out.extend_from_slice(line.as_bytes());
    out.push(b'\n');
    true
}

/// What is found in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// A whole record: its line, without the line feed.
    Line(&'a str),
    /// So many bytes that are none.
    Torn(usize),
}

/// Reads a file from its beginning; every byte is either in a line or in a gap.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader of `data`, which may be anything.
    pub const fn new(data: &'a [u8]) -> Self {
        Self { rest: data }
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Found<'a>;

    fn next(&mut self) -> Option<Found<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let mut torn = 0;
        while let Some(at) = mark(&self.rest[torn..]) {
            torn += at;
            if let Some((line, length)) = record(&self.rest[torn..]) {
                if torn > 0 {
                    break;
                }
                self.rest = &self.rest[length..];
                return Some(Found::Line(line));
            }
            torn += 1;
        }
        if mark(&self.rest[torn..]).is_none() {
            torn = self.rest.len();
        }
        self.rest = &self.rest[torn..];
        Some(Found::Torn(torn))
    }
}

/// Where the next mark begins.
fn mark(data: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = data[from..].iter().position(|byte| *byte == MARK[0]) {
        if data[from + at..].starts_with(&MARK) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

/// The record at the beginning of `data`, and how many bytes it takes.
fn record(data: &[u8]) -> Option<(&str, usize)> {
    let number = |at: usize| -> Option<[u8; 4]> { data.get(at..at + 4)?.try_into().ok() };
    let length = number(4)?;
    let end = HEADER + usize::try_from(u32::from_le_bytes(length)).ok()?;
    if end > HEADER + PAYLOAD_MAX {
        return None;
    }
    let payload = data.get(HEADER..end)?;
    if checksum(length, &[payload]) != u32::from_le_bytes(number(8)?) {
        return None;
    }
    let line = std::str::from_utf8(payload).ok()?.strip_suffix('\n')?;
    Some((line, end))
}

fn checksum(length: [u8; 4], payload: &[&[u8]]) -> u32 {
    let mut crc = Crc::new();
    crc.update(&length);
    for part in payload {
        crc.update(part);
    }
    crc.sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(data: &[u8]) -> Vec<String> {
        Reader::new(data)
            .filter_map(|found| match found {
                Found::Line(line) => Some(line.to_owned()),
                Found::Torn(_) => None,
            })
            .collect()
    }

    fn file(n: usize) -> (Vec<u8>, Vec<String>, Vec<usize>) {
        let (mut data, mut written, mut ends) = (Vec::new(), Vec::new(), vec![0]);
        for n in 0..n {
            let line = format!("{{\"n\":{n},\"text\":\"{}\"}}", "ÿ".repeat(n));
            assert!(write(&line, &mut data));
            written.push(line);
            ends.push(data.len());
        }
        (data, written, ends)
    }

    #[test]
    fn a_file_cut_at_any_byte_keeps_every_whole_record() {
        let (data, written, ends) = file(12);
        for cut in 0..=data.len() {
            let whole = ends.iter().filter(|end| **end <= cut).count() - 1;
            assert_eq!(lines(&data[..cut]), written[..whole], "cut at {cut}");
        }
    }

    #[test]
    fn writing_goes_on_behind_a_file_cut_at_any_byte() {
        let (data, written, ends) = file(12);
        for cut in 0..=data.len() {
            let whole = ends.iter().filter(|end| **end <= cut).count() - 1;
            let mut torn = data[..cut].to_vec();
            assert!(write("{\"after\":true}", &mut torn));
            let mut expected = written[..whole].to_vec();
            expected.push("{\"after\":true}".to_owned());
            assert_eq!(lines(&torn), expected, "cut at {cut}");
        }
    }

    #[test]
    fn one_wrong_byte_costs_one_record() {
        let (data, written, ends) = file(8);
        for at in 0..data.len() {
            let hit = ends.iter().filter(|end| **end <= at).count() - 1;
            let mut expected = written.clone();
            expected.remove(hit);
            for wrong in [0, data[at] ^ 1, !data[at]] {
                let mut damaged = data.clone();
                if damaged[at] == wrong {
                    continue;
                }
                damaged[at] = wrong;
                assert_eq!(lines(&damaged), expected, "{wrong} at {at}");
            }
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_refused() {
        let mut out = Vec::new();
        assert!(!write(&"x".repeat(PAYLOAD_MAX), &mut out) && out.is_empty());
        assert!(write(&"x".repeat(PAYLOAD_MAX - 1), &mut out));
        assert_eq!(lines(&out)[0].len(), PAYLOAD_MAX - 1);
    }

    proptest! {
        #[test]
        fn what_lies_between_records_is_passed_over(
            garbage in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut data = Vec::new();
            write("before", &mut data);
            data.extend_from_slice(&garbage);
            write("after", &mut data);
            let found = lines(&data);
            prop_assert_eq!(found.first().map(String::as_str), Some("before"));
            prop_assert_eq!(found.last().map(String::as_str), Some("after"));
        }
    }
}
