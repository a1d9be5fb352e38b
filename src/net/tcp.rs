//! TCP to a name: all its addresses, raced with head starts (RFC 8305).

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::target::Endpoint;
use super::{Error, Step, failed, within};

/// Longest wait for the name service.
const DNS_DEADLINE: Duration = Duration::from_secs(5);
/// Longest wait for TCP, over all addresses.
const TCP_DEADLINE: Duration = Duration::from_secs(10);
/// Bytes that the kernel may hold beyond those on their way: a third of a second at 200 kbit/s, and at 50 Mbit/s time
/// enough to bring more.
const UNSENT: u32 = 8 * 1024;
/// Head start of each address over the next one (RFC 8305, section 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// Where the operator sets who is asked for names. We keep no answers; the system's resolver is asked each time.
const RESOLVER: &str = "/etc/resolv.conf";
/// Addresses tried of one name; a hostile name service must not make us open sockets without end.
const ADDRESSES_MAX: usize = 16;

/// Looks up the name and connects to the first address that answers.
pub(super) async fn connect(endpoint: &Endpoint) -> Result<TcpStream, Error> {
    let addresses = resolve(endpoint).await?;
    let stream = race(endpoint, addresses, TcpStream::connect).await?;
    // Handshakes are a few small messages in each direction; delaying them gains nothing.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
    keep_shallow(&stream);
    Ok(stream)
}

/// Lets the kernel hold little of what is not sent yet. By itself it would hold seconds of media on a narrow path, unseen
/// by those who are to send less then.
pub(crate) fn keep_shallow(stream: &TcpStream) {
    if let Err(error) = SockRef::from(stream).set_tcp_notsent_lowat(UNSENT) {
        tracing::debug!(%error, "TCP_NOTSENT_LOWAT could not be set");
    }
}

async fn resolve(endpoint: &Endpoint) -> Result<Vec<SocketAddr>, Error> {
    let unanswered = |why: String, source| {
        let why = format!("{why} (name servers: see {RESOLVER})");
        failed(endpoint, Step::Dns, why, source)
    };
    let lookup = tokio::net::lookup_host((endpoint.bare_host(), endpoint.port));
    let found = timeout(DNS_DEADLINE, lookup)
        .await
        .map_err(|_| unanswered(format!("no answer for {} s", DNS_DEADLINE.as_secs()), None))?
        .map_err(|e| unanswered(e.to_string(), Some(e)))?;
    let addresses = interleave(found.take(ADDRESSES_MAX).collect());
    if addresses.is_empty() {
        let why = "the name has no address".to_owned();
        return Err(failed(endpoint, Step::Dns, why, None));
    }
    Ok(addresses)
}

