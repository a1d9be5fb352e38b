//! TURN messages on a byte stream (RFC 8656, sections 3.5 and 12.5): STUN messages carry their length, ChannelData is
//! padded to a multiple of four bytes.

use std::io;

use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;

/// Longest message that is read; media packets in their envelope are far shorter.
const LONGEST: usize = 9_000;
/// Header of a STUN message.
const STUN_HEADER: usize = 20;
/// Header of ChannelData, and as much of a message as tells its length.
const HEADER: usize = 4;

/// Length of the message that begins with `header`, and of its padding.
fn length(header: [u8; HEADER]) -> Option<(usize, usize)> {
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    match header[0] >> 6 {
        0b00 if length.is_multiple_of(4) => Some((STUN_HEADER + length, 0)),
        0b01 => Some((HEADER + length, padding(length))),
        _ => None,
    }
}

/// The next message, without padding; `None` at the end of the stream. Not safe to cancel.
///
/// What is neither STUN nor ChannelData, or is too long, is an error: nothing after it can be understood.
pub(super) async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Option<Vec<u8>>> {
    let mut header = [0; HEADER];
    match stream.read_exact(&mut header).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let Some((length, padding)) = length(header).filter(|(length, _)| *length <= LONGEST) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let mut message = vec![0; length + padding];
    message[..HEADER].copy_from_slice(&header);
    stream.read_exact(&mut message[HEADER..]).await?;
    message.truncate(length);
    Ok(Some(message))
}

/// `message` as it is written to a stream.
pub(super) fn padded(mut message: Vec<u8>) -> Vec<u8> {
    if is_channel_data(&message) {
        let length = message.len();
        message.resize(length + padding(length), 0);
    }
    message
}

/// Whether `message` is ChannelData rather than STUN.
pub(super) fn is_channel_data(message: &[u8]) -> bool {
    message.first().is_some_and(|first| first >> 6 == 0b01)
}

const fn padding(length: usize) -> usize {
    length.next_multiple_of(4) - length
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(mut bytes: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        let mut messages = Vec::new();
        while let Some(message) = read(&mut bytes).await? {
            messages.push(message);
        }
        Ok(messages)
    }

    #[tokio::test]
    async fn messages_are_told_apart_and_padding_is_taken_off() {
        let mut stun = vec![0, 1, 0, 4];
        stun.resize(24, 7);
        let data = vec![0x40, 1, 0, 5, 1, 2, 3, 4, 5];
        let mut bytes = stun.clone();
        bytes.extend(padded(data.clone()));
        bytes.extend(padded(stun.clone()));
        assert_eq!(bytes.len(), 24 + 12 + 24);
        let read = all(&bytes).await.expect("messages");
        assert_eq!(read, [stun.clone(), data, stun]);
    }

    #[tokio::test]
    async fn what_cannot_be_told_apart_ends_the_stream() {
        for wrong in [
            &[0x80, 0, 0, 4][..],   // RTP
            &[0x16, 3, 1, 2],       // TLS: its length is no multiple of four
            &[0x40, 0, 0xFF, 0xFF], // too long
            &[0x40, 1, 0, 5, 1, 2], // cut short
            &[0, 1, 0, 3, 0, 0, 0], // a STUN length that cannot be
        ] {
            assert!(all(wrong).await.is_err(), "{wrong:02x?}");
        }
        assert!(all(&[]).await.expect("an end").is_empty());
    }
}
