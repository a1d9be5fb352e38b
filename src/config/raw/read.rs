//! Reading TOML tables key by key, complaining with place, key and what is allowed.
//!
//! Knows nothing of what is configured: tables and keys are named by [`super`].

use toml::de::{DeArray, DeTable, DeValue};

use super::{Env, Fault};

/// A table of the file with the path that leads to it.
pub(super) struct Table<'t> {
    pub(super) path: String,
    pub(super) at: usize,
    pub(super) entries: &'t DeTable<'t>,
}

impl Table<'_> {
    pub(super) fn key(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }
}

/// The state of one reading: the text, and what was found wrong with it so far.
pub(super) struct Reader<'e> {
    pub(super) env: &'e Env<'e>,
    pub(super) text: &'e str,
    pub(super) faults: Vec<Fault>,
}

/// What a value is read into, or what is allowed there.
pub(super) type Read<T> = Result<T, String>;

impl Reader<'_> {
    /// The table under a key; `None` if it is missing or is no table, which is a fault.
    pub(super) fn table<'t>(&mut self, parent: &Table<'t>, name: &str) -> Option<Table<'t>> {
        let (key, value) = parent.entries.get_key_value(name)?;
        let path = parent.key(name);
        if let DeValue::Table(entries) = value.get_ref() {
            return Some(Table {
                path,
                at: key.span().start,
                entries,
            });
        }
        let message = format!("found {}, allowed: a table", value.get_ref().type_str());
        self.fault(value.span().start, &path, message);
        None
    }

    /// Every key must be in `keys` or `more`.
    pub(super) fn only(&mut self, table: &Table<'_>, keys: &[&str], more: &[&str]) {
        const ELSEWHERE: [&str; 14] = [
            "application",
            "bearer",
            "black_after",
            "clipped_after",
            "after_loss",
            "credential",
            "device",
            "dialect",
            "frozen_after",
            "path",
            "silent_after",
            "stream",
            "trickle",
            "username",
        ];
        let known = || keys.iter().chain(more).copied();
        for (key, _) in table.entries {
            let name = key.get_ref().as_ref();
            if known().any(|k| k == name) {
                continue;
            }
            let what = if ELSEWHERE.contains(&name) {
                "means nothing here"
            } else {
                "is no known key"
            };
            let list = known().collect::<Vec<_>>().join(", ");
            let message = format!("{what}; allowed: {list}");
            self.fault(key.span().start, &table.key(&shortened(name)), message);
            self.suggest(nearest(name, known()));
        }
    }

    pub(super) fn required<T>(
        &mut self,
        table: &Table<'_>,
        name: &str,
        read: impl Fn(&DeValue<'_>) -> Read<T>,
    ) -> Option<T> {
        if table.entries.contains_key(name) {
            return self.optional(table, name, None, |v| read(v).map(Some));
        }
        // What is allowed is what the reader says of a value that no key may have.
        let allowed = read(&DeValue::Array(DeArray::new()))
            .err()
            .unwrap_or_default();
        let message = format!("is missing; it must be {allowed}");
        self.fault(table.at, &table.key(name), message);
        None
    }

    pub(super) fn optional<T>(
        &mut self,
        table: &Table<'_>,
        name: &str,
        default: T,
        read: impl Fn(&DeValue<'_>) -> Read<T>,
    ) -> T {
        let Some(value) = table.entries.get(name) else {
            return default;
        };
        match read(value.get_ref()) {
            Ok(read) => read,
            Err(allowed) => {
                let message = format!("found {}, allowed: {allowed}", shown(value.get_ref()));
                self.fault(value.span().start, &table.key(name), message);
                if let Some(word) = value.get_ref().as_str() {
                    // Of what is allowed, words can be mistyped; a description of it cannot.
                    let words = allowed.split(", ").filter(|allowed| !allowed.contains(' '));
                    self.suggest(nearest(word, words));
                }
                default
            }
        }
    }

    pub(super) fn fault(&mut self, at: usize, key: &str, message: String) {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        self.faults.push(Fault {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            key: key.to_owned(),
            message,
            suggestion: None,
        });
    }

    /// Adds a suggestion to the latest fault.
    pub(super) fn suggest(&mut self, word: Option<String>) {
        if let Some(fault) = self.faults.last_mut() {
            fault.suggestion = word;
        }
    }
}

pub(super) fn text(value: &DeValue<'_>) -> Read<String> {
    match value.as_str() {
        Some(text) if !text.trim().is_empty() => Ok(text.to_owned()),
        _ => Err("a text".to_owned()),
    }
}

pub(super) fn one_of<'w>(value: &DeValue<'_>, words: &[&'w str]) -> Read<&'w str> {
    let word = words.iter().find(|word| value.as_str() == Some(**word));
    word.copied().ok_or_else(|| words.join(", "))
}

pub(super) fn truth(value: &DeValue<'_>) -> Read<bool> {
    value.as_bool().ok_or_else(|| "true, false".to_owned())
}

/// A list of values of one kind.
pub(super) fn each<T>(
    value: &DeValue<'_>,
    allowed: &str,
    read: impl Fn(&DeValue<'_>) -> Option<T>,
) -> Read<Vec<T>> {
    let list = value.as_array().into_iter().flatten();
    let all: Option<Vec<T>> = list.map(|v| read(v.get_ref())).collect();
    let is_list = value.as_array().is_some();
    all.filter(|_| is_list)
        .ok_or_else(|| format!("a list of {allowed}"))
}

pub(super) fn whole<T: TryFrom<i64>>(value: &DeValue<'_>, least: i64, most: i64) -> Read<T> {
    let number = value
        .as_integer()
        .and_then(|i| i64::from_str_radix(i.as_str(), i.radix()).ok())
        .filter(|number| (least..=most).contains(number));
    number
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| format!("a whole number from {least} to {most}"))
}

pub(super) fn quantity<T>(
    value: &DeValue<'_>,
    allowed: &str,
    read: impl Fn(&str) -> Option<T>,
) -> Read<T> {
    value
        .as_str()
        .and_then(read)
        .ok_or_else(|| allowed.to_owned())
}

/// A value as a fault repeats it: short and printable.
fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => quoted(text),
        DeValue::Integer(number) => shortened(number.as_str()),
        DeValue::Float(number) => shortened(number.as_str()),
        DeValue::Boolean(truth) => truth.to_string(),
        DeValue::Array(_) | DeValue::Datetime(_) | DeValue::Table(_) => value.type_str().to_owned(),
    }
}

pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", shortened(text))
}

fn shortened(text: &str) -> String {
    let printable = text.escape_debug().to_string();
    match printable.char_indices().nth(60) {
        Some((at, _)) => format!("{}...", &printable[..at]),
        None => printable,
    }
}

/// The candidate that a typing error away is `word`.
pub(super) fn nearest<'c>(word: &str, candidates: impl Iterator<Item = &'c str>) -> Option<String> {
    // The measure is quadratic in the word's length, and nobody mistypes a word of this length.
    let word = (word.len() <= 64).then_some(word)?;
    candidates
        .map(|candidate| {
            (
                strsim::normalized_damerau_levenshtein(word, candidate),
                candidate,
            )
        })
        .filter(|(likeness, _)| *likeness >= 0.5)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate.to_owned())
}