/// Address families in turns, the resolver's favourite first, so that one broken family costs one head start.
fn interleave(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
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

/// One attempt after the other, each next one when the last has failed or its head start is over; the first
/// connection wins and ends the others.
async fn race<T, F>(
    endpoint: &Endpoint,
    addresses: Vec<SocketAddr>,
    attempt: impl Fn(SocketAddr) -> F,
) -> Result<T, Error>
where
    T: Send + 'static,
    F: Future<Output = io::Result<T>> + Send + 'static,
{
    let n_tried = addresses.len();
    within(endpoint, Step::Tcp, TCP_DEADLINE, async {
        let mut waiting = addresses.into_iter();
        let mut attempts = JoinSet::new();
        let mut last = None;
        loop {
            match waiting.next() {
                Some(address) => _ = attempts.spawn(attempt(address)),
                None if attempts.is_empty() => break,
                None => {}
            }
            let head_start = match waiting.len() {
                0 => TCP_DEADLINE,
                _ => ATTEMPT_DELAY,
            };
            let ended = match timeout(head_start, attempts.join_next()).await {
                Ok(Some(ended)) => ended.unwrap_or_else(|e| Err(io::Error::other(e))),
                Ok(None) | Err(_) => continue,
            };
            match ended {
                Ok(stream) => return Ok(stream),
                Err(error) => last = Some(error),
            }
        }
        let cause = last.as_ref().map_or_else(String::new, ToString::to_string);
        let why = format!("{cause} ({n_tried} address(es) tried)");
        Err(failed(endpoint, Step::Tcp, why, last))
    })
    .await
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpSocket};
    use tokio::time::{Instant, sleep};

    use super::*;

    fn endpoint() -> Endpoint {
        Endpoint::new("tcp", "localhost", 9)
    }

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|a| a.parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns() {
        let mixed = |texts: &[&str]| interleave(addresses(texts));
        assert_eq!(
            mixed(&["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1"]),
            addresses(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "[::3]:1"])
        );
        assert!(interleave(Vec::new()).is_empty());
    }

    /// Each address answers after its port in milliseconds; an even one fails.
    async fn answered(ports: &[u16]) -> (Result<u16, Error>, Duration) {
        let begin = Instant::now();
        let addresses = ports.iter().map(|p| SocketAddr::from(([127, 0, 0, 1], *p)));
        let attempt = |address: SocketAddr| async move {
            sleep(Duration::from_millis(address.port().into())).await;
            match address.port() % 2 {
                0 => Err(io::ErrorKind::ConnectionRefused.into()),
                _ => Ok(address.port()),
            }
        };
        let result = race(&endpoint(), addresses.collect(), attempt).await;
        (result, begin.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_address_costs_one_head_start() {
        let (won, after) = answered(&[60_001, 31]).await;
        assert_eq!((won.unwrap(), after.as_millis()), (31, 281));
        // The first goes on while others are tried.
        let (won, after) = answered(&[501, 60_001]).await;
        assert_eq!((won.unwrap(), after.as_millis()), (501, 501));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_attempt_starts_the_next_at_once() {
        let (won, after) = answered(&[10, 20, 5]).await;
        assert_eq!((won.unwrap(), after.as_millis()), (5, 35));
        // Also while an older one is still going on.
        let (won, after) = answered(&[60_001, 40, 7]).await;
        assert_eq!((won.unwrap(), after.as_millis()), (7, 297));
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_cause_is_told_when_all_have_failed() {
        let (lost, after) = answered(&[10, 300]).await;
        let told = lost.unwrap_err().to_string();
        assert!(
            told.contains("connection refused (2 address(es) tried)"),
            "{told}"
        );
        assert_eq!(after.as_millis(), 310);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_everywhere_ends_after_ten_seconds() {
        let (lost, after) = answered(&[60_001, 60_003, 60_005]).await;
        let told = lost.unwrap_err().to_string();
        assert_eq!(
            told,
            "tcp://localhost:9: connecting over TCP took longer than 10 s"
        );
        assert_eq!(after, TCP_DEADLINE);
    }

    #[tokio::test]
    async fn a_black_hole_over_one_family_leaves_the_other() {
        // A port whose queue of connections is full answers no further one.
        let hole = TcpSocket::new_v6().unwrap();
        if let Err(error) = hole.bind("[::1]:0".parse().unwrap()) {
            assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
            println!("skipped: this machine has no IPv6 loopback address");
            return;
        }
        let hole = hole.listen(1).unwrap();
        let black = hole.local_addr().unwrap();
        let mut queue = Vec::new();
        while let Ok(stream) = timeout(Duration::from_millis(200), TcpStream::connect(black)).await
        {
            queue.push(stream.unwrap());
            assert!(queue.len() < 100, "the queue does not fill");
        }
        let open = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let bright = open.local_addr().unwrap();
        let stream = race(&endpoint(), vec![black, bright], TcpStream::connect)
            .await
            .unwrap();
        assert_eq!(stream.peer_addr().unwrap(), bright);
    }

    #[tokio::test]
    async fn an_ipv6_literal_is_dialed_with_and_without_brackets() {
        let Ok(listener) = TcpListener::bind("[::1]:0").await else {
            println!("skipped: this machine has no IPv6 loopback address");
            return;
        };
        let address = listener.local_addr().unwrap();
        for host in ["::1", "[::1]"] {
            let endpoint = Endpoint::new("tcp", host, address.port());
            assert_eq!(endpoint.to_string(), format!("tcp://{address}"));
            let stream = connect(&endpoint).await.unwrap();
            assert_eq!(stream.peer_addr().unwrap(), address);
        }
    }

    #[tokio::test]
    async fn a_name_that_does_not_exist_is_asked_for_again_each_time() {
        for _ in 0..2 {
            let error = connect(&Endpoint::new("tcp", "nobody.invalid", 9))
                .await
                .unwrap_err();
            assert_eq!(error.step(), Some(Step::Dns));
            let told = error.to_string();
            assert!(
                told.starts_with("tcp://nobody.invalid:9: looking up the name"),
                "{told}"
            );
            assert!(told.contains(RESOLVER), "{told}");
        }
    }
}
