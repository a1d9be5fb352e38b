//! Which sound card is meant, also after it has come back under another name.

use std::path::Path;

use cpal::Device;
use cpal::traits::{DeviceTrait, HostTrait};

use super::fault;
use crate::capture::Error;
use crate::capture::identity::{self, Identity, Known};

/// Where the kernel says what hangs on which port.
const CLASS: &str = "/sys/class/sound";

/// The name of the sound card in an id such as `alsa:plughw:CARD=Webcam,DEV=0`.
fn card(id: &str) -> Option<&str> {
    let (_, rest) = id.split_once("CARD=")?;
    rest.split(',').next()
}

/// The sound cards that are there: name and identity.
fn cards() -> Vec<(String, Identity)> {
    let class = Path::new(CLASS);
    let present = identity::present(class, "card").into_iter();
    let named = present.filter_map(|(n, identity)| {
        let name = std::fs::read_to_string(class.join(format!("card{n}/id"))).ok()?;
        Some((name.trim().to_owned(), identity))
    });
    named.collect()
}

/// Which of `ids` is meant by `device`, an id or a part of one of the `names`. If the card `known` was open before,
/// only an id on that card, which is `again` now, is meant by an id, and rather one on it by a name. Pure.
fn chosen(
    device: &str,
    ids: &[String],
    names: &[String],
    known: bool,
    again: Option<&str>,
) -> Option<usize> {
    let wanted = device.to_lowercase();
    let wanted = wanted.strip_prefix("alsa:").unwrap_or(&wanted);
    let plain = |id: &str| {
        let id = id.to_lowercase();
        id.strip_prefix("alsa:").map(str::to_owned).unwrap_or(id)
    };
    let is_id = ids.iter().position(|id| plain(id) == wanted);
    if let Some(before) = card(device)
        && known
    {
        // Two cards of one model change their names with the order of plugging.
        let now = device.replacen(&format!("CARD={before}"), &format!("CARD={}", again?), 1);
        return ids.iter().position(|id| plain(id) == plain(&now));
    }
    let named = |n: &usize| names[*n].to_lowercase().contains(wanted);
    let on_card = |n: &usize| again.is_some() && card(&ids[*n]) == again;
    let all = || (0..ids.len()).filter(named);
    is_id.or_else(|| all().find(on_card).or_else(|| all().next()))
}

/// The device that `device` means.
pub(super) fn find(device: &str, known: &Known) -> Result<Device, Error> {
    let host = cpal::default_host();
    let missing = || Error::Missing {
        device: device.to_owned(),
    };
    known.trying(None);
    if matches!(device, "auto" | "default") {
        return host.default_input_device().ok_or_else(missing);
    }
    let mut devices: Vec<Device> = host
        .input_devices()
        .map_err(|e| fault(device, &e))?
        .collect();
    let id = |device: &Device| {
        device
            .id()
            .map_or_else(|_| String::new(), |id| id.to_string())
    };
    let name = |device: &Device| {
        let description = device.description();
        description.map_or_else(|_| String::new(), |d| d.name().to_owned())
    };
    let ids: Vec<String> = devices.iter().map(id).collect();
    let names: Vec<String> = devices.iter().map(name).collect();
    let cards = cards();
    let opened = known.opened();
    let again = opened.as_ref().and_then(|known| known.find(&cards));
    let again = again.map(String::as_str);
    let found = chosen(device, &ids, &names, opened.is_some(), again).ok_or_else(missing)?;
    let on = card(&ids[found]);
    let identity = cards.iter().find(|(name, _)| Some(name.as_str()) == on);
    known.trying(identity.map(|(_, identity)| identity.clone()));
    Ok(devices.swap_remove(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_is_found_again_under_its_new_name_and_no_other_is_taken_for_it() {
        let texts = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let ids = texts(&[
            "alsa:default",
            "alsa:plughw:CARD=Webcam,DEV=0",
            "alsa:plughw:CARD=Webcam_1,DEV=0",
        ]);
        let names = texts(&["Default", "HD Webcam, USB Audio", "HD Webcam, USB Audio"]);
        let chosen =
            |device: &str, known, again: Option<&str>| chosen(device, &ids, &names, known, again);
        let id = "plughw:CARD=Webcam,DEV=0";
        assert_eq!(chosen(id, false, None), Some(1));
        assert_eq!(chosen(&format!("alsa:{id}"), false, None), Some(1));
        assert_eq!(chosen(id, true, Some("Webcam_1")), Some(2));
        assert_eq!(chosen(id, true, None), None);
        assert_eq!(chosen("hd webcam", false, None), Some(1));
        assert_eq!(chosen("hd webcam", true, Some("Webcam_1")), Some(2));
        assert_eq!(chosen("hd webcam", true, None), Some(1));
        assert_eq!(chosen("default", false, None), Some(0));
        assert_eq!(chosen("nothing", true, Some("Webcam")), None);
    }
}
