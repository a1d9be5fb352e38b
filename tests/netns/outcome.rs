//! What came of a cell, judged by the two reports.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::cells::{Cell, Expected, Group};
use super::scenario::Seen;

/// What came of a cell.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Outcome {
    #[serde(skip)]
    pub(crate) cell: Cell,
    pub(crate) profile: String,
    pub(crate) network: &'static str,
    pub(crate) scenario: &'static str,
    /// What the table wants: a rung, or words of an error.
    pub(crate) expected: String,
    pub(crate) passed: bool,
    /// Why it did not pass.
    faults: Vec<String>,
    /// What media took.
    pub(crate) transport: Option<String>,
    /// What became of each way to the server.
    pub(crate) ladder: Vec<Rung>,
    /// From the agent's start, or from the loss of its last session.
    pub(crate) time_to_on_air_ms: Option<u64>,
    /// From the disturbance until the agent spoke of it.
    pub(crate) noticed_ms: Option<u64>,
    /// From the network's return.
    pub(crate) back_on_air_ms: Option<u64>,
    /// By a new session or a restart of ICE.
    pub(crate) back_by: Option<&'static str>,
    /// Sessions of the agent after its first.
    reconnects: u64,
    /// Why sessions ended.
    ends: Vec<String>,
    /// Pictures that the lab decoded.
    frames_decoded: u64,
    /// How long the cell took.
    took_ms: u64,
}

/// One entry of the agent's ladder.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Rung {
    pub(crate) rung: String,
    pub(crate) outcome: String,
    pub(crate) after_ms: Option<u64>,
}

impl Outcome {
    /// Compares what was seen with what `cell` expects.
    pub(crate) fn judge(
        cell: &Cell,
        seen: Result<Seen, String>,
        took: Duration,
        folder: &Path,
    ) -> Self {
        let expected = match cell.expected {
            Expected::Error(words) | Expected::OnAir(words) => words.to_owned(),
        };
        let mut outcome = Self {
            cell: cell.clone(),
            profile: cell.profile.to_string(),
            network: cell.network.name(),
            scenario: cell.scenario.name(),
            expected,
            passed: false,
            faults: Vec::new(),
            transport: None,
            ladder: Vec::new(),
            time_to_on_air_ms: None,
            noticed_ms: None,
            back_on_air_ms: None,
            back_by: None,
            reconnects: 0,
            ends: Vec::new(),
            frames_decoded: 0,
            took_ms: millis(took),
        };
        match seen {
            Ok(seen) => {
                outcome.take(&seen);
                outcome.faults = match cell.expected {
                    Expected::Error(words) => outcome.against_error(words, &seen),
                    Expected::OnAir(rung) => outcome.against_on_air(cell, rung, &seen),
                };
            }
            Err(why) => outcome.faults.push(why),
        }
        outcome.passed = outcome.faults.is_empty();
        if !outcome.passed {
            outcome.faults.push(format!("see {}", folder.display()));
        }
        outcome
    }

    fn take(&mut self, seen: &Seen) {
        let session = &seen.agent["sessions"][0];
        self.transport = session["transport"].as_str().map(str::to_owned);
        self.ladder = session["ladder"]
            .as_array()
            .into_iter()
            .flatten()
            .map(rung)
            .collect();
        self.time_to_on_air_ms = session["time_to_on_air_ms"].as_u64();
        self.reconnects = session["reconnects"].as_u64().unwrap_or_default();
        self.ends.clone_from(&seen.ends);
        let lab = seen.lab["sessions"].as_array();
        let decoded = lab
            .into_iter()
            .flatten()
            .filter_map(|s| s["video"]["frames_decoded"].as_u64());
        self.frames_decoded = decoded.sum();
        if let Some(back) = &seen.back {
            self.noticed_ms = back.noticed.map(millis);
            self.back_on_air_ms = Some(millis(back.after));
            self.back_by = Some(back.how);
        }
    }

    /// What speaks against its being on air over `rung`.
    fn against_on_air(&self, cell: &Cell, rung: &str, seen: &Seen) -> Vec<String> {
        let mut faults = Vec::new();
        match self.transport.as_deref() {
            Some(took) if took == rung => {}
            Some(took) => faults.push(format!("on air over {took}, not over {rung}")),
            None => faults.push("the agent reports no transport".to_owned()),
        }
        let chosen = self
            .ladder
            .iter()
            .any(|r| r.rung == rung && r.outcome == "chosen");
        if !chosen && !self.ladder.is_empty() {
            faults.push(format!(
                "the ladder does not say that {rung} was chosen: {:?}",
                self.ladder
            ));
        }
        let spoken = seen.agent["sessions"][0]["dialect"].as_str();
        if spoken != Some(cell.dialect()) {
            faults.push(format!("it spoke {spoken:?}, not {}", cell.dialect()));
        }
        if self.time_to_on_air_ms.is_none() {
            faults.push("the agent reports no time to on air".to_owned());
        }
        if self.frames_decoded == 0 {
            faults.push("the lab decoded no picture".to_owned());
        }
        let moved = cell.group == Group::Moves;
        // A session that was cut off could not part in order.
        let mut n_cut = if moved { self.reconnects } else { 0 };
        let sessions = seen.lab["sessions"].as_array();
        for violation in sessions
            .into_iter()
            .flatten()
            .filter_map(|s| s["violations"].as_array())
            .flatten()
        {
            match violation["rule"].as_str() {
                Some("goodbye") if n_cut > 0 => n_cut -= 1,
                // Requests are lost in an outage, and the first report after it may overtake the first packet.
                Some("key-frame" | "sender-report-time") if moved => {}
                _ => faults.push(format!("the lab saw a broken rule: {violation}")),
            }
        }
        faults
    }

    /// What speaks against its having failed with `words`.
    fn against_error(&self, words: &str, seen: &Seen) -> Vec<String> {
        let mut faults = Vec::new();
        if self.time_to_on_air_ms.is_some() {
            faults.push("it was on air".to_owned());
        }
        let last = seen.agent["sessions"][0]["end_reason"]
            .as_str()
            .unwrap_or_default();
        if !last.contains(words) {
            faults.push(format!("the reason given is {last:?}"));
        }
        if self.frames_decoded > 0 {
            faults.push("the lab decoded pictures".to_owned());
        }
        faults
    }

    /// The cell in a line.
    pub(crate) fn line(&self) -> String {
        let mut line = format!(
            "{} {}, {}, {}: {}",
            if self.passed { "ok  " } else { "FAIL" },
            self.profile,
            self.network,
            self.scenario,
            self.result()
        );
        for fault in &self.faults {
            line += &format!("\n       {fault}");
        }
        line
    }

    /// What it came to, in words.
    fn result(&self) -> String {
        let mut result = match (&self.transport, self.time_to_on_air_ms) {
            (Some(transport), Some(ms)) => format!("{transport}, on air after {ms} ms"),
            _ => format!(
                "not on air: {}",
                self.ends.last().map_or("no reason", String::as_str)
            ),
        };
        if let Some(ms) = self.noticed_ms {
            result += &format!("; loss noticed after {ms} ms");
        }
        if let (Some(ms), Some(by)) = (self.back_on_air_ms, self.back_by) {
            result += &format!("; back {ms} ms after the network, by {by}");
        }
        result
    }
}

fn rung(entry: &Value) -> Rung {
    Rung {
        rung: entry["rung"].as_str().unwrap_or_default().to_owned(),
        outcome: entry["outcome"].as_str().unwrap_or_default().to_owned(),
        after_ms: entry["after_ms"].as_u64(),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
