//! The kernel's word on links, addresses and routes (rtnetlink(7)): read whole, and read again after any news.
//!
//! News are not applied one by one: what they say can be read as a whole for less than it takes to get that right.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt, TryStreamExt};
use rtnetlink::packet_core::NetlinkMessage;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::AddressMessage;
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::{Handle, MulticastGroup, RouteMessageBuilder, new_multicast_connection};
use tokio::time::{Instant, sleep_until, timeout};

use super::Network;
use super::bursts::Bursts;
use super::tables::{assembled, is_default};

/// Longest wait for the kernel to tell all of it.
const READ_DEADLINE: Duration = Duration::from_secs(2);
/// What we want to hear of.
const GROUPS: [MulticastGroup; 5] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
];

/// An open conversation with the kernel.
pub(super) struct Netlink {
    /// Moves messages while it is awaited; ends only if the socket does.
    connection: Pin<Box<dyn Future<Output = ()> + Send>>,
    handle: Handle,
    news: Pin<Box<dyn Stream<Item = NetlinkMessage<RouteNetlinkMessage>> + Send>>,
}

impl Netlink {
    /// Opens it, or says why it cannot be opened.
    pub(super) fn open() -> Result<Self, String> {
        let (connection, handle, news) =
            new_multicast_connection(&GROUPS).map_err(|e| format!("no netlink socket: {e}"))?;
        Ok(Self {
            connection: Box::pin(connection),
            handle,
            news: Box::pin(news.map(|(message, _)| message)),
        })
    }

    /// Reads the whole state, or says why it cannot be read.
    pub(super) async fn read(&mut self) -> Result<Network, String> {
        let mut unheard = Bursts::new(Instant::now().into_std());
        self.look(&mut unheard).await
    }

    /// Tells the state now and after each burst of news, until it says why it cannot go on.
    pub(super) async fn follow(&mut self, mut tell: impl FnMut(Network)) -> String {
        loop {
            // What is heard while we look may have come too late for the look.
            let mut bursts = Bursts::new(Instant::now().into_std());
            match self.look(&mut bursts).await {
                Ok(network) => tell(network),
                Err(why) => return why,
            }
            loop {
                tokio::select! {
                    () = &mut self.connection => return closed(),
                    news = self.news.next() => match news {
                        Some(_) => bursts.note(Instant::now().into_std()),
                        None => return closed(),
                    },
                    () = sleep_until(bursts.due().into()) => break,
                }
            }
        }
    }

    async fn look(&mut self, bursts: &mut Bursts) -> Result<Network, String> {
        let reading = timeout(READ_DEADLINE, dump(&self.handle));
        tokio::pin!(reading);
        loop {
            tokio::select! {
                read = &mut reading => return read.map_err(|_| {
                    format!("netlink gave no answer for {} s", READ_DEADLINE.as_secs())
                })?,
                () = &mut self.connection => return Err(closed()),
                news = self.news.next() => match news {
                    Some(_) => bursts.note(Instant::now().into_std()),
                    None => return Err(closed()),
                },
            }
        }
    }
}

fn closed() -> String {
    "the netlink socket was closed".to_owned()
}

async fn dump(handle: &Handle) -> Result<Network, String> {
    let told = |e: rtnetlink::Error| format!("netlink: {e}");
    let links: Vec<LinkMessage> = handle
        .link()
        .get()
        .execute()
        .try_collect()
        .await
        .map_err(told)?;
    let addresses: Vec<AddressMessage> = handle
        .address()
        .get()
        .execute()
        .try_collect()
        .await
        .map_err(told)?;
    let mut routes = Vec::new();
    for message in [
        RouteMessageBuilder::<Ipv4Addr>::new().build(),
        RouteMessageBuilder::<Ipv6Addr>::new().build(),
    ] {
        // A router's table may be long; of it we keep the few default routes.
        let mut told_routes = Box::pin(handle.route().get(message).execute());
        while let Some(route) = told_routes.try_next().await.map_err(told)? {
            if is_default(&route) {
                routes.push(route);
            }
        }
    }
    Ok(assembled(&links, &addresses, &routes))
}
