//! The guard of the account against what the vendors, other agents and other configurations do: vendors that hang or
//! want to be left alone, two agents that want one stream, two accounts, and reloads.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use onair::account::{self, Account, RELEASE_WITHIN};
use onair::config::platform::{Platform, StreamRef};
use onair::config::secret::{Bearer, Secret};
use onair::config::{Config, Daemon, Publisher, Transport};
use onair::health::Judge;
use onair::lab::{Fault, Profile, RestCall, RestFault, Vendor};
use onair::publisher::{Publisher as Running, Snapshot, State, Verdict};
use onair::supervisor::{Overview, Supervisor};

use crate::platform::{PART, World, config, until};
use crate::support::{SOON, small_feed};

const S: Duration = Duration::from_secs(1);

fn silent(call: Option<RestCall>) -> Fault {
    Fault::Rest {
        how: RestFault::Silence,
        times: u32::MAX,
        call,
    }
}

/// How often the lab was asked for this.
fn asked(world: &World, vendor: Vendor, call: RestCall) -> usize {
    let asked = world.lab.asked(vendor);
    asked.iter().filter(|a| a.call == Some(call)).count()
}

/// A publisher on the vendors' real clocks, which the runtime lets pass at once.
fn start_in_real_time(world: &World, platform: &Platform) -> Running {
    let account = Account::open(Some(world.state.path())).expect("a folder");
    let (feed, network) = (world.feed.handle(), world.network.subscribe());
    let config = config(platform.clone());
    Running::start("main", &config, feed, world.clock, network, &account, 1).expect("it starts")
}

