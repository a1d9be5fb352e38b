//! Which device one is, by what stays the same when it is plugged anew: serial number, or the port it hangs on.
//!
//! Node numbers are given in the order of plugging, so a camera that comes back may be `/dev/video2` where it was
//! `/dev/video0`, and another one may have taken its old number. sysfs says what hangs where. A device with a serial
//! number is itself on every port; one without is the device of the same kind on the same port.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What the USB descriptors say.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Usb {
    /// The device's folder in sysfs.
    folder: PathBuf,
    vendor: String,
    product: String,
    serial: Option<String>,
    /// Which of its interfaces this is, such as `1.0`.
    interface: String,
}

/// A device, whatever its number is at present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The folder in sysfs of the hardware behind the node.
    port: PathBuf,
    /// For people, and to tell devices on one port apart. Empty for a sound card.
    name: String,
    /// Which of the hardware's nodes this is; zero for a sound card.
    index: String,
    usb: Option<Usb>,
}

impl Identity {
    /// Reads the identity of the node whose folder in sysfs (`/sys/class/video4linux/video0`) is `class`; `None` if
    /// there is none, or nothing behind it that could be told from others.
    pub fn read(class: &Path) -> Option<Self> {
        let name = attribute(class, "name").unwrap_or_default();
        let port = class.join("device").canonicalize();
        if port.is_err() && (name.is_empty() || !class.exists()) {
            return None;
        }
        let port = port.unwrap_or_default();
        let usb = port.ancestors().find_map(|folder| {
            let below = port.strip_prefix(folder).ok()?.iter().next();
            let below = below.unwrap_or_default().to_string_lossy().into_owned();
            Some(Usb {
                vendor: attribute(folder, "idVendor")?,
                product: attribute(folder, "idProduct")?,
                serial: attribute(folder, "serial"),
                folder: folder.to_owned(),
                // "1-2:1.0" is interface 1.0 of the device in port 1-2.
                interface: below.split(':').nth(1).unwrap_or_default().to_owned(),
            })
        });
        Some(Self {
            port,
            name,
            index: attribute(class, "index").unwrap_or_default(),
            usb,
        })
    }

    /// Whether the two are one device, as far as can be told.
    pub fn is_same(&self, other: &Self) -> bool {
        if (&self.name, &self.index) != (&other.name, &other.index) {
            return false;
        }
        match (&self.usb, &other.usb) {
            (Some(a), Some(b)) => {
                let kind = |usb: &Usb| {
                    let Usb {
                        vendor,
                        product,
                        serial,
                        interface,
                        ..
                    } = usb.clone();
                    (vendor, product, serial, interface)
                };
                kind(a) == kind(b) && (a.serial.is_some() || self.port == other.port)
            }
            (None, None) => self.port == other.port,
            (Some(_), None) | (None, Some(_)) => false,
        }
    }

    /// The one of `present` that is this device. Of several with one serial number (some makers give all the same)
    /// the one on this port, or none.
    pub fn find<'p, T>(&self, present: &'p [(T, Self)]) -> Option<&'p T> {
        let mut same = present.iter().filter(|(_, other)| self.is_same(other));
        let first = same.next()?;
        if same.next().is_none() {
            return Some(&first.0);
        }
        let on_port = |(_, other): &&(T, Self)| self.is_same(other) && other.port == self.port;
        present.iter().find(on_port).map(|(found, _)| found)
    }

    /// The folder in sysfs of the USB device behind it.
    ///
    /// # Errors
    /// If there is none, or another device is in its port by now.
    pub fn usb_folder(&self) -> Result<&Path, NoPort> {
        let usb = self.usb.as_ref().ok_or(NoPort::NotUsb)?;
        let Usb {
            folder,
            vendor,
            product,
            serial,
            interface: _,
        } = usb;
        let same = attribute(folder, "idVendor").as_ref() == Some(vendor)
            && attribute(folder, "idProduct").as_ref() == Some(product)
            && attribute(folder, "serial") == *serial;
        same.then_some(folder.as_path())
            .ok_or_else(|| NoPort::Gone {
                device: self.to_string(),
            })
    }
}

/// Why no USB port can be named.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPort {
    /// Nothing, or something else, is in the port.
    #[error("{device} is not in its USB port any more")]
    Gone {
        /// What was there.
        device: String,
    },
    /// It is no USB device, or not known which one.
    #[error("it hangs on no USB port that is known")]
    NotUsb,
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.name.is_empty() {
            write!(f, "{} ", self.name)?;
        }
        match &self.usb {
            Some(usb) => {
                let port = usb.folder.file_name().unwrap_or_default();
                write!(f, "({}:{} in port ", usb.vendor, usb.product)?;
                write!(f, "{})", port.display())
            }
            None => write!(f, "({})", self.port.display()),
        }
    }
}

