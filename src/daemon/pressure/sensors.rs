//! What Linux tells of the machine's straits: `/proc/pressure`, `/sys/class/thermal`, and the supply voltage of a
//! Raspberry Pi. A file that is missing, or says what cannot be, tells nothing.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::Readings;

/// More than any of these files holds.
const MAX_BYTES: u64 = 4096;

/// Trip points below this many degrees are placeholders of the firmware.
const TRIP_MIN: f64 = 45.0;

/// How far below the point at which the machine is switched off it counts as too hot, where no other point is known.
const BELOW_CRITICAL: f64 = 10.0;

/// Temperatures that a sensor can mean, in degrees.
const POSSIBLE: std::ops::RangeInclusive<f64> = -40.0..=150.0;

/// Trip points of a zone that are looked at.
const TRIPS: usize = 16;

/// The firmware of a Raspberry Pi: it is too low on voltage now.
const PI_UNDERVOLTAGE: u64 = 1 << 0;

/// The same: it throttles now, or is past its soft limit of temperature.
const PI_HOT: u64 = 1 << 2 | 1 << 3;

/// Reads everything under `root`, which is `/` but for tests. May block for some milliseconds. What encoders leave
/// undone is not known here.
pub fn read(root: &Path) -> Readings {
    let firmware = text(&root.join("sys/devices/platform/soc/soc:firmware/get_throttled"));
    let firmware = firmware
        .and_then(|bits| u64::from_str_radix(bits.trim_start_matches("0x"), 16).ok())
        .unwrap_or(0);
    let thermal = root.join("sys/class/thermal");
    let zones = folders(&thermal, "thermal_zone");
    let mut heat = zones
        .iter()
        .filter_map(|zone| above_trip(zone))
        .reduce(f64::max);
    let throttles = folders(&thermal, "cooling_device")
        .iter()
        .any(|device| throttles(device));
    if throttles || firmware & PI_HOT != 0 {
        heat = Some(heat.map_or(0.0, |heat| heat.max(0.0)));
    }
    let sensors = folders(&root.join("sys/class/hwmon"), "hwmon");
    let weak = |sensor: &PathBuf| {
        text(&sensor.join("name")).as_deref() == Some("rpi_volt")
            && text(&sensor.join("in0_lcrit_alarm")).as_deref() == Some("1")
    };
    Readings {
        behind: None,
        contention: text(&root.join("proc/pressure/cpu")).and_then(|text| contention(&text)),
        heat,
        undervoltage: firmware & PI_UNDERVOLTAGE != 0 || sensors.iter().any(weak),
    }
}

/// The share of the last ten seconds in which some task waited, in percent.
fn contention(text: &str) -> Option<f64> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let avg = some
        .split_whitespace()
        .find_map(|word| word.strip_prefix("avg10="))?;
    let percent: f64 = avg.parse().ok()?;
    (0.0..=100.0).contains(&percent).then_some(percent)
}

/// By how many degrees a zone is above the point at which something is done about its heat.
fn above_trip(zone: &Path) -> Option<f64> {
    let now = degrees(&zone.join("temp"))?;
    let trips = (0..TRIPS).map_while(|n| {
        let kind = text(&zone.join(format!("trip_point_{n}_type")))?;
        Some((kind, degrees(&zone.join(format!("trip_point_{n}_temp")))))
    });
    let mut throttle = None::<f64>;
    let mut critical = None::<f64>;
    for (kind, at) in trips {
        let Some(at) = at.filter(|at| *at >= TRIP_MIN) else {
            continue;
        };
        match kind.as_str() {
            "passive" | "hot" => throttle = Some(throttle.map_or(at, |least| least.min(at))),
            "critical" => critical = Some(critical.map_or(at, |least| least.min(at))),
            _ => {}
        }
    }
    let point = throttle.or(critical.map(|at| at - BELOW_CRITICAL))?;
    Some(now - point)
}

/// Whether the kernel slows a processor down at this instant to cool it.
fn throttles(device: &Path) -> bool {
    let kind = text(&device.join("type")).unwrap_or_default();
    let processor = kind == "Processor" || kind.contains("cpufreq");
    let state = text(&device.join("cur_state")).and_then(|state| state.parse::<i64>().ok());
    processor && state.is_some_and(|state| state > 0)
}

fn degrees(path: &Path) -> Option<f64> {
    let thousandths: f64 = text(path)?.parse().ok()?;
    let degrees = thousandths / 1_000.0;
    POSSIBLE.contains(&degrees).then_some(degrees)
}

