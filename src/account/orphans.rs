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

/// Stops each stream that the ledger says onair started and that no publisher of `publishers` names, with the
/// credential of one at the same vendor. Ends when none is left that can be stopped; may be dropped at any time.
pub async fn stop_orphans(account: &Account, publishers: &BTreeMap<String, config::Publisher>) {
    let mut said = false;
    loop {
        let orphans = account.orphans(|key| publishers.values().any(|p| names(p, key)));
        let mut left = false;
        for orphan in &orphans {
            let of_vendor = publishers.values().filter_map(|publisher| {
                let config = platform_of(publisher)?;
                (key(config, &orphan.id) == *orphan).then_some((publisher, config))
            });
            let all: Vec<_> = of_vendor.collect();
            let Some((publisher, config)) = all.first() else {
                if !said {
                    tracing::error!(
                        "onair started the stream {} at {} and cannot stop it, for no publisher has a credential for \
                         it any more; stop it at the vendor's, it goes on costing",
                        orphan.id,
                        orphan.vendor
                    );
                }
                continue;
            };
            let names: Vec<&StreamRef> = all.iter().map(|(_, config)| &config.stream).collect();
            match stop(account, publisher, config, &names, orphan).await {
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

async fn stop(
    account: &Account,
    publisher: &config::Publisher,
    config: &Config,
    wanted: &[&StreamRef],
    orphan: &Key,
) -> Result<(), Error> {
    let connected = platform::connect(config, publisher, account.pace());
    let mut platform = connected.map_err(|source| Error::Connect {
        vendor: config.vendor.name(),
        call: platform::Call::Stop,
        source: source.into(),
    })?;
    let shown = match platform.show(&orphan.id).await {
        Err(error) if error.is_gone() => None,
        shown => Some(shown?),
    };
    if let Some(shown) = shown {
        let by_name =
            |named: &&StreamRef| matches!(named, StreamRef::Name(name) if *name == shown.name);
        if wanted.iter().any(by_name) {
            // Its publisher takes it over.
            return Ok(());
        }
        if shown.state != State::Stopped {
            platform.stop(&orphan.id).await?;
            tracing::info!(
                "stopped the stream {} at {}, which onair had started and nobody wants any more",
                orphan.id,
                orphan.vendor
            );
        }
    }
    let wall = account.wall();
    account
        .write(|ledger| ledger.stopped(orphan, false, wall))
        .await;
    Ok(())
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
