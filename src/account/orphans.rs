//! What a former onair started and no publisher wants any more is stopped.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Account;
use super::lease::key;
use super::ledger::Key;
use crate::config::platform::{Platform as Config, StreamRef};
use crate::config::{self, Server};
use crate::platform::{self, Error, State};

/// Interval at which a stop that did not succeed is tried again.
const AGAIN: Duration = Duration::from_secs(60);

/// Stops each stream that the ledger says onair started and that no publisher of `wanted` names, with the credentials
/// of `all` publishers at the same vendor. Ends when none is left that can be stopped; may be dropped at any time.
pub async fn stop_orphans(
    account: &Account,
    wanted: &BTreeMap<String, config::Publisher>,
    all: &BTreeMap<String, config::Publisher>,
) {
    let mut said = false;
    loop {
        let orphans = account.orphans(|key| wanted.values().any(|p| names(p, key)));
        let mut left = false;
        for orphan in &orphans {
            let at_vendor = |publisher: &&config::Publisher| {
                platform_of(publisher).is_some_and(|config| key(config, &orphan.id) == *orphan)
            };
            let names: Vec<&StreamRef> = (wanted.values().filter(at_vendor))
                .filter_map(|publisher| Some(&platform_of(publisher)?.stream))
                .collect();
            let holders: Vec<_> = all.values().filter(at_vendor).collect();
            if holders.is_empty() && !said {
                tracing::error!(
                    "onair started the stream {} at {} and cannot stop it, for no publisher has a credential for \
                     it any more; stop it at the vendor's, it goes on costing",
                    orphan.id,
                    orphan.vendor
                );
            }
            match stop_by_any(account, &holders, &names, orphan).await {
                Ok(()) => {}
                Err(error) => {
                    tracing::warn!(
                        "the stream {}, which onair had started, is not stopped yet: {error}",
                        orphan.id
                    );
                    left = true;
                }
            }
        }
        if !left {
            return;
        }
        said = true;
        tokio::time::sleep(account.scaled(AGAIN)).await;
    }
}

/// Only if there is no such stream in any of the accounts, there is none.
async fn stop_by_any(
    account: &Account,
    holders: &[&config::Publisher],
    wanted: &[&StreamRef],
    orphan: &Key,
) -> Result<(), Error> {
    let mut failed = None;
    for publisher in holders {
        let Some(config) = platform_of(publisher) else {
            continue;
        };
        match stop(account, publisher, config, wanted, orphan).await {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) => failed = Some(error),
        }
    }
    if let Some(error) = failed {
        return Err(error);
    }
    if !holders.is_empty() {
        rests(account, orphan).await;
    }
    Ok(())
}

async fn rests(account: &Account, orphan: &Key) {
    let wall = account.wall();
    account
        .write(|ledger| ledger.stopped(orphan, false, wall))
        .await;
}

/// Stops it with the credential of `publisher`; false if there is no such stream for that.
async fn stop(
    account: &Account,
    publisher: &config::Publisher,
    config: &Config,
    wanted: &[&StreamRef],
    orphan: &Key,
) -> Result<bool, Error> {
    let connected = platform::connect(config, publisher, account.pace());
    let mut platform = connected.map_err(|source| Error::Connect {
        vendor: config.vendor.name(),
        call: platform::Call::Stop,
        source: source.into(),
    })?;
    let shown = match platform.show(&orphan.id).await {
        Err(error) if error.is_gone() => return Ok(false),
        shown => shown?,
    };
    let by_name =
        |named: &&StreamRef| matches!(named, StreamRef::Name(name) if *name == shown.name);
    if wanted.iter().any(by_name) {
        // Its publisher takes it over.
        return Ok(true);
    }
    if shown.state != State::Stopped {
        platform.stop(&orphan.id).await?;
        tracing::info!(
            "stopped the stream {} at {}, which onair had started and nobody wants any more",
            orphan.id,
            orphan.vendor
        );
    }
    rests(account, orphan).await;
    Ok(true)
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
