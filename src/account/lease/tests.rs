//! A stream at a scripted vendor, on virtual time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use jiff::Timestamp;

use super::*;
use crate::account::ledger::Ledger;
use crate::config::WowzaDialect;
use crate::config::platform::{Create, OnExit};
use crate::config::secret::{Bearer, Secret};
use crate::platform::{Call, Rest, Witness};

mod disk;

/// What the vendor has been asked, and what it says.
#[derive(Default)]
struct Script {
    asked: Vec<String>,
    /// The state that is shown; a start makes it `comes_to`.
    state: Option<State>,
    comes_to: Option<State>,
    /// What refuses the next calls.
    refusals: VecDeque<Refusal>,
    /// When it wants to be asked again.
    retry_after: Option<Duration>,
    /// Nothing is answered any more.
    hangs: bool,
    /// What refuses each start.
    start_refused: Option<Refusal>,
    missing: bool,
    foreign: bool,
    /// What the ledger said of the stream when the start was asked for.
    ours_at_start: Option<bool>,
    /// Starts are never answered, and take effect so much later, if at all.
    late: Option<Option<Duration>>,
    /// When that is.
    up_at: Option<tokio::time::Instant>,
}

#[derive(Clone)]
struct Scripted {
    script: Arc<Mutex<Script>>,
    account: Account,
    key: Key,
}

fn refused(call: Call, refusal: Refusal) -> Error {
    refused_until(call, refusal, None)
}

fn refused_until(call: Call, refusal: Refusal, retry_after: Option<Duration>) -> Error {
    Error::Refused {
        vendor: "qencode",
        call,
        refusal,
        status: 500,
        code: String::new(),
        text: "words".to_owned(),
        retry_after,
    }
}

impl Scripted {
    fn with<T>(&self, work: impl FnOnce(&mut Script) -> T) -> T {
        work(&mut self.script.lock().unwrap())
    }

    /// A late start takes effect once its time has come.
    fn late(&self) {
        self.with(|script| {
            let due = |at: &mut tokio::time::Instant| *at <= tokio::time::Instant::now();
            if script.up_at.take_if(due).is_some() {
                script.state = Some(State::Ready);
            }
        });
    }

    fn ask(&self, call: Call) -> Result<Stream, Error> {
        self.late();
        self.with(|script| {
            script.asked.push(format!("{call:?}"));
            if let Some(refusal) = script.refusals.pop_front() {
                return Err(refused_until(call, refusal, script.retry_after));
            }
            if script.missing {
                return Err(refused(call, Refusal::NotFound));
            }
            let url = Secret::new(format!("wss://host/{}", script.asked.len() / 100));
            Ok(Stream {
                id: "s1".to_owned(),
                name: "front".to_owned(),
                state: script.state.clone().unwrap_or(State::Stopped),
                ingest: match script.foreign {
                    true => Ingest::Foreign("other_rtmp".to_owned()),
                    false => Ingest::At(Server::Qencode { url }),
                },
            })
        })
    }

    /// What was asked since it was looked at last.
    fn asked(&self) -> String {
        self.with(|script| std::mem::take(&mut script.asked).join(" "))
    }
}

