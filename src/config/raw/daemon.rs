//! The table `[daemon]`: what concerns the process as a whole.

use std::net::SocketAddr;

use super::read::{Reader, Table, quantity, text, truth};
use crate::config::{Daemon, Recorder, Status, units};

/// Fewest characters of a status token: what can be guessed protects nothing.
const TOKEN_MIN: usize = 16;

impl Reader<'_> {
    pub(super) fn daemon(&mut self, root: &Table<'_>) -> Daemon {
        let Some(table) = self.table(root, "daemon") else {
            return Daemon::default();
        };
        self.only(&table, &["state_dir", "recorder", "status"], &[]);
        let state_dir = self.optional(&table, "state_dir", None, |v| text(v).map(Some));
        let status = self.table(&table, "status");
        let recorder = self.table(&table, "recorder");
        Daemon {
            state_dir: state_dir.map(|path| self.env.base.join(path)),
            status: status.map(|table| self.status(&table)).unwrap_or_default(),
            recorder: recorder
                .map(|table| self.recorder(&table))
                .unwrap_or_default(),
        }
    }

    fn recorder(&mut self, table: &Table<'_>) -> Recorder {
        self.only(table, &["size"], &[]);
        let size = self.optional(table, "size", Recorder::default().size, |v| {
            let allowed =
                "an amount with its unit, 1 MiB to 256 MiB, such as \"16 MiB\", or \"off\"";
            quantity(v, allowed, |text| match text {
                "off" => Some(None),
                _ => units::bytes(text)
                    .filter(|size| (1 << 20..=256 << 20).contains(size))
                    .map(Some),
            })
        });
        Recorder { size }
    }

    fn status(&mut self, table: &Table<'_>) -> Status {
        self.only(table, &["listen", "picture", "token"], &[]);
        let before = self.faults.len();
        let listen = self.optional(table, "listen", Some(Status::LISTEN), |v| {
            let address: Option<SocketAddr> = v.as_str().and_then(|text| text.parse().ok());
            match v.as_str() {
                Some("off") => Ok(None),
                _ => address.map(Some).ok_or_else(|| {
                    "an IP address with its port, such as \"127.0.0.1:9810\", or \"off\"".to_owned()
                }),
            }
        });
        let token = match table.entries.contains_key("token") {
            true => self.token(table),
            false => None,
        };
        if let Some(address) = listen
            && !address.ip().is_loopback()
            && token.is_none()
            && self.faults.len() == before
        {
            let at = table
                .entries
                .get("listen")
                .map_or(table.at, |v| v.span().start);
            let message = format!(
                "{address} can be reached from other hosts: give a `token` too, or listen on 127.0.0.1"
            );
            self.fault(at, &table.key("listen"), message);
        }
        Status {
            picture: self.optional(table, "picture", token.is_some(), truth),
            listen,
            token,
        }
    }

    fn token(&mut self, table: &Table<'_>) -> Option<crate::config::secret::Secret> {
        let written = self.secret(table, "token")?;
        let token = written.secret.expose();
        let wrong = if token.len() < TOKEN_MIN {
            format!("is too short to protect anything; allowed: at least {TOKEN_MIN} characters")
        } else if token.chars().any(|c| !c.is_ascii_graphic()) {
            "holds a character that no token has".to_owned()
        } else {
            return Some(written.secret);
        };
        if written.known {
            self.fault(written.at, &table.key("token"), wrong);
            return None;
        }
        Some(written.secret)
    }
}
