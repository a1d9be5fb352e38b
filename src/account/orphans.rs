//! What a former onair started and no publisher wants any more is stopped.

use std::collections::BTreeMap;
use std::time::Duration;

use super::lease::key;
use super::ledger::Key;
use super::{Account, Orphaned, STALE_FOR};
use crate::config::platform::{Platform as Config, StreamRef};
use crate::config::{self, Server};
use crate::platform::{self, Error, Platform, State};

/// Interval at which a stop that did not succeed is tried again.
const AGAIN: Duration = Duration::from_secs(60);

/// Stops each stream that the ledger says onair started and that no publisher of `wanted` names, with the credentials
/// of these and of `others`, as far as they are for the same interface. Ends when none is left that can be stopped; may
/// be dropped at any time.
pub async fn stop_orphans(
    account: &Account,
    wanted: &BTreeMap<String, config::Publisher>,
    others: &[config::Publisher],
) {
    let mut said = false;
    loop {
        let orphans = account.orphans(|key| wanted.values().any(|p| names(p, key)));
        let mut left = false;
        let mut orphaned = Orphaned::new();
        for orphan in &orphans {
            let stopped = stop(account, wanted, others, orphan).await;
            if let Some(why) = unstopped(&stopped) {
                let who = format!("stream {} at {}", orphan.id, orphan.vendor);
                orphaned.insert(who, why);
            }
            match stopped {
                Ok(Found::Nothing | Found::Rests | Found::Wanted) => {}
                Ok(Found::MayComeUp) => left = true,
                // It would say the same in a minute.
                Ok(Found::Nobody) if said => {}
                Ok(Found::Nobody) => tracing::error!(
                    "onair started the stream {} at {} and cannot stop it, for no publisher has a credential for \
                     it any more; stop it at the vendor's, it goes on costing",
                    orphan.id,
                    orphan.vendor
                ),
                Err(error) => {
                    tracing::warn!(
                        "the stream {}, which onair had started, is not stopped yet: {error}",
                        orphan.id
                    );
                    left = true;
                }
            }
        }
        account.shared.orphaned.send_replace(orphaned);
        if !left {
            return;
        }
        said = true;
        tokio::time::sleep(account.scaled(AGAIN)).await;
    }
}

/// What is said of an orphan for as long as it is one.
fn unstopped(stopped: &Result<Found, Error>) -> Option<String> {
    match stopped {
        Ok(Found::MayComeUp | Found::Nothing | Found::Rests | Found::Wanted) => None,
        Ok(Found::Nobody) => Some(
            "onair started it and nobody wants it any more, but no publisher has a credential for it, so it may go on \
             costing; stop it at the vendor's, or configure a publisher with that credential"
                .to_owned(),
        ),
        Err(error) => Some(format!(
            "onair started it and nobody wants it any more, but it is not stopped yet and may go on costing: {error}"
        )),
    }
}

/// What became of an orphan.
enum Found {
    /// It rests, but a start of it may still take effect.
    MayComeUp,
    /// Nobody has a credential for its interface.
    Nobody,
    /// There is no such stream for any credential.
    Nothing,
    /// It rests.
    Rests,
    /// A publisher wants it after all.
    Wanted,
}

/// One who may ask its interface for an orphan.
struct Holder {
    platform: Box<dyn Platform>,
    /// The name of the stream that a publisher wants with this credential.
    wants: Option<String>,
}

/// Stops it by whoever can. Two accounts may have a stream of one name, so only whose credential sees the orphan can
/// want it; and only if there is no such stream in any of the accounts, there is none.
async fn stop(
    account: &Account,
    wanted: &BTreeMap<String, config::Publisher>,
    others: &[config::Publisher],
    orphan: &Key,
) -> Result<Found, Error> {
    let mut holders = Vec::new();
    for (publisher, is_wanted) in (wanted.values().map(|p| (p, true)))
        .chain(others.iter().map(|publisher| (publisher, false)))
    {
        let Some(config) = platform_of(publisher).filter(|c| key(c, &orphan.id) == *orphan) else {
            continue;
        };
        let connected = platform::connect(config, publisher, account.pace());
        let platform = connected.map_err(|source| Error::Connect {
            vendor: config.vendor.name(),
            call: platform::Call::Stop,
            source: source.into(),
        })?;
        let wants = match &config.stream {
            StreamRef::Name(name) if is_wanted => Some(name.clone()),
            StreamRef::Id(_) | StreamRef::Name(_) => None,
        };
        holders.push(Holder { platform, wants });
    }
    if holders.is_empty() {
        return Ok(Found::Nobody);
    }
    let mut seen = Vec::new();
    let mut failed = None;
    for mut holder in holders {
        match holder.platform.show(&orphan.id).await {
            Ok(shown) if holder.wants.as_ref() == Some(&shown.name) => return Ok(Found::Wanted),
            Ok(shown) => seen.push((holder, shown.state)),
            Err(error) if error.is_gone() => {}
            Err(error) => failed = Some(error),
        }
    }
    for (holder, state) in seen {
        match stop_by(account, holder, state, orphan).await {
            Err(error) => failed = Some(error),
            found => return found,
        }
    }
    match failed {
        Some(error) => Err(error),
        None => {
            rests(account, orphan).await;
            Ok(Found::Nothing)
        }
    }
}

async fn stop_by(
    account: &Account,
    mut holder: Holder,
    state: State,
    orphan: &Key,
) -> Result<Found, Error> {
    let mut obeyed = false;
    if state != State::Stopped {
        obeyed = holder.platform.stop(&orphan.id).await?.obeyed;
        tracing::info!(
            "stopped the stream {} at {}, which onair had started and nobody wants any more",
            orphan.id,
            orphan.vendor
        );
    }
    let wall = account.wall();
    let in_doubt = (account.read(|ledger| ledger.in_doubt_for(orphan, wall)))
        .is_some_and(|since| since < account.scaled(STALE_FOR));
    // A start that was asked for a moment ago may still take effect, unless it is what was stopped here.
    if in_doubt && !obeyed {
        return Ok(Found::MayComeUp);
    }
    rests(account, orphan).await;
    Ok(Found::Rests)
}

async fn rests(account: &Account, orphan: &Key) {
    let wall = account.wall();
    account
        .write(|ledger| ledger.stopped(orphan, false, wall))
        .await;
}

fn platform_of(publisher: &config::Publisher) -> Option<&Config> {
    match &publisher.server {
        Server::Platform(config) => Some(config),
        Server::Ome { .. }
        | Server::Qencode { .. }
        | Server::Whip { .. }
        | Server::Wowza { .. } => None,
    }
}

/// Whether the publisher names this stream by its identifier.
fn names(publisher: &config::Publisher, orphan: &Key) -> bool {
    platform_of(publisher).is_some_and(|config| match &config.stream {
        StreamRef::Id(id) => key(config, id) == *orphan,
        StreamRef::Name(_) => false,
    })
}