fn only(publisher: &Running) -> Overview {
    let seen = publisher.watch().borrow().clone();
    Overview {
        publishers: BTreeMap::from([("main".to_owned(), seen)]),
        ..Overview::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_vendor_that_hangs_makes_nobody_stuck_and_is_asked_seldom() {
    let world = World::new(|_| {}).await;
    for (platform, vendor) in [
        (world.wowza(), Vendor::Wowza),
        (world.qencode(), Vendor::Qencode),
    ] {
        world.lab.faults().commit(None, silent(None));
        let publisher = start_in_real_time(&world, &platform);
        let mut judge = Judge::new(&onair::feed::Budget::default());
        for second in 0..3_600 {
            tokio::time::sleep(S).await;
            let now = tokio::time::Instant::now().into_std();
            let health = judge.look(now, &only(&publisher));
            assert!(health.stuck.is_empty(), "{second} s: {health:?}");
        }
        let asked = world.lab.asked(vendor).len();
        assert!((60..=240).contains(&asked), "{asked} in an hour");
        let began = tokio::time::Instant::now();
        publisher.drain(PART).await;
        assert!(
            began.elapsed() <= S,
            "nothing was started: {:?}",
            began.elapsed()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_waits_for_a_vendor_that_hangs_no_longer_than_the_unit_allows() {
    for wowza in [true, false] {
        let world = World::new(|_| {}).await;
        let (platform, vendor) = match wowza {
            true => (world.wowza(), Vendor::Wowza),
            false => (world.qencode(), Vendor::Qencode),
        };
        let at_start = silent(Some(RestCall::Start));
        world.lab.faults().commit(None, at_start);
        let publisher = start_in_real_time(&world, &platform);
        while asked(&world, vendor, RestCall::Start) == 0 {
            tokio::time::sleep(S / 10).await;
        }
        world.lab.faults().commit(None, silent(None));
        let began = tokio::time::Instant::now();
        publisher.drain(PART).await;
        let took = began.elapsed();
        assert!(took <= PART + RELEASE_WITHIN, "{took:?}");
        let stops = asked(&world, vendor, RestCall::Stop);
        assert!((2..=4).contains(&stops), "{stops} stops");
        assert_eq!(world.written()["ours"], true, "for the next start");
    }
}

/// Waits for as many sessions more.
async fn tries(publisher: &Running, n: u64) {
    let before = publisher.watch().borrow().sessions;
    until(publisher, "tries", |p| p.sessions >= before + n).await;
}

/// Two agents, each with a host and a folder of state of its own, that want one stream.
async fn two_want_one(world: World, platform: Platform, vendor: Vendor) {
    let other = tempfile::tempdir().expect("a folder");
    let accounts = (
        world.account().await,
        world.open_at(other.path()).expect("a folder"),
    );
    let config = config(platform);
    let first = world.start(&config, &accounts.0);
    until(&first, "on air", Snapshot::is_on_air).await;
    let second = world.start(&config, &accounts.1);
    tries(&second, 3).await;
    assert!(first.watch().borrow().is_on_air());
    assert_eq!(world.bill().starts, 1);
    assert_eq!(asked(&world, vendor, RestCall::Stop), 0);

    // Who started it stops it, and who wants it still starts it again: once.
    first.drain(PART).await;
    until(&second, "on air in turn", Snapshot::is_on_air).await;
    assert_eq!(world.bill().starts, 2);
    let stops = asked(&world, vendor, RestCall::Stop);

    // Who comes back finds another's stream, and leaves it as it is when it goes.
    let back = world.start(&config, &accounts.0);
    tries(&back, 2).await;
    back.drain(PART).await;
    assert!(second.watch().borrow().is_on_air() && world.bill().running);
    assert_eq!(world.bill().starts, 2);
    assert_eq!(asked(&world, vendor, RestCall::Stop), stops);
    second.drain(PART).await;
    world.rests().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_agents_that_want_one_stream_of_qencode_do_not_fight_over_it() {
    let world = World::new(|_| {}).await;
    let platform = world.qencode();
    two_want_one(world, platform, Vendor::Qencode).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_agents_that_want_one_stream_of_wowza_do_not_fight_over_it() {
    let world = World::new(|_| {}).await;
    let platform = world.wowza();
    two_want_one(world, platform, Vendor::Wowza).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_stopped_again_and_again_is_no_longer_started() {
    let world = World::new(|_| {}).await;
    let account = world.account().await;
    let publisher = world.start(&config(world.qencode()), &account);
    let given_up = |p: &Snapshot| {
        let State::Waiting {
            verdict: Verdict::Operator { advice, every },
            ..
        } = &p.state
        else {
            return false;
        };
        advice.contains("another onair") && *every >= 100 * S
    };
    let mut stops = 0;
    loop {
        let seen = until(&publisher, "on air, or enough", |p| {
            p.is_on_air() || given_up(p)
        });
        if given_up(&seen.await) {
            break;
        }
        stops += 1;
        assert!(stops <= 3, "it goes on and on: {:?}", world.bill());
        let profile = Some(Profile::Qencode);
        world.lab.faults().commit(profile, Fault::RestStop);
        until(&publisher, "stopped", |p| !p.is_on_air()).await;
    }
    assert_eq!(world.bill().starts, 3);
    publisher.drain(PART).await;
    world.rests().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_accounts_only_the_one_that_sees_a_stream_can_want_it() {
    let stranger = Secret::new("planted-stranger");
    let its = stranger.clone();
    let world = World::new(|rest| rest.wowza_stranger = Some(its)).await;
    let account = world.account().await;
    let owner = config(world.wowza());
    let publisher = world.start(&owner, &account);
    until(&publisher, "on air", Snapshot::is_on_air).await;
    drop((publisher, account));

    // Another account is all that is configured now; it wants a stream of the same name.
    let account = world.account().await;
    let theirs = Platform {
        credential: Bearer {
            token: stranger,
            source: None,
        },
        ..world.wowza()
    };
    let wanted = BTreeMap::from([("main".to_owned(), config(theirs))]);
    let swept = account::stop_orphans(&account, &wanted, &[]);
    assert!(tokio::time::timeout(S, swept).await.is_err());
    assert_eq!(account.orphans(|_| false).len(), 1, "it may not look");
    let why = |account: &Account| {
        account
            .orphaned()
            .borrow()
            .values()
            .cloned()
            .collect::<Vec<_>>()
    };
    let [refused] = &why(&account)[..] else {
        panic!("{:?}", why(&account));
    };
    assert!(refused.contains("is not stopped yet"), "{refused}");
    let nobody = BTreeMap::new();
    account::stop_orphans(&account, &nobody, &[]).await;
    let [lost] = &why(&account)[..] else {
        panic!("{:?}", why(&account));
    };
    assert!(lost.contains("no publisher has a credential"), "{lost}");
    assert!(world.bill().running);
    let former = [owner];
    let swept = account::stop_orphans(&account, &wanted, &former);
    tokio::time::timeout(SOON, swept).await.expect("stopped");
    world.rests().await;
    assert!(account.orphans(|_| false).is_empty());
    assert!(why(&account).is_empty());
}

/// A daemon's supervisor with these publishers of one feed, on the vendors' real clocks.
fn supervise(world: &World, publishers: &[(&str, Publisher)]) -> (Supervisor, Config) {
    let config = Config {
        feeds: BTreeMap::from([("feed".to_owned(), small_feed())]),
        publishers: (publishers.iter())
            .map(|(name, publisher)| ((*name).to_owned(), publisher.clone()))
            .collect(),
        daemon: Daemon {
            state_dir: Some(world.state.path().to_owned()),
            ..Daemon::default()
        },
    };
    let network = world.network.subscribe();
    let agent = Supervisor::start(&config, world.clock, &network, 1).expect("it starts");
    (agent, config)
}

async fn on_air(agent: &Supervisor, name: &str) -> Snapshot {
    let mut watch = agent.view().publishers().remove(name).expect(name);
    let seen = tokio::time::timeout(SOON * 2, watch.wait_for(Snapshot::is_on_air)).await;
    let seen = seen.ok().and_then(Result::ok).map(|seen| seen.clone());
    seen.unwrap_or_else(|| panic!("{name} is not on air in time"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_hands_a_stream_over_that_is_wanted_further_and_stops_one_that_is_not() {
    let world = World::new(|rest| {
        rest.time_scale = Some(0.25);
        rest.streams.push("side".to_owned());
    })
    .await;
    let publisher = config(world.qencode());
    let (mut agent, mut config) = supervise(&world, &[("main", publisher)]);
    on_air(&agent, "main").await;

    let main = config.publishers.get_mut("main").expect("it is there");
    main.transport = Transport::Tcp;
    let reloaded = agent.reload(&config, &BTreeSet::new()).await;
    assert_eq!(reloaded.plan.to_string(), "publisher main begins anew");
    let seen = on_air(&agent, "main").await.platform.expect("a platform");
    assert!(seen.ours && seen.starts == 0, "{seen:?}");
    assert_eq!(asked(&world, Vendor::Qencode, RestCall::Stop), 0);
    assert_eq!(world.bill().starts, 1);

    let main = config.publishers.get_mut("main").expect("it is there");
    let other = Platform {
        stream: StreamRef::Name("side".to_owned()),
        ..world.qencode()
    };
    main.server = onair::config::Server::Platform(Box::new(other));
    let reloaded = agent.reload(&config, &BTreeSet::new()).await;
    assert!(reloaded.failed.is_empty(), "{reloaded:?}");
    let bills = world.lab.bills();
    let front = bills.iter().find(|b| b.name == "front").expect("a bill");
    assert!(!front.running && front.starts == 1, "{front:?}");
    on_air(&agent, "main").await;
    agent.drain().await;
    world.rests().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_removed_publisher_could_not_stop_is_stopped_with_its_credential() {
    let world = World::new(|rest| rest.time_scale = Some(0.25)).await;
    let publisher = config(world.qencode());
    let (mut agent, mut config) = supervise(&world, &[("main", publisher)]);
    on_air(&agent, "main").await;
    // As often as a stop is tried in parting.
    let trouble = Fault::Rest {
        how: RestFault::Status {
            status: 503,
            retry_after_s: None,
        },
        times: 3,
        call: Some(RestCall::Stop),
    };
    world.lab.faults().commit(None, trouble);
    config.publishers.clear();
    let reloaded = agent.reload(&config, &BTreeSet::new()).await;
    assert_eq!(reloaded.plan.to_string(), "publisher main ends");
    world.rests().await;
    assert_eq!(asked(&world, Vendor::Qencode, RestCall::Stop), 4);
    let noted = async {
        let mut every = tokio::time::interval(Duration::from_millis(20));
        while world.written()["ours"] == true {
            every.tick().await;
        }
    };
    let noted = tokio::time::timeout(SOON, noted).await;
    noted.expect("it is written down");
    agent.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vendor_that_wants_to_be_left_alone_is_obeyed_and_still_told_to_stop() {
    let world = World::new(|_| {}).await;
    for (platform, vendor) in [
        (world.wowza(), Vendor::Wowza),
        (world.qencode(), Vendor::Qencode),
    ] {
        let account = world.account().await;
        let publisher = world.start(&config(platform), &account);
        until(&publisher, "on air", Snapshot::is_on_air).await;
        let busy = |call| Fault::Rest {
            how: RestFault::Status {
                status: 429,
                retry_after_s: Some(3),
            },
            times: 1,
            call: Some(call),
        };
        world.lab.faults().commit(None, busy(RestCall::Stop));
        let before = world.lab.asked(vendor).len();
        let began = tokio::time::Instant::now();
        publisher.drain(PART).await;
        assert!(began.elapsed() >= 3 * S, "{:?}", began.elapsed());
        world.rests().await;
        let stops: Vec<_> = (world.lab.asked(vendor).into_iter().skip(before))
            .filter(|asked| asked.call == Some(RestCall::Stop))
            .collect();
        let statuses: Vec<_> = stops.iter().map(|asked| asked.status).collect();
        assert_eq!(statuses, [Some(429), Some(200)], "{vendor}");
        assert!(stops[1].at_ms - stops[0].at_ms >= 2_900, "{stops:?}");
        drop(account);
    }
}