fn folders(parent: &Path, beginning: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(parent) else {
        return Vec::new();
    };
    entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(beginning))
        .map(|entry| entry.path())
        .collect()
}

fn text(path: &Path) -> Option<String> {
    let mut text = String::new();
    let file = File::open(path).ok()?;
    file.take(MAX_BYTES).read_to_string(&mut text).ok()?;
    Some(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine with these files.
    fn machine(files: &[(&str, &str)]) -> Readings {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, format!("{content}\n")).unwrap();
        }
        read(root.path())
    }

    const ZONE: &str = "sys/class/thermal/thermal_zone0";

    fn zone(temp: &str, trips: &[(&str, &str)]) -> Option<f64> {
        let mut files = vec![(format!("{ZONE}/temp"), temp.to_owned())];
        for (n, (kind, at)) in trips.iter().enumerate() {
            files.push((format!("{ZONE}/trip_point_{n}_type"), (*kind).to_owned()));
            files.push((format!("{ZONE}/trip_point_{n}_temp"), (*at).to_owned()));
        }
        let files: Vec<(&str, &str)> = files
            .iter()
            .map(|(p, c)| (p.as_str(), c.as_str()))
            .collect();
        machine(&files).heat
    }

    #[test]
    fn a_machine_that_has_none_of_it_tells_nothing() {
        assert_eq!(machine(&[]), Readings::default());
    }

    #[test]
    fn the_pressure_of_the_processor_is_read_as_the_kernel_writes_it() {
        let some = "some avg10=16.21 avg60=50.46 avg300=65.92 total=9224186577\n\
            full avg10=0.00 avg60=0.00 avg300=0.00 total=0";
        let read = |text| machine(&[("proc/pressure/cpu", text)]).contention;
        assert_eq!(read(some), Some(16.21));
        for strange in [
            "",
            "some avg10=",
            "some avg10=NaN",
            "some avg10=1e9",
            "full avg10=3",
        ] {
            assert_eq!(read(strange), None, "{strange}");
        }
    }

    #[test]
    fn a_zone_is_measured_against_its_lowest_point_of_throttling() {
        let trips = [
            ("critical", "105000"),
            ("passive", "95000"),
            ("hot", "85000"),
        ];
        assert_eq!(zone("80000", &trips), Some(-5.0));
        assert_eq!(zone("86000", &trips), Some(1.0));
        // As an Intel package tells it: the passive ones are placeholders.
        let package = [
            ("passive", "0"),
            ("passive", "-274000"),
            ("critical", "100000"),
        ];
        assert_eq!(zone("91000", &package), Some(1.0));
        assert_eq!(zone("91000", &[("active", "60000")]), None);
        assert_eq!(zone("-128000", &trips), None, "no sensor");
        assert_eq!(zone("warm", &trips), None);
    }

    #[test]
    fn a_kernel_that_slows_the_processor_down_is_hot_whatever_its_zones_say() {
        let device = "sys/class/thermal/cooling_device0";
        let heat = |kind: &str, state: &str| {
            let (type_, cur) = (format!("{device}/type"), format!("{device}/cur_state"));
            machine(&[(&type_, kind), (&cur, state)]).heat
        };
        assert_eq!(heat("Processor", "1"), Some(0.0));
        assert_eq!(heat("cpufreq-cpu0", "3"), Some(0.0));
        assert_eq!(heat("Processor", "0"), None);
        assert_eq!(heat("intel_powerclamp", "-1"), None);
        assert_eq!(heat("pwm-fan", "4"), None, "a fan slows nothing down");
    }

    #[test]
    fn a_raspberry_pi_tells_of_its_supply_and_of_its_heat() {
        let firmware = "sys/devices/platform/soc/soc:firmware/get_throttled";
        let bits = |bits| machine(&[(firmware, bits)]);
        // What has been since the boot is not what is.
        assert_eq!(bits("50000"), Readings::default());
        assert!(bits("50005").undervoltage);
        assert_eq!(bits("0x4").heat, Some(0.0));
        let alarm = |name, alarm| {
            let files = [
                ("sys/class/hwmon/hwmon1/name", name),
                ("sys/class/hwmon/hwmon1/in0_lcrit_alarm", alarm),
            ];
            machine(&files).undervoltage
        };
        assert!(alarm("rpi_volt", "1"));
        assert!(!alarm("rpi_volt", "0"));
        assert!(
            !alarm("nct6775", "1"),
            "another chip's inputs mean other things"
        );
    }
}