/// All nodes of a class whose names are `prefix` and a number, with their identities, in the order of the numbers.
pub fn present(class: &Path, prefix: &str) -> Vec<(u32, Identity)> {
    let entries = std::fs::read_dir(class).into_iter().flatten();
    let mut found: Vec<(u32, Identity)> = entries
        .filter_map(|entry| {
            let name = entry.ok()?.file_name();
            let number = name.to_str()?.strip_prefix(prefix)?.parse().ok()?;
            Some((number, Identity::read(&class.join(&name))?))
        })
        .collect();
    found.sort_by_key(|(number, _)| *number);
    found
}

/// First line of a small file in sysfs.
fn attribute(folder: &Path, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(folder.join(name)).ok()?;
    let line = text.lines().next()?.trim();
    (!line.is_empty()).then(|| line.to_owned())
}

/// What a track knows of its device over all its openings.
#[derive(Debug, Default)]
pub struct Known {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The device that was opened last with success.
    opened: Option<Identity>,
    /// The device that was tried last.
    tried: Option<Identity>,
    /// The first device of the last opening that did not answer, though the opening went on with others.
    silent: Option<Identity>,
}

impl Known {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The device that was opened last.
    pub fn opened(&self) -> Option<Identity> {
        self.lock().opened.clone()
    }

    /// An opening begins, of which devices are tried one after the other.
    pub fn begin(&self) {
        self.lock().silent = None;
    }

    /// `identity` is going to be opened.
    pub fn trying(&self, identity: Option<Identity>) {
        self.lock().tried = identity;
    }

    /// What was tried does not answer; another may be tried next.
    pub fn silent(&self) {
        let mut state = self.lock();
        if state.silent.is_none() {
            state.silent = state.tried.clone();
        }
    }

    /// What was tried is open and delivers.
    pub fn succeeded(&self) {
        let mut state = self.lock();
        let State {
            opened,
            tried,
            silent,
        } = &mut *state;
        *silent = None;
        if let (Some(opened), Some(tried)) = (&*opened, &*tried)
            && !opened.is_same(tried)
        {
            tracing::warn!(before = %opened, now = %tried, "another device has taken the place of the one before");
        }
        // Kept where the new one cannot be told: it may be the old one.
        if tried.is_some() {
            opened.clone_from(tried);
        }
    }