#[async_trait]
impl Platform for Scripted {
    fn vendor(&self) -> &'static str {
        "qencode"
    }

    async fn list(&mut self) -> Result<Vec<Stream>, Error> {
        match self.ask(Call::List) {
            Err(error) if error.is_gone() => Ok(Vec::new()),
            got => got.map(|stream| vec![stream]),
        }
    }

    async fn show(&mut self, _: &str) -> Result<Stream, Error> {
        self.ask(Call::Show)
    }

    async fn create(&mut self, _: &str) -> Result<Stream, Error> {
        self.with(|script| script.missing = false);
        self.ask(Call::Create)
    }

    async fn start(&mut self, _: &Stream) -> Result<Stream, Error> {
        let ours = self.account.read(|ledger| ledger.is_ours(&self.key));
        self.with(|script| script.ours_at_start = Some(ours));
        if let Some(refusal) = self.with(|script| script.start_refused) {
            return Err(refused(Call::Start, refusal));
        }
        if let Some(late) = self.with(|script| script.late) {
            self.with(|script| {
                script.asked.push("Start".to_owned());
                script.up_at = late.map(|late| tokio::time::Instant::now() + late);
            });
            return std::future::pending().await;
        }
        let mut started = self.ask(Call::Start)?;
        started.state = self.with(|script| {
            let state = script.comes_to.clone().unwrap_or(State::Ready);
            script.state = Some(state.clone());
            state
        });
        Ok(started)
    }

    async fn refresh(&mut self, _: &Stream) -> Result<Stream, Error> {
        self.ask(Call::Show)
    }

    async fn stop(&mut self, _: &str) -> Result<Rest, Error> {
        if self.with(|script| script.hangs) {
            std::future::pending::<()>().await;
        }
        self.ask(Call::Stop)?;
        let obeyed = self.with(|script| {
            let before = script.state.replace(State::Stopped);
            before.is_some_and(|state| state != State::Stopped)
        });
        Ok(Rest {
            state: State::Stopped,
            obeyed,
        })
    }

    async fn delete(&mut self, _: &str) -> Result<(), Error> {
        self.ask(Call::Delete).map(drop)
    }

    async fn witness(&mut self, _: &str) -> Result<Witness, Error> {
        self.ask(Call::Witness)?;
        Ok(Witness {
            connected: Some(false),
            warnings: vec!["frame_rate: low".to_owned()],
        })
    }
}

/// A lease at the scripted vendor, whose wall clock is the virtual one.
fn lease(vendor: Vendor, change: impl FnOnce(&mut Config)) -> (Lease, Scripted, Account) {
    let began = tokio::time::Instant::now();
    let wall = Box::new(move || {
        let passed = i64::try_from(began.elapsed().as_secs()).unwrap();
        Timestamp::from_second(1_795_000_000 + passed).unwrap()
    });
    let account = Account::in_lab(None, wall, 1).unwrap();
    let mut config = Config {
        vendor,
        credential: Bearer {
            token: Secret::new("key"),
            source: None,
        },
        api: Secret::new("https://api"),
        stream: StreamRef::Id("s1".to_owned()),
        on_exit: OnExit::Stop,
        daily_minutes: None,
    };
    change(&mut config);
    let server = Server::Platform(Box::new(config.clone()));
    let mut publisher = config::Publisher::new("feed", server);
    publisher.time_zone = TimeZone::UTC;
    let vendor = Scripted {
        script: Arc::default(),
        account: account.clone(),
        key: key(&config, "s1"),
    };
    let mut lease = Lease::new("main", &config, &publisher, &account).unwrap();
    lease.platform = Box::new(vendor.clone());
    (lease, vendor, account)
}

fn qencode() -> Vendor {
    Vendor::Qencode { callback_url: None }
}

fn wowza(create: bool) -> Vendor {
    Vendor::WowzaVideo {
        dialect: WowzaDialect::V1,
        create: create.then(|| Create::at("eu_germany")),
    }
}

