//! Lists at Wowza Video: filters and pages.
//!
//! Pure.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::json;

/// Streams to a page, unless asked for otherwise, and at most.
const PAGE: usize = 20;
const PAGE_MOST: usize = 1_000;

/// The page of `streams` that the query asks for.
pub(super) fn listed(
    parameters: &[(String, String)],
    streams: impl Iterator<Item = Value>,
) -> Value {
    let number = |name: &str| {
        let found = parameters.iter().find(|(of, _)| of == name);
        found.and_then(|(_, value)| value.parse::<usize>().ok())
    };
    let per_page = number("per_page").unwrap_or(PAGE).clamp(1, PAGE_MOST);
    let page = number("page").unwrap_or(1).max(1);
    let filters = filters(parameters);
    let streams: Vec<Value> = streams
        .filter(|stream| filters.iter().all(|filter| filter.lets(stream)))
        .collect();
    let first = (page - 1).saturating_mul(per_page);
    let total = streams.len();
    let last = first.saturating_add(per_page).min(total);
    let shown: Vec<Value> = streams.into_iter().skip(first).take(per_page).collect();
    json!({
        "live_streams": shown,
        "pagination": {
            "payload_version": "1.0",
            "total_records": total,
            "page": page,
            "per_page": per_page,
            "total_pages": total.div_ceil(per_page),
            "page_first_index": first,
            "page_last_index": last.saturating_sub(1),
        },
    })
}

/// One `filter[N]`: a field, and how its value has to be.
#[derive(Debug, Default)]
struct Filter {
    field: String,
    operator: String,
    value: String,
}

impl Filter {
    fn lets(&self, stream: &Value) -> bool {
        let Some(found) = stream.get(&self.field).and_then(Value::as_str) else {
            return false;
        };
        match &*self.operator {
            "eq" => found == self.value,
            "ne" => found != self.value,
            "like" => found.contains(&*self.value),
            "in" => self.value.split(',').any(|value| value == found),
            _ => false,
        }
    }
}

/// The filters of a query, by their numbers.
fn filters(parameters: &[(String, String)]) -> Vec<Filter> {
    let mut filters: BTreeMap<&str, Filter> = BTreeMap::new();
    for (name, value) in parameters {
        let Some(rest) = name.strip_prefix("filter[") else {
            continue;
        };
        let Some((number, what)) = rest.split_once("][") else {
            continue;
        };
        let filter = filters.entry(number).or_default();
        match what.strip_suffix(']') {
            Some("field") => filter.field.clone_from(value),
            Some(operator) => {
                operator.clone_into(&mut filter.operator);
                filter.value.clone_from(value);
            }
            None => {}
        }
    }
    filters.into_values().collect()
}
