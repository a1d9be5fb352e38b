//! Pins of public keys as the file writes them: `sha256:` and the digest in base64.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

const PREFIX: &str = "sha256:";

/// Reads a pin; `None` if the text is none.
pub fn read(text: &str) -> Option<[u8; 32]> {
    let digest = text.strip_prefix(PREFIX)?;
    BASE64_STANDARD.decode(digest).ok()?.try_into().ok()
}

/// Writes a pin as [`read`] reads it.
pub fn written(pin: &[u8; 32]) -> String {
    format!("{PREFIX}{}", BASE64_STANDARD.encode(pin))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let pin: [u8; 32] = std::array::from_fn(|n| n as u8 * 7);
        assert_eq!(read(&written(&pin)), Some(pin));
        assert_eq!(
            written(&[0; 32]),
            "sha256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
        );
    }

    #[test]
    fn what_is_no_pin_is_refused() {
        for text in [
            "",
            "sha256:",
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
            "sha256:AAAA",
            "sha256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "sha256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA-_=",
            "sha1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