async fn pass(seconds: u64) {
    tokio::time::advance(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn a_start_is_written_down_before_it_is_asked_for() {
    let (mut lease, vendor, _) = lease(qencode(), |_| {});
    lease.ready().await.unwrap();
    assert_eq!(vendor.with(|script| script.ours_at_start), Some(true));
    assert_eq!(vendor.asked(), "Show Start");
    assert!(lease.is_ours());
    lease.release(Release::HandOver).await;
    assert_eq!(vendor.asked(), "");
    assert!(lease.is_ours(), "the next one finds it so");
    lease.release(Release::Exit).await;
    assert_eq!(vendor.asked(), "Stop");
    assert!(!lease.is_ours());
    lease.release(Release::Exit).await;
    assert_eq!(vendor.asked(), "", "there is nothing to stop");
}

#[tokio::test(start_paused = true)]
async fn qencode_is_not_asked_for_110_seconds_but_for_a_glance() {
    let (mut lease, vendor, _) = lease(qencode(), |_| {});
    lease.ready().await.unwrap();
    lease.session_ended(true);
    vendor.asked();
    for _ in 0..36 {
        pass(3).await;
        lease.ready().await.unwrap();
    }
    let glances = vendor.asked();
    assert!(glances.split(' ').all(|asked| asked == "Show"), "{glances}");
    assert!(glances.split(' ').count() <= 5, "{glances}");
    pass(3).await;
    lease.ready().await.unwrap();
    assert_eq!(vendor.asked(), "Show", "111 s are over");
}

#[tokio::test(start_paused = true)]
async fn wowza_is_asked_each_ten_seconds() {
    let (mut lease, vendor, _) = lease(wowza(false), |_| {});
    lease.ready().await.unwrap();
    lease.session_ended(true);
    vendor.asked();
    let mut asked = 0;
    for _ in 0..30 {
        lease.ready().await.unwrap();
        asked += vendor
            .asked()
            .split(' ')
            .filter(|asked| !asked.is_empty())
            .count();
        pass(1).await;
    }
    assert_eq!(asked, 3);
}

#[tokio::test(start_paused = true)]
async fn a_vendor_that_cannot_tell_keeps_nothing_off_the_air() {
    for refusal in [Refusal::Credential, Refusal::Trouble, Refusal::TooOften] {
        let (mut lease, vendor, _) = lease(wowza(false), |_| {});
        lease.ready().await.unwrap();
        pass(60).await;
        vendor.with(|script| script.refusals.push_back(refusal));
        let ready = lease.ready().await.unwrap();
        assert_eq!(ready.doubt.and_then(|error| error.refusal()), Some(refusal));
    }
    // What it does tell counts.
    let (mut lease, vendor, _) = lease(wowza(false), |_| {});
    lease.ready().await.unwrap();
    pass(60).await;
    vendor.with(|script| script.missing = true);
    assert!(lease.ready().await.unwrap_err().is_gone());
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_others_stop_is_fought_for_twice_and_then_a_person_is_called() {
    let (mut lease, vendor, account) = lease(qencode(), |_| {});
    for _ in 0..TAKEN_MAX {
        lease.ready().await.unwrap();
        lease.session_ended(true);
        vendor.with(|script| script.state = Some(State::Stopped));
        pass(15).await;
    }
    let error = lease.ready().await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::StartsTooOften {
                stops: TAKEN_MAX,
                ..
            }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("another onair"), "{error}");
    assert!(account.orphans(|_| false).is_empty());
    pass(3_600).await;
    lease.ready().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_lapses_is_nobodys_fault_but_is_not_started_for_ever() {
    let (mut lease, vendor, _) = lease(qencode(), |_| {});
    let mut starts = 0;
    let error = loop {
        match lease.ready().await {
            Ok(_) => starts += 1,
            Err(error) => break error,
        }
        assert!(starts < 100);
        lease.session_ended(false);
        vendor.with(|script| script.state = Some(State::Stopped));
        pass(130).await;
    };
    assert_eq!(starts, STARTS_MAX);
    assert!(
        matches!(error, Error::StartsTooOften { stops: 0, .. }),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_start_that_comes_up_late_is_waited_for_and_one_that_never_does_is_told() {
    let (mut lease, vendor, _) = lease(wowza(false), |_| {});
    vendor.with(|script| script.comes_to = Some(State::Starting));
    let up = vendor.clone();
    let helped = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(47)).await;
        up.with(|script| script.state = Some(State::Ready));
    });
    lease.ready().await.unwrap();
    helped.await.unwrap();
    assert_eq!(vendor.asked().matches("Start").count(), 1);

    lease.release(Release::Close).await;
    let began = tokio::time::Instant::now();
    let error = lease.ready().await.unwrap_err();
    assert!(matches!(error, Error::StartTimeout { .. }), "{error}");
    assert!(began.elapsed() >= START_WITHIN);
    assert!(lease.is_ours(), "it may still come up, and cost");
}

#[tokio::test(start_paused = true)]
async fn a_refused_start_is_not_ours_and_one_that_may_have_been_heard_is() {
    for (refusal, ours) in [(Refusal::Forbidden, false), (Refusal::Trouble, true)] {
        let (mut lease, vendor, _) = lease(qencode(), |_| {});
        vendor.with(|script| script.start_refused = Some(refusal));
        lease.ready().await.unwrap_err();
        assert_eq!(lease.is_ours(), ours, "{refusal:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn row_410_a_deleted_stream_is_made_again_where_the_file_says_how() {
    let named = |config: &mut Config| config.stream = StreamRef::Name("front".to_owned());
    let (mut with, vendor, _) = lease(wowza(true), named);
    vendor.with(|script| script.missing = true);
    with.ready().await.unwrap();
    assert_eq!(vendor.asked(), "List Create Start");
    pass(60).await;
    vendor.with(|script| {
        script.missing = true;
        script.state = Some(State::Stopped);
    });
    with.ready().await.unwrap();
    assert_eq!(vendor.asked(), "Show List Create Start");
    let (mut without, vendor, _) = lease(wowza(false), named);
    vendor.with(|script| script.missing = true);
    assert!(matches!(
        without.ready().await,
        Err(Error::NoSuchStream { .. })
    ));
}

#[tokio::test(start_paused = true)]
async fn a_stream_for_another_encoder_is_never_started() {
    let (mut lease, vendor, _) = lease(wowza(false), |_| {});
    vendor.with(|script| script.foreign = true);
    let error = lease.ready().await.unwrap_err();
    assert!(matches!(error, Error::NotWebrtc { .. }));
    assert!(error.to_string().contains("other_webrtc"), "{error}");
    assert_eq!(vendor.asked(), "Show");
}

#[tokio::test(start_paused = true)]
async fn minutes_are_counted_while_it_runs_and_the_limit_is_kept() {
    let (mut lease, vendor, _) = lease(wowza(false), |config| config.daily_minutes = Some(10));
    let status = lease.watch();
    lease.ready().await.unwrap();
    let minutes = Duration::from_secs(5 * 60);
    let attended = tokio::time::timeout(minutes, lease.attend(|| Some(Duration::from_secs(60))));
    attended.await.unwrap_err();
    let seen = status.borrow().clone();
    assert!(
        seen.ran >= Duration::from_secs(270) && seen.ran <= minutes,
        "{:?}",
        seen.ran
    );
    assert_eq!(seen.connected, Some(false));
    assert_eq!(seen.warnings, ["frame_rate: low"]);
    lease.session_ended(true);
    // Between two sessions it costs too.
    pass(301).await;
    let error = lease.ready().await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::DailyLimit {
                ran_minutes: 10,
                limit_minutes: 10
            }
        ),
        "{error}"
    );
    assert!(
        !vendor.asked().contains("Stop"),
        "who holds the lease decides that"
    );
    lease.release(Release::Close).await;
    assert_eq!(vendor.asked(), "Stop");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_minutes_is_known_to_the_second() {
    let (mut lease, _, _) = lease(wowza(false), |config| config.daily_minutes = Some(10));
    let mut status = lease.watch();
    lease.ready().await.unwrap();
    let near = Duration::from_secs(595);
    let ran = tokio::select! {
        never = lease.attend(|| None) => match never {},
        seen = status.wait_for(|status| status.ran >= near) => seen.unwrap().ran,
    };
    assert!(ran < near + Duration::from_secs(2), "{ran:?}");
}

#[tokio::test(start_paused = true)]
async fn a_night_without_the_vendor_counts_only_as_long_as_it_lets_a_stream_run() {
    let minutes = |lease: &Lease| lease.watch().borrow().ran.as_secs() / 60;
    for stopped in [true, false] {
        let (mut lease, vendor, _) = lease(qencode(), |_| {});
        lease.ready().await.unwrap();
        lease.session_ended(true);
        // The interface is out of reach, and so is the server.
        for _ in 0..8 {
            pass(3_600).await;
            vendor.with(|script| script.refusals.push_back(Refusal::Trouble));
            assert!(lease.ready().await.unwrap().doubt.is_some());
            lease.session_ended(false);
        }
        assert_eq!(minutes(&lease), 2, "the vendor stops it after two");
        if stopped {
            vendor.with(|script| script.state = Some(State::Stopped));
        }
        pass(60).await;
        lease.ready().await.unwrap();
        pass(1).await;
        lease.count().await;
        let counted = minutes(&lease);
        // Who pays for it otherwise?
        let expected = if stopped { 2 } else { 8 * 60 + 1 };
        assert_eq!(counted, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_is_tried_thrice_and_what_was_not_stopped_stays_written_down() {
    let (mut lease, vendor, account) = lease(qencode(), |_| {});
    lease.ready().await.unwrap();
    vendor.asked();
    vendor.with(|script| script.refusals.extend([Refusal::Trouble; 2]));
    lease.release(Release::Close).await;
    assert_eq!(vendor.asked(), "Stop Stop Stop");
    assert!(!lease.is_ours());

    pass(300).await;
    lease.ready().await.unwrap();
    vendor.asked();
    vendor.with(|script| script.refusals.extend([Refusal::Trouble; 3]));
    lease.release(Release::Close).await;
    assert_eq!(vendor.asked(), "Stop Stop Stop");
    assert!(lease.is_ours());
    assert_eq!(account.orphans(|_| false).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_a_former_onair_started_is_given_back_before_the_first_look_at_it() {
    let (mut lease, vendor, account) = lease(qencode(), |_| {});
    let wall = account.wall();
    let (ours, others) = (
        vendor.key.clone(),
        Key {
            id: "s2".to_owned(),
            ..vendor.key.clone()
        },
    );
    account
        .write(|ledger| ledger.asking(&others, "other", wall))
        .await;
    lease.release(Release::Close).await;
    assert_eq!(vendor.asked(), "", "that is the other publisher's");
    account
        .write(|ledger| ledger.asking(&ours, "main", wall))
        .await;
    assert!(lease.is_ours());
    // The former one did not live to see what became of its start.
    pass(STALE_FOR.as_secs()).await;
    lease.release(Release::Close).await;
    assert_eq!(vendor.asked(), "Stop");
    assert!(!lease.is_ours());
}

#[tokio::test(start_paused = true)]
async fn a_vendor_that_wants_to_be_left_alone_is_asked_to_stop_when_it_says() {
    let (mut lease, vendor, account) = lease(qencode(), |_| {});
    lease.ready().await.unwrap();
    vendor.asked();
    let wait = |vendor: &Scripted, seconds: u64| {
        let after = Some(Duration::from_secs(seconds));
        vendor.with(|script| script.retry_after = after);
        vendor.with(|script| script.refusals.push_back(Refusal::TooOften));
    };
    wait(&vendor, 90);
    let began = tokio::time::Instant::now();
    lease.release(Release::Close).await;
    assert!(began.elapsed() < Duration::from_secs(5), "it waits in vain");
    assert_eq!(vendor.asked(), "Stop");
    assert_eq!(
        account.orphans(|_| false),
        std::slice::from_ref(&vendor.key)
    );
    // Off the air it is tried again each minute.
    pass(60).await;
    lease.release(Release::Close).await;
    assert_eq!(vendor.asked(), "", "not before the 90 s are over");
    pass(25).await;
    wait(&vendor, 10);
    let began = tokio::time::Instant::now();
    lease.release(Release::Exit).await;
    assert!(began.elapsed() >= Duration::from_secs(10));
    assert!(began.elapsed() < RELEASE_WITHIN, "{:?}", began.elapsed());
    assert!(!lease.is_ours(), "{}", vendor.asked());
}

#[tokio::test(start_paused = true)]
async fn a_stop_that_hangs_ends_in_time_and_stays_written_down() {
    let (mut lease, vendor, account) = lease(qencode(), |_| {});
    lease.ready().await.unwrap();
    vendor.with(|script| script.hangs = true);
    let began = tokio::time::Instant::now();
    lease.release(Release::Exit).await;
    assert!(began.elapsed() <= RELEASE_WITHIN, "{:?}", began.elapsed());
    assert_eq!(account.orphans(|_| false), [vendor.key]);
}

/// Cuts a start off that was asked for `after` ago, as a signal does.
async fn cut_off(lease: &mut Lease, after: Duration) {
    let cut = tokio::time::timeout(after, lease.ready()).await;
    assert!(cut.is_err(), "it was not cut off");
}

#[tokio::test(start_paused = true)]
async fn a_start_that_was_cut_off_and_comes_up_late_is_stopped_all_the_same() {
    for late in [0, 1, 5, 14] {
        let (mut lease, vendor, _) = lease(qencode(), |_| {});
        vendor.with(|script| script.late = Some(Some(Duration::from_secs(late))));
        cut_off(&mut lease, Duration::from_millis(100)).await;
        let began = tokio::time::Instant::now();
        lease.release(Release::Exit).await;
        assert!(began.elapsed() < RELEASE_WITHIN, "{:?}", began.elapsed());
        assert!(!lease.is_ours());
        pass(60).await;
        vendor.late();
        let state = vendor.with(|script| script.state.clone());
        assert_eq!(state, Some(State::Stopped), "{late} s late");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_in_doubt_when_onair_ends_stays_written_down() {
    let (mut lease, vendor, account) = lease(qencode(), |_| {});
    vendor.with(|script| script.late = Some(None));
    cut_off(&mut lease, Duration::from_millis(100)).await;
    let ended = tokio::time::timeout(Duration::from_secs(3), lease.release(Release::Exit)).await;
    assert!(ended.is_err(), "it is not certain by then");
    assert_eq!(
        account.orphans(|_| false),
        std::slice::from_ref(&vendor.key)
    );
    // Not even a look at it by the next publisher makes it certain.
    lease.stream = None;
    assert!(lease.may_come_up(&vendor.key));
    let rest = platform::find(lease.platform.as_mut(), &StreamRef::Id("s1".to_owned())).await;
    lease.seen(&rest.unwrap()).await;
    assert!(lease.is_ours());
    pass(16).await;
    lease.release(Release::Exit).await;
    assert!(!lease.is_ours());
}

#[tokio::test(start_paused = true)]
async fn a_start_that_took_place_is_stopped_at_once_but_an_old_word_is_not_believed() {
    let (mut lease, vendor, _) = lease(wowza(false), |_| {});
    lease.ready().await.unwrap();
    let began = tokio::time::Instant::now();
    lease.release(Release::Exit).await;
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert!(!lease.is_ours());

    pass(60).await;
    lease.ready().await.unwrap();
    vendor.asked();
    // As a vendor shows it that answers from before the start.
    vendor.with(|script| script.state = Some(State::Stopped));
    let shown = vendor.clone();
    let later = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        shown.with(|script| script.state = Some(State::Ready));
    });
    lease.release(Release::Exit).await;
    later.await.unwrap();
    assert_eq!(vendor.asked(), "Stop Stop");
    assert_eq!(
        vendor.with(|script| script.state.clone()),
        Some(State::Stopped)
    );
    assert!(!lease.is_ours());
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_named_twice_is_only_the_firsts() {
    let (mut first, vendor, account) = lease(qencode(), |_| {});
    let mut config = first.config.clone();
    config.stream = StreamRef::Name("front".to_owned());
    let server = Server::Platform(Box::new(config.clone()));
    let publisher = config::Publisher::new("feed", server);
    let mut second = Lease::new("spare", &config, &publisher, &account).unwrap();
    second.platform = Box::new(vendor.clone());
    first.ready().await.unwrap();
    pass(60).await;
    for _ in 0..2 {
        let error = second.ready().await.unwrap_err();
        assert!(
            matches!(&error, Error::InUse { publisher, .. } if publisher == "main"),
            "{error}"
        );
    }
    let today = first.today();
    let key = vendor.key.clone();
    assert_eq!(
        account.read(|ledger| ledger.ran_on(&key, today)),
        Duration::ZERO
    );
    vendor.asked();
    second.release(Release::Exit).await;
    assert!(!second.is_ours() && first.is_ours());
    assert_eq!(vendor.asked(), "", "it is not the second's to stop");
    first.release(Release::Exit).await;
    drop(first);
    second.ready().await.unwrap();
    assert!(second.is_ours());
}

#[tokio::test(start_paused = true)]
async fn starts_and_stops_in_order_are_no_fight_however_many() {
    let (mut lease, _, account) = lease(qencode(), |_| {});
    for _ in 0..3 * STARTS_MAX {
        lease.ready().await.unwrap();
        lease.release(Release::Exit).await;
        pass(30).await;
    }
    assert!(account.orphans(|_| false).is_empty());
}
