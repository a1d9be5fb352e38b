//! What sticks for good: a thread of the real program, which runs as its unit has it.

use std::fmt;
use std::time::Duration;

use anyhow::Context as _;
use onair::feed::Budget;
use onair::lab::Profile;
use onair::lab::hub::Snapshot;

use crate::held::{Held, Victim, Where};
use crate::pair::LONGEST;
use crate::service::{Service, decoded};

/// The server that is published to.
const PROFILE: Profile = Profile::Ome021;

/// Within so long the program says of an encoder that it does not return.
const SAID_WITHIN: Duration = Duration::from_secs(6);

/// Pictures in a row without the test card's clock, which show that it is the slate. One could be a snapshot in between
/// the count and the clock.
const SLATES: u64 = 2;

/// What does not return.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stuck {
    /// The encoder, with a picture. Only another process has another.
    Encoder,
    /// The source of the picture, from which it is read. It can be opened anew at once. The test card stands for the
    /// camera: it has the same supervision, but for the time until it is given up. A camera has that between two frames;
    /// what needs no device has that of the first frame besides.
    Camera,
    /// The same, and for these seconds and up to ten more nobody who opens it anew comes back either.
    CameraAndOpenings(u64),
}

impl Stuck {
    pub(crate) const ALL: [Self; 3] = [Self::Encoder, Self::Camera, Self::CameraAndOpenings(10)];

    /// As how many runs of other faults one is as dear.
    pub(crate) const fn cost(self) -> usize {
        match self {
            Self::Encoder => 3,
            Self::Camera | Self::CameraAndOpenings(_) => 1,
        }
    }

    /// One run, from on air to on air: how long it took from when that was possible again, which is the instant of the
    /// fault, or else that from which on the device answers.
    pub(crate) async fn run(self, seed: u64) -> anyhow::Result<Duration> {
        let mut chance = fastrand::Rng::with_seed(seed);
        // It costs three times as much as the picture.
        let tone = matches!(self, Self::Encoder);
        let service = Service::start(PROFILE, tone, seed).await?;
        service.sees(|session| decoded(session) > 10).await?;
        tokio::time::sleep(Duration::from_millis(chance.u64(0..3_000))).await;
        let took = match self {
            Self::Encoder => encoder(&service, &mut chance).await,
            Self::Camera => camera(&service, &mut chance, None).await,
            Self::CameraAndOpenings(seconds) => {
                let more = Duration::from_millis(chance.u64(0..10_000));
                let hang = Duration::from_secs(seconds) + more;
                camera(&service, &mut chance, Some(hang)).await
            }
        };
        service.end().await;
        took
    }
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Encoder => f.write_str("encoder stuck, from the fault"),
            Self::Camera => {
                let more = Budget::default().first_frame.as_secs_f64();
                write!(f, "camera stuck, from the fault, test card +{more:.0} s")
            }
            Self::CameraAndOpenings(seconds) => {
                let longest = seconds + 10;
                write!(f, "camera stuck, openings too for {seconds}-{longest} s")
            }
        }
    }
}

/// Another process begins, and with it another session.
async fn encoder(service: &Service, chance: &mut fastrand::Rng) -> anyhow::Result<Duration> {
    let (held, sound) = loop {
        let held = hold(service, chance, "enc", Where::Work, None).await?;
        let sound = service.session().map(|session| sound(&session));
        let said = service.knows(SAID_WITHIN, |known| known.status.contains("in its encoder"));
        if said.await.is_ok() {
            break (held, sound);
        }
        // It was caught beside its work, perhaps with a lock in its hands.
        drop(held);
        tokio::time::sleep(Duration::from_millis(chance.u64(0..1_000))).await;
    };
    let last = service.session().context("a session")?;
    let goes_on = Some(self::sound(&last)) > sound;
    anyhow::ensure!(goes_on, "the sound stopped with the picture");
    let known = service
        .knows(LONGEST, |known| known.ended.is_some())
        .await?;
    let ended = known.ended.context("it has ended")?;
    anyhow::ensure!(
        ended.code() == Some(onair::daemon::STUCK.into()),
        "it ended otherwise: {ended}"
    );
    let another = |session: &Snapshot| session.id.0 > last.id.0 && decoded(session) > 0;
    service.sees(another).await?;
    Ok(held.since.elapsed())
}

/// The slate is seen meanwhile, and the session lives on. Whoever opens the source anew hangs for `hang`.
async fn camera(
    service: &Service,
    chance: &mut fastrand::Rng,
    hang: Option<Duration>,
) -> anyhow::Result<Duration> {
    let parent = hang.map(|_| "enc");
    let held = hold(service, chance, "cap", Where::Call, parent).await?;
    let before = service.session().context("a session")?;
    // A picture of the card moves the latency, even one that is repeated.
    let mut card = (0, None);
    let slate = service.sees(|session| {
        let latency = session.live.latency_ms;
        if latency != card.1 {
            card = (decoded(session), latency);
        }
        decoded(session) >= card.0 + SLATES
    });
    slate.await?;
    let mut possible = held.since;
    let mut held = Some(held);
    if let Some(hang) = hang {
        tokio::time::sleep_until((possible + hang).into()).await;
        drop(held.take());
        possible = std::time::Instant::now();
    }
    let after = service
        .sees(|session| session.live.latency_ms != card.1)
        .await?;
    anyhow::ensure!(after.id == before.id, "the session did not live on");
    Ok(possible.elapsed())
}

async fn hold(
    service: &Service,
    chance: &mut fastrand::Rng,
    thread: &str,
    place: Where,
    heirs_of: Option<&str>,
) -> anyhow::Result<Held> {
    let name = |thread: &str| format!("{thread}:a:video");
    let victim = Victim {
        process: service.process().context("it runs")?,
        name: name(thread),
        place,
        heirs_of: heirs_of.map(name),
    };
    victim.hold(chance.u64(..)).await
}

/// Packets of sound that the lab has got.
fn sound(session: &Snapshot) -> u64 {
    session.report.audio.packets_received.unwrap_or_default()
}