    /// The folder in sysfs of the USB device that does not answer: the one that was found silent, or else that in
    /// which the last opening hangs, or which it opened.
    ///
    /// # Errors
    /// If it is on no USB port, or not in its own any more.
    pub fn usb_folder(&self) -> Result<PathBuf, NoPort> {
        let state = self.lock();
        let State {
            opened,
            tried,
            silent,
        } = &*state;
        let hangs = silent.as_ref().or(tried.as_ref()).or(opened.as_ref());
        hangs
            .ok_or(NoPort::NotUsb)?
            .usb_folder()
            .map(Path::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A sysfs with USB cameras: number, port, serial number.
    fn sysfs(cameras: &[(u32, &str, Option<&str>)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a folder");
        let class = root.path().join("class");
        std::fs::create_dir(&class).expect("made");
        for (number, port, serial) in cameras {
            let usb = root.path().join("devices/usb1").join(port);
            let interface = usb.join(format!("{port}:1.0"));
            let node = interface.join(format!("video4linux/video{number}"));
            std::fs::create_dir_all(&node).expect("made");
            let put = |folder: &Path, name: &str, text: &str| {
                std::fs::write(folder.join(name), format!("{text}\n")).expect("written");
            };
            put(&usb, "idVendor", "046d");
            put(&usb, "idProduct", "082d");
            if let Some(serial) = serial {
                put(&usb, "serial", serial);
            }
            put(&node, "name", "HD Webcam");
            put(&node, "index", "0");
            symlink(&interface, node.join("device")).expect("linked");
            symlink(&node, class.join(format!("video{number}"))).expect("linked");
        }
        root
    }

    fn present_in(root: &Path) -> Vec<Identity> {
        let all = present(&root.join("class"), "video").into_iter();
        all.map(|(_, identity)| identity).collect()
    }

    fn found(cameras: &[(u32, &str, Option<&str>)]) -> Vec<(u32, Identity)> {
        let root = sysfs(cameras);
        // The folder's own name differs from test to test; what counts lies below it.
        let strip = |mut identity: Identity| {
            let below = |path: &Path| path.strip_prefix(root.path()).expect("below").to_owned();
            identity.port = below(&identity.port);
            if let Some(usb) = &mut identity.usb {
                usb.folder = below(&usb.folder);
            }
            identity
        };
        let all = present(&root.path().join("class"), "video").into_iter();
        all.map(|(n, identity)| (n, strip(identity))).collect()
    }

    fn identity(cameras: &[(u32, &str, Option<&str>)], number: u32) -> Identity {
        let all = found(cameras);
        let one = all.into_iter().find(|(n, _)| *n == number);
        one.expect("it is there").1
    }

    #[test]
    fn a_camera_is_known_again_under_another_number() {
        for serial in [None, Some("A1")] {
            let before = identity(&[(0, "1-2", serial), (1, "1-3", None)], 0);
            // Its old number went to the other camera.
            let after = found(&[(0, "1-3", None), (2, "1-2", serial)]);
            assert_eq!(before.find(&after), Some(&2), "{before}");
        }
    }

    #[test]
    fn another_camera_of_the_same_model_is_not_it() {
        let before = identity(&[(0, "1-2", None)], 0);
        assert_eq!(before.find(&found(&[(0, "1-3", None)])), None);
        let before = identity(&[(0, "1-2", Some("A1"))], 0);
        assert_eq!(before.find(&found(&[(0, "1-2", Some("B2"))])), None);
        assert_eq!(before.find(&found(&[(0, "1-2", None)])), None);
    }

    #[test]
    fn a_serial_number_counts_on_every_port_unless_several_bear_it() {
        let before = identity(&[(0, "1-2", Some("A1"))], 0);
        assert_eq!(before.find(&found(&[(7, "1-4", Some("A1"))])), Some(&7));
        let two = [(7, "1-4", Some("A1")), (8, "1-5", Some("A1"))];
        assert_eq!(before.find(&found(&two)), None);
        let two = [(7, "1-4", Some("A1")), (8, "1-2", Some("A1"))];
        assert_eq!(before.find(&found(&two)), Some(&8));
    }

    #[test]
    fn what_is_tried_is_known_only_when_it_succeeds() {
        let known = Known::default();
        let first = identity(&[(0, "1-2", None)], 0);
        known.trying(Some(first.clone()));
        assert_eq!(known.opened(), None);
        known.succeeded();
        known.trying(None);
        known.succeeded();
        assert_eq!(known.opened(), Some(first));
    }

    #[test]
    fn the_port_of_the_device_that_does_not_answer_is_named_and_not_that_of_the_one_tried_last() {
        let root = sysfs(&[(0, "1-2", None), (1, "1-3", Some("B2"))]);
        let [first, second] = &present_in(root.path())[..] else {
            panic!("two cameras")
        };
        let known = Known::default();
        assert_eq!(known.usb_folder(), Err(NoPort::NotUsb));
        let port = || {
            let folder = known.usb_folder().expect("on USB");
            folder.file_name().expect("a name").to_owned()
        };
        // The first is silent, the second is busy.
        known.begin();
        known.trying(Some(first.clone()));
        known.silent();
        known.trying(Some(second.clone()));
        assert_eq!(port(), "1-2");
        // In the next opening the second hangs.
        known.begin();
        known.trying(Some(first.clone()));
        known.trying(Some(second.clone()));
        assert_eq!(port(), "1-3");
        // The first is silent again, the second delivers and then hangs.
        known.begin();
        known.trying(Some(first.clone()));
        known.silent();
        known.trying(Some(second.clone()));
        known.succeeded();
        assert_eq!(port(), "1-3");
    }

    #[test]
    fn another_device_that_is_in_the_port_by_now_is_never_named() {
        let root = sysfs(&[(0, "1-2", Some("A1"))]);
        let known = Known::default();
        known.trying(present_in(root.path()).pop());
        assert!(known.usb_folder().is_ok());
        let usb = root.path().join("devices/usb1/1-2");
        for (name, other) in [("serial", "B2"), ("serial", ""), ("idProduct", "0825")] {
            let before = std::fs::read(usb.join(name)).expect("there");
            std::fs::write(usb.join(name), other).expect("written");
            let error = known.usb_folder().expect_err("another one");
            assert!(matches!(error, NoPort::Gone { .. }), "{error}");
            std::fs::write(usb.join(name), before).expect("written");
        }
        assert!(known.usb_folder().is_ok());
        drop(root);
        assert!(matches!(known.usb_folder(), Err(NoPort::Gone { .. })));
    }

    #[test]
    fn a_node_without_hardware_or_without_a_folder_is_handled() {
        let root = tempfile::tempdir().expect("a folder");
        assert_eq!(Identity::read(&root.path().join("video0")), None);
        let bare = root.path().join("video1");
        std::fs::create_dir(&bare).expect("made");
        assert_eq!(Identity::read(&bare), None);
        std::fs::write(bare.join("name"), "Loopback\n").expect("written");
        let loopback = Identity::read(&bare).expect("it has a name");
        assert!(loopback.is_same(&loopback));
        assert_eq!(loopback.usb_folder(), Err(NoPort::NotUsb));
    }
}
