//! The tables of all outcomes, as Markdown for people and as JSON for machines.

use std::path::Path;

use super::cells::{Group, Scenario};
use super::outcome::Outcome;

/// All outcomes.
#[derive(Debug)]
pub(crate) struct Table {
    outcomes: Vec<Outcome>,
}

impl Table {
    pub(crate) const fn new(outcomes: Vec<Outcome>) -> Self {
        Self { outcomes }
    }

    /// How many passed, and how many did not.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let passed = self.outcomes.iter().filter(|o| o.passed).count();
        (passed, self.outcomes.len() - passed)
    }

    /// The tables as Markdown.
    pub(crate) fn markdown(&self) -> String {
        let mut out = String::new();
        let firewalls = self.grid(Group::Firewalls, "server", |o| o.network, Outcome::short);
        let moves = self.grid(Group::Moves, "session", |o| o.scenario, Outcome::short);
        for (title, table) in [
            (
                "Rungs: one server that offers everything, one way after the other blocked",
                self.rungs(),
            ),
            (
                "Firewalls: media takes, time to on air; after the network returns",
                firewalls,
            ),
            ("Moves: loss noticed; back on air after the network", moves),
        ] {
            if !table.is_empty() {
                out += &format!("### {title}\n\n{table}\n");
            }
        }
        out
    }

    /// A row for each server, a column for each of what `column` says; starts and returns share a field.
    fn grid(
        &self,
        group: Group,
        corner: &str,
        column: impl Fn(&Outcome) -> &'static str,
        field: impl Fn(&Outcome) -> String,
    ) -> String {
        let of_group = || self.outcomes.iter().filter(|o| o.cell.group == group);
        let mut rows: Vec<&str> = Vec::new();
        let mut columns: Vec<&str> = Vec::new();
        for outcome in of_group() {
            if !rows.contains(&outcome.profile.as_str()) {
                rows.push(&outcome.profile);
            }
            if !columns.contains(&column(outcome)) {
                columns.push(column(outcome));
            }
        }
        if rows.is_empty() {
            return String::new();
        }
        let mut out = format!("| {corner} | {} |\n", columns.join(" | "));
        out += &format!("|---|{}\n", "---|".repeat(columns.len()));
        for row in rows {
            let fields = columns.iter().map(|name| {
                let here = of_group().filter(|o| o.profile == row && column(o) == *name);
                here.map(&field).collect::<Vec<_>>().join("; ")
            });
            out += &format!("| {row} | {} |\n", fields.collect::<Vec<_>>().join(" | "));
        }
        out
    }

    /// A row for each blocked way.
    fn rungs(&self) -> String {
        let rows = self
            .outcomes
            .iter()
            .filter(|o| o.cell.group == Group::Rungs);
        let rows: Vec<String> = rows.map(Outcome::steps).collect();
        if rows.is_empty() {
            return String::new();
        }
        let head = "| network | media takes | on air after | what became of each way |\n|---|---|---|---|\n";
        head.to_owned() + &rows.concat()
    }

    /// Writes the tables to `folder`.
    pub(crate) fn write(&self, folder: &Path) -> Result<(), String> {
        let json =
            serde_json::to_string_pretty(&self.outcomes).map_err(|error| error.to_string())?;
        for (name, text) in [("table.md", self.markdown()), ("table.json", json)] {
            let path = folder.join(name);
            std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Ok(())
    }
}

impl Outcome {
    /// The outcome in a field of a table.
    fn short(&self) -> String {
        if !self.passed {
            return "**FAILED**".to_owned();
        }
        let seconds = |ms: u64| match ms {
            0..1_000 => format!("{ms} ms"),
            _ => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        };
        let back = self.back_on_air_ms.map(seconds);
        match (
            self.cell.scenario,
            back,
            self.time_to_on_air_ms,
            &self.transport,
        ) {
            (Scenario::Start, _, Some(ms), Some(rung)) => format!("{rung}, {}", seconds(ms)),
            (Scenario::Returns, Some(back), ..) => format!("back {back}"),
            (_, Some(back), ..) => {
                let noticed = self.noticed_ms.map(|ms| format!("{}; ", seconds(ms)));
                let by = self.back_by.unwrap_or_default();
                format!("{}back {back}, {by}", noticed.unwrap_or_default())
            }
            _ => format!("no: \"{}\"", self.expected),
        }
    }

    /// The outcome as a row of the table of rungs.
    fn steps(&self) -> String {
        let step = |rung: &super::outcome::Rung| {
            let after = rung.after_ms.map(|ms| format!(" ({ms} ms)"));
            format!(
                "{}: {}{}",
                rung.rung,
                rung.outcome,
                after.unwrap_or_default()
            )
        };
        let steps: Vec<String> = self.ladder.iter().map(step).collect();
        let ms = self.time_to_on_air_ms.map(|ms| format!("{ms} ms"));
        format!(
            "| {} | {} | {} | {} |\n",
            self.network,
            if self.passed {
                self.transport.as_deref().unwrap_or("-")
            } else {
                "**FAILED**"
            },
            ms.as_deref().unwrap_or("-"),
            steps.join("; ")
        )
    }
}
