//! TCP to a name: all its addresses, raced with head starts (RFC 8305).

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::target::Endpoint;
use super::{Error, Step, failed, within};

/// Longest wait for the name service.
const DNS_DEADLINE: Duration = Duration::from_secs(5);
/// Longest wait for TCP, over all addresses.
const TCP_DEADLINE: Duration = Duration::from_secs(10);
/// Head start of each address over the next one (RFC 8305, section 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// Addresses tried of one name; a hostile name service must not make us open sockets without end.
const ADDRESSES_MAX: usize = 16;

/// Looks up the name and connects to the first address that answers.
pub(super) async fn connect(endpoint: &Endpoint) -> Result<TcpStream, Error> {
    let addresses = resolve(endpoint).await?;
    let stream = race(endpoint, addresses).await?;
    // Handshakes are a few small messages in each direction; delaying them gains nothing.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
    Ok(stream)
}

async fn resolve(endpoint: &Endpoint) -> Result<Vec<SocketAddr>, Error> {
    let found = within(endpoint, Step::Dns, DNS_DEADLINE, async {
        tokio::net::lookup_host((endpoint.bare_host(), endpoint.port))
            .await
            .map_err(|e| failed(endpoint, Step::Dns, e.to_string(), Some(e)))
    })
    .await?;
    let addresses = interleave(found.take(ADDRESSES_MAX).collect());
    if addresses.is_empty() {
        let why = "the name has no address".to_owned();
        return Err(failed(endpoint, Step::Dns, why, None));
    }
    Ok(addresses)
}

/// Address families in turns, the resolver's favourite first, so that one broken family costs one head start.
pub(super) fn interleave(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (a, b): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == first_is_v6);
    let (mut a, mut b) = (a.into_iter(), b.into_iter());
    let mut mixed = Vec::new();
    loop {
        let (x, y) = (a.next(), b.next());
        if x.is_none() && y.is_none() {
            return mixed;
        }
        mixed.extend(x.into_iter().chain(y));
    }
}

pub(super) async fn race(
    endpoint: &Endpoint,
    addresses: Vec<SocketAddr>,
) -> Result<TcpStream, Error> {
    let tried = addresses.len();
    within(endpoint, Step::Tcp, TCP_DEADLINE, async {
        let mut attempts = JoinSet::new();
        let mut delay = Duration::ZERO;
        for address in addresses {
            attempts.spawn(async move {
                tokio::time::sleep(delay).await;
                TcpStream::connect(address).await
            });
            delay += ATTEMPT_DELAY;
        }
        let mut last = None;
        // Dropping the set ends the attempts that lost the race.
        while let Some(attempt) = attempts.join_next().await {
            match attempt {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = Some(error),
                Err(error) => last = Some(io::Error::other(error)),
            }
        }
        let cause = last.as_ref().map_or_else(String::new, ToString::to_string);
        let why = format!("{cause} ({tried} address(es) tried)");
        Err(failed(endpoint, Step::Tcp, why, last))
    })
    .await
}
