//! The keys of a publisher whose stream is started and stopped at a vendor's control plane.

use toml::de::DeValue;

use super::publisher::KEYS;
use super::read::{Read, Reader, Table, one_of, quantity, text, truth, whole};
use crate::config::platform::{BROADCAST_LOCATIONS, Create, OnExit, Platform, StreamRef, Vendor};
use crate::config::secret::Secret;
use crate::config::{Server, units};

/// What every platform needs.
pub(super) const PLATFORM: [&str; 5] = [
    "api",
    "stream_id",
    "stream_name",
    "on_exit",
    "daily_minutes",
];
/// What only Wowza Video needs.
pub(super) const WOWZA_VIDEO: [&str; 3] = ["token", "create", "dialect"];
/// What only Qencode needs.
pub(super) const QENCODE: [&str; 2] = ["api_key", "callback_url"];
/// Longest name or identifier of a stream; Wowza allows 200 characters.
const NAME_MAX: usize = 200;
/// Minutes of a day.
const DAY: i64 = 24 * 60;

impl Reader<'_> {
    pub(super) fn wowza_video(&mut self, table: &Table<'_>) -> Option<Server> {
        self.only(table, &KEYS, &[PLATFORM.as_slice(), &WOWZA_VIDEO].concat());
        let create = self.table(table, "create");
        let create = create.map(|table| self.create(&table));
        let named = table.entries.contains_key("stream_name");
        if create.is_some() && !named {
            let message = "makes the stream when there is none of its name; \
                give stream_name instead of stream_id";
            let at = table
                .entries
                .get("create")
                .map_or(table.at, |v| v.span().start);
            self.fault(at, &table.key("create"), message.to_owned());
        }
        let vendor = Vendor::WowzaVideo {
            dialect: self.dialect(table),
            create: create.flatten(),
        };
        self.platform(table, "token", vendor)
    }

    pub(super) fn qencode(&mut self, table: &Table<'_>) -> Option<Server> {
        self.only(
            table,
            &KEYS,
            &[PLATFORM.as_slice(), &QENCODE, &["url"]].concat(),
        );
        if !table.entries.contains_key("api_key") {
            let message = "is missing; it must be the key of the project at Qencode (or give url, \
                as a start call returned it)";
            self.fault(table.at, &table.key("api_key"), message.to_owned());
            return None;
        }
        let callback_url = match table.entries.contains_key("callback_url") {
            true => self.url_in(table, "callback_url", ["http", "https"]),
            false => None,
        };
        self.platform(table, "api_key", Vendor::Qencode { callback_url })
    }

    fn platform(&mut self, table: &Table<'_>, secret: &str, vendor: Vendor) -> Option<Server> {
        let credential = self.bearer(table, secret);
        let api = match table.entries.contains_key("api") {
            true => self.url_in(table, "api", ["http", "https"])?,
            false => Secret::new(vendor.default_api()),
        };
        let on_exit = self.optional(table, "on_exit", OnExit::Stop, |v| {
            Ok(match one_of(v, &["leave", "stop"])? {
                "leave" => OnExit::Leave,
                _ => OnExit::Stop,
            })
        });
        let daily_minutes =
            self.optional(table, "daily_minutes", None, |v| whole(v, 1, DAY).map(Some));
        let stream = self.stream(table);
        Some(Server::Platform(Box::new(Platform {
            vendor,
            credential: credential?,
            api: Secret::new(api.expose().trim_end_matches('/')),
            stream: stream?,
            on_exit,
            daily_minutes,
        })))
    }

    fn stream(&mut self, table: &Table<'_>) -> Option<StreamRef> {
        let has = |name| table.entries.contains_key(name);
        match (has("stream_id"), has("stream_name")) {
            (true, false) => self.required(table, "stream_id", id).map(StreamRef::Id),
            (false, true) => self
                .required(table, "stream_name", name)
                .map(StreamRef::Name),
            (both, _) => {
                let message = match both {
                    true => "is given beside stream_name; one of them names the stream",
                    false => "is missing; give the stream's id, or its name as stream_name",
                };
                self.fault(table.at, &table.key("stream_id"), message.to_owned());
                None
            }
        }
    }

    fn create(&mut self, table: &Table<'_>) -> Option<Create> {
        const KEYS: [&str; 7] = [
            "broadcast_location",
            "transcoder_type",
            "billing_mode",
            "size",
            "low_latency",
            "recording",
            "reference_id",
        ];
        self.only(table, &KEYS, &[]);
        let location = self.required(table, "broadcast_location", |v| {
            one_of(v, &BROADCAST_LOCATIONS)
        });
        let default = Create::at(location.unwrap_or_default());
        let create = Create {
            transcoder_type: self.optional(
                table,
                "transcoder_type",
                default.transcoder_type,
                |v| one_of(v, &["passthrough", "transcoded"]).map(str::to_owned),
            ),
            billing_mode: self.optional(table, "billing_mode", default.billing_mode, |v| {
                one_of(v, &["pay_as_you_go", "twentyfour_seven"]).map(str::to_owned)
            }),
            size: self.optional(table, "size", default.size, |v| {
                let allowed = "WIDTHxHEIGHT, both even and from 64 to 4096, such as \"1280x720\"";
                quantity(v, allowed, units::size)
            }),
            low_latency: self.optional(table, "low_latency", default.low_latency, truth),
            recording: self.optional(table, "recording", default.recording, truth),
            reference_id: self.optional(table, "reference_id", None, |v| name(v).map(Some)),
            broadcast_location: default.broadcast_location,
        };
        location.map(|_| create)
    }
}

/// An identifier stands in a path.
fn id(value: &DeValue<'_>) -> Read<String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    text(value)
        .ok()
        .filter(|id| id.len() <= NAME_MAX && id.chars().all(fits))
        .ok_or_else(|| "letters, digits, - and _, up to 200".to_owned())
}

fn name(value: &DeValue<'_>) -> Read<String> {
    text(value)
        .ok()
        .filter(|name| name.chars().count() <= NAME_MAX && !name.chars().any(char::is_control))
        .ok_or_else(|| "a text of up to 200 characters".to_owned())
}
