//! Resetting the USB port of a device that does not answer any more, as far as this process is permitted to.
//!
//! The gentler way first: the ioctl `USBDEVFS_RESET` needs write access to the device's node under `/dev/bus/usb`, and
//! keeps the device's address. The other way, to withdraw and give back `authorized` in sysfs, needs root and is as
//! good as pulling the plug. Either may hang as the device does, so it is for a thread that may be left behind.

use std::fs::OpenOptions;
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};

use rustix::ioctl::{NoArg, Opcode, ioctl, opcode};

/// `USBDEVFS_RESET` (linux/usbdevice_fs.h).
const RESET: Opcode = opcode::none(b'U', 20);

/// How a port was reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// By the ioctl.
    Port,
    /// By `authorized`: the device was as good as unplugged.
    Authorization,
}

/// Resets the USB device whose folder in sysfs is `folder`, with its nodes below `bus` (`/dev/bus/usb`).
///
/// # Errors
/// If it is gone or neither way is permitted.
pub fn reset(folder: &Path, bus: &Path) -> Result<Reset> {
    match node(folder, bus).and_then(|node| by_ioctl(&node)) {
        Ok(()) => Ok(Reset::Port),
        Err(refused) => match by_authorization(folder) {
            Ok(()) => Ok(Reset::Authorization),
            Err(error) => Err(Error::new(
                error.kind(),
                format!("USBDEVFS_RESET: {refused}; authorized: {error}"),
            )),
        },
    }
}

fn node(folder: &Path, bus: &Path) -> Result<PathBuf> {
    let number = |name: &str| -> Result<u32> {
        let text = std::fs::read_to_string(folder.join(name))?;
        let number = text.trim().parse();
        number.map_err(|_| Error::new(ErrorKind::InvalidData, format!("no number in {name}")))
    };
    let (at, device) = (number("busnum")?, number("devnum")?);
    Ok(bus.join(format!("{at:03}/{device:03}")))
}

#[expect(unsafe_code, reason = "there is no safe interface to this ioctl")]
fn by_ioctl(node: &Path) -> Result<()> {
    let file = OpenOptions::new().write(true).open(node)?;
    // SAFETY: the number is that of the kernel's interface, and this ioctl takes no argument: it reads and writes no
    // memory of ours. On a file that is no usbfs node it fails.
    unsafe { ioctl(&file, NoArg::<RESET>::new()) }.map_err(Error::from)
}

fn by_authorization(folder: &Path) -> Result<()> {
    let switch = folder.join("authorized");
    // Opened once for both: who may withdraw it must be able to give it back.
    let mut file = OpenOptions::new().write(true).open(switch)?;
    let withdrawn = std::io::Write::write_all(&mut file, b"0");
    let given_back = std::io::Write::write_all(&mut file, b"1");
    withdrawn.and(given_back)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(authorized: bool) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("busnum"), "1\n").expect("written");
        std::fs::write(folder.path().join("devnum"), "7\n").expect("written");
        if authorized {
            std::fs::write(folder.path().join("authorized"), "").expect("written");
        }
        folder
    }

    #[test]
    fn the_node_is_found_and_a_file_that_is_none_is_refused() {
        let folder = device(false);
        let bus = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(bus.path().join("001")).expect("made");
        std::fs::write(bus.path().join("001/007"), "").expect("written");
        let refused = reset(folder.path(), bus.path()).expect_err("an ordinary file");
        let text = refused.to_string();
        // ENOTTY: it was found and asked.
        assert!(
            text.contains("os error 25") && text.contains("authorized"),
            "{text}"
        );
    }

    #[test]
    fn without_the_node_authorization_is_withdrawn_and_given_back() {
        let folder = device(true);
        let how = reset(folder.path(), Path::new("/nonexistent")).expect("a plain file");
        assert_eq!(how, Reset::Authorization);
        let written = std::fs::read_to_string(folder.path().join("authorized"));
        assert_eq!(written.expect("readable"), "01");
    }

    #[test]
    fn a_device_that_is_gone_or_odd_is_an_error() {
        assert!(reset(Path::new("/nonexistent"), Path::new("/nonexistent")).is_err());
        let folder = device(false);
        std::fs::write(folder.path().join("devnum"), "x").expect("written");
        assert!(reset(folder.path(), Path::new("/nonexistent")).is_err());
    }
}
