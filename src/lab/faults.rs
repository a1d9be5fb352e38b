//! Faults that the lab commits on demand: refusals, silence, ghosts, black holes, lies in descriptions.
//!
//! By method or as JSON by `POST /v1/faults`, for one profile or for all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use serde::Deserialize;
use serde::Serialize;
use tokio::sync::watch;

use super::hub::Ask;
use super::hub::Hub;
use super::hub::State;
use super::now;
use super::profile::Profile;
use super::rest::RestCall;

/// Something to go wrong. In JSON: `{"fault": "refuse", "status": 503, "times": 3, "profile": "wowza-se"}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(tag = "fault", rename_all = "kebab-case")]
pub enum Fault {
    /// No packet of media, ICE or DTLS passes in either direction for this long.
    BlackHole {
        /// How long.
        ms: u64,
    },
    /// Signalling connections of running sessions are closed with this code, and a reason that names this status
    /// (Wowza).
    CloseSocket {
        /// Of the Close frame, such as 4403.
        code: u16,
        /// In the reason, such as 503.
        status: u16,
    },
    /// Signalling connections of running sessions are cut without a closing handshake.
    DropSocket,
    /// Running sessions are ended as by a server that stops: BYE, `close_notify`, connections cut.
    End,
    /// The next requests by HTTP are answered by hanging up.
    HangUp {
        /// How many.
        times: u32,
    },
    /// Every name is taken for this long, as by the ghost of an earlier session.
    HoldName {
        /// How long.
        ms: u64,
    },
    /// Publishers on air are asked for a key frame.
    KeyFrame,
    /// Descriptions are falsified from now on, until another mutation or none is chosen.
    Mutate {
        /// How; `null` to tell the truth again.
        mutation: Option<Mutation>,
    },
    /// The next offers by WHIP are sent elsewhere: to another port, which minds what it is told, or to another URL here.
    Redirect {
        /// HTTP status, such as 307.
        status: u16,
        /// To another origin.
        elsewhere: bool,
        /// How many.
        times: u32,
    },
    /// The next requests are refused in the words of the dialect.
    Refuse {
        /// `status` (Wowza) or `code` (OvenMediaEngine).
        status: u16,
        /// How many.
        times: u32,
    },
    /// The next PATCH requests (WHIP) are refused, whatever they bring.
    RefusePatch {
        /// HTTP status.
        status: u16,
        /// How many.
        times: u32,
    },
    /// The next ICE restarts are refused: in the words of Wowza v2, or as a PATCH.
    RefuseRestart {
        /// `statusCode` or HTTP status, such as 425.
        status: u16,
        /// How many.
        times: u32,
    },
    /// The next answers take no video, and go on with sound alone (Wowza v2, WHIP).
    RefuseVideo {
        /// How it is said.
        how: RefusedVideo,
        /// How many.
        times: u32,
    },
    /// The next offers by WHIP are refused with `Retry-After`.
    RetryLater {
        /// HTTP status: 429 or 503.
        status: u16,
        /// What `Retry-After` says, in seconds.
        seconds: u32,
        /// How many.
        times: u32,
    },
    /// The next upgrades to WebSocket, or requests by WHIP, are answered with this
    /// HTTP status instead.
    RefuseUpgrade {
        /// HTTP status.
        status: u16,
        /// How many.
        times: u32,
    },
    /// What publishers send over ICE-TCP is read no faster than this from now on, as over a narrow uplink.
    Throttle {
        /// In kbit/s; 0 reads as fast as it comes.
        kbit_s: u32,
    },
    /// Streams are not listed for this long, as by an application that was restarted under them (Wowza v2).
    Unlist {
        /// How long.
        ms: u64,
    },
    /// The next requests to the control plane next to that profile go wrong.
    Rest {
        /// How.
        how: RestFault,
        /// How many.
        times: u32,
        /// Only requests of this kind; all of them without it.
        #[serde(default)]
        call: Option<RestCall>,
    },
    /// The vendor stops every stream that runs, under its publisher.
    RestStop,
    /// The next sessions meet silence from this step on.
    Silent {
        /// The first step that does not happen.
        step: Step,
        /// How many sessions.
        times: u32,
    },
}

/// How a request to a control plane goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestFault {
    /// It is answered, but late.
    Delay {
        /// How late.
        ms: u64,
    },
    /// It is refused in the vendor's words, as if what it shows had expired.
    ExpiredToken,
    /// The connection is cut.
    HangUp {
        /// What was asked for is done all the same.
        done: bool,
    },
    /// It is done, and answered with half of the JSON.
    Malformed,
    /// It is done, and answered with eight megabytes.
    Oversized,
    /// It is never answered, nor done.
    Silence,
    /// It is answered with this status in the vendor's words, and not done.
    Status {
        /// HTTP status.
        status: u16,
        /// What `Retry-After` says, in seconds.
        #[serde(default)]
        retry_after_s: Option<u32>,
    },
    /// What it starts never gets to be started.
    StuckStart,
}

/// A step at which a server may fall silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// The answer to the HTTP upgrade.
    Upgrade,
    /// The description of the server: its offer, or its answer to ours.
    Description,
    /// ICE and all that follows.
    Media,
    /// The answer to an ICE restart (Wowza v2, WHIP).
    Restart,
}

/// How an answer refuses video.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusedVideo {
    /// `a=inactive`.
    Inactive,
    /// The section is left out.
    Missing,
    /// `m=video 0`.
    PortZero,
}

/// A lie in the lab's description, with which no publisher may succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mutation {
    /// `code` (or `status`) 404 instead of 200, in an otherwise good message.
    #[serde(rename = "code-404")]
    Code404,
    /// No fingerprint.
    MissingFingerprint,
    /// A fingerprint of another certificate.
    WrongFingerprint,
    /// An ICE password that is not the engine's.
    WrongIcePwd,
    /// A password of OvenMediaEngine's TURN server that is not its own.
    WrongTurnPassword,
}

impl std::str::FromStr for Mutation {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "code-404" => Ok(Self::Code404),
            "missing-fingerprint" => Ok(Self::MissingFingerprint),
            "wrong-fingerprint" => Ok(Self::WrongFingerprint),
            "wrong-ice-pwd" => Ok(Self::WrongIcePwd),
            "wrong-turn-password" => Ok(Self::WrongTurnPassword),
            other => Err(format!(
                "unknown mutation {other:?}: one of code-404, missing-fingerprint, wrong-fingerprint, wrong-ice-pwd, wrong-turn-password"
            )),
        }
    }
}

/// The faults of a running lab. Cheap to clone; usable from any thread.
#[derive(Clone, Debug)]
pub struct Faults {
    hub: Hub,
    plans: Arc<BTreeMap<Profile, Plan>>,
}

/// What is planned for one profile.
#[derive(Debug, Default)]
struct Plan {
    next: Mutex<Next>,
    black_hole: watch::Sender<Option<Instant>>,
    /// In kbit/s; 0 for no limit.
    throttle: watch::Sender<u32>,
    /// How often the vendor has stopped everything.
    stops: watch::Sender<u64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Next {
    refuse: Option<(u16, u32)>,
    refuse_upgrade: Option<(u16, u32)>,
    silent: Option<(Step, u32)>,
    hang_up: Option<((), u32)>,
    redirect: Option<((u16, bool), u32)>,
    refuse_patch: Option<(u16, u32)>,
    refuse_restart: Option<(u16, u32)>,
    refuse_video: Option<(RefusedVideo, u32)>,
    retry_later: Option<((u16, u32), u32)>,
    rest: Option<((RestFault, Option<RestCall>), u32)>,
    unlisted_until: Option<Instant>,
    held_until: Option<Instant>,
    mutation: Option<Mutation>,
}

impl Faults {
    pub(super) fn new(hub: Hub, profiles: &[Profile], mutation: Option<Mutation>) -> Self {
        let next = Next {
            mutation,
            ..Next::default()
        };
        let plan = |profile: &Profile| {
            let plan = Plan {
                next: Mutex::new(next),
                black_hole: watch::Sender::new(None),
                throttle: watch::Sender::new(0),
                stops: watch::Sender::new(0),
            };
            (*profile, plan)
        };
        Self {
            hub,
            plans: Arc::new(profiles.iter().map(plan).collect()),
        }
    }

    /// Commits `fault` at `profile`, or at every profile of this lab. Returns how many running sessions it hit;
    /// faults that wait for later sessions hit none.
    pub fn commit(&self, profile: Option<Profile>, fault: Fault) -> usize {
        let now = now();
        let plans = self.plans.iter();
        for (_, plan) in plans.filter(|(of, _)| profile.is_none_or(|p| p == **of)) {
            plan.edit(|next| match fault {
                Fault::HangUp { times } => next.hang_up = Some(((), times)),
                Fault::HoldName { ms } => next.held_until = Some(now + Duration::from_millis(ms)),
                Fault::Mutate { mutation } => next.mutation = mutation,
                Fault::Refuse { status, times } => next.refuse = Some((status, times)),
                Fault::RefuseUpgrade { status, times } => {
                    next.refuse_upgrade = Some((status, times));
                }
                Fault::Redirect {
                    status,
                    elsewhere,
                    times,
                } => next.redirect = Some(((status, elsewhere), times)),
                Fault::RefusePatch { status, times } => next.refuse_patch = Some((status, times)),
                Fault::RefuseRestart { status, times } => {
                    next.refuse_restart = Some((status, times));
                }
                Fault::RefuseVideo { how, times } => next.refuse_video = Some((how, times)),
                Fault::RetryLater {
                    status,
                    seconds,
                    times,
                } => next.retry_later = Some(((status, seconds), times)),
                Fault::Unlist { ms } => {
                    next.unlisted_until = Some(now + Duration::from_millis(ms));
                }
                Fault::Rest { how, times, call } => next.rest = Some(((how, call), times)),
                Fault::Silent { step, times } => next.silent = Some((step, times)),
                Fault::BlackHole { .. }
                | Fault::CloseSocket { .. }
                | Fault::DropSocket
                | Fault::End
                | Fault::KeyFrame
                | Fault::RestStop
                | Fault::Throttle { .. } => {}
            });
            if fault == Fault::RestStop {
                plan.stops.send_modify(|times| *times += 1);
            }
            if let Fault::Throttle { kbit_s } = fault {
                plan.throttle.send_replace(kbit_s);
            }
            if let Fault::BlackHole { ms } = fault {
                plan.black_hole
                    .send_replace(Some(now + Duration::from_millis(ms)));
            }
        }
        let ask = match fault {
            Fault::CloseSocket { code, status } => Ask::Close { code, status },
            Fault::DropSocket => Ask::DropSocket,
            Fault::End => Ask::End,
            Fault::KeyFrame => Ask::KeyFrame,
            Fault::BlackHole { .. }
            | Fault::HangUp { .. }
            | Fault::HoldName { .. }
            | Fault::Mutate { .. }
            | Fault::Redirect { .. }
            | Fault::Refuse { .. }
            | Fault::RefusePatch { .. }
            | Fault::RefuseRestart { .. }
            | Fault::RefuseUpgrade { .. }
            | Fault::RefuseVideo { .. }
            | Fault::Rest { .. }
            | Fault::RestStop
            | Fault::RetryLater { .. }
            | Fault::Silent { .. }
            | Fault::Throttle { .. }
            | Fault::Unlist { .. } => return 0,
        };
        let sessions = self.hub.sessions().into_iter();
        sessions
            .filter(|s| s.state != State::Ended && profile.is_none_or(|p| p == s.profile))
            .filter(|s| self.hub.ask(s.id, ask.clone()))
            .count()
    }

    pub(super) fn report(&self) -> Vec<crate::report::Session> {
        self.hub.report()
    }

    /// Status with which this request is to be refused.
    pub(super) fn refusal(&self, profile: Profile) -> Option<u16> {
        self.take(profile, |next| take(&mut next.refuse))
    }

    /// HTTP status with which this upgrade is to be refused.
    pub(super) fn upgrade_refusal(&self, profile: Profile) -> Option<u16> {
        self.take(profile, |next| take(&mut next.refuse_upgrade))
    }

    /// Whether this request by HTTP is to be answered by hanging up.
    pub(super) fn hangs_up(&self, profile: Profile) -> bool {
        self.take(profile, |next| take(&mut next.hang_up)).is_some()
    }

    /// HTTP status with which this offer is to be redirected, and whether to another origin.
    pub(super) fn redirect(&self, profile: Profile) -> Option<(u16, bool)> {
        self.take(profile, |next| take(&mut next.redirect))
    }

    /// HTTP status with which this PATCH is to be refused.
    pub(super) fn patch_refusal(&self, profile: Profile) -> Option<u16> {
        self.take(profile, |next| take(&mut next.refuse_patch))
    }

    /// Status with which this ICE restart is to be refused.
    pub(super) fn restart_refusal(&self, profile: Profile) -> Option<u16> {
        self.take(profile, |next| take(&mut next.refuse_restart))
    }

    /// How this answer is to refuse video.
    pub(super) fn refused_video(&self, profile: Profile) -> Option<RefusedVideo> {
        self.take(profile, |next| take(&mut next.refuse_video))
    }

    /// HTTP status and `Retry-After` with which this offer is to be refused.
    pub(super) fn retry_later(&self, profile: Profile) -> Option<(u16, u32)> {
        self.take(profile, |next| take(&mut next.retry_later))
    }

    /// Whether streams that are live are missing from lists.
    pub(super) fn is_unlisted(&self, profile: Profile, now: Instant) -> bool {
        self.take(profile, |next| next.unlisted_until)
            .is_some_and(|until| now < until)
    }

    /// How this request to the control plane, which is for `call`, goes wrong.
    pub(super) fn rest(&self, profile: Profile, call: Option<RestCall>) -> Option<RestFault> {
        let due = |next: &mut Next| match next.rest {
            Some(((_, only), _)) if only.is_none() || only == call => take(&mut next.rest),
            _ => None,
        };
        self.take(profile, due).map(|(how, _)| how)
    }

    /// Changes whenever the vendor is to stop everything.
    pub(super) fn rest_stops(&self, profile: Profile) -> watch::Receiver<u64> {
        match self.plans.get(&profile) {
            Some(plan) => plan.stops.subscribe(),
            None => watch::channel(0).1,
        }
    }

    /// Whether this session is to meet silence at `step`.
    pub(super) fn silent(&self, profile: Profile, step: Step) -> bool {
        let due = |next: &mut Next| match next.silent {
            Some((at, _)) if at == step => take(&mut next.silent),
            _ => None,
        };
        self.take(profile, due).is_some()
    }

    /// Whether every name is taken.
    pub(super) fn is_held(&self, profile: Profile, now: Instant) -> bool {
        self.take(profile, |next| next.held_until)
            .is_some_and(|until| now < until)
    }

    /// How descriptions are falsified.
    pub(super) fn mutation(&self, profile: Profile) -> Option<Mutation> {
        self.take(profile, |next| next.mutation)
    }

    /// Until when nothing passes.
    pub(super) fn black_hole(&self, profile: Profile) -> watch::Receiver<Option<Instant>> {
        match self.plans.get(&profile) {
            Some(plan) => plan.black_hole.subscribe(),
            None => watch::channel(None).1,
        }
    }

    /// How fast ICE-TCP is read, in kbit/s; 0 for no limit.
    pub(super) fn throttle(&self, profile: Profile) -> watch::Receiver<u32> {
        match self.plans.get(&profile) {
            Some(plan) => plan.throttle.subscribe(),
            None => watch::channel(0).1,
        }
    }

    fn take<T>(&self, profile: Profile, what: impl FnOnce(&mut Next) -> Option<T>) -> Option<T> {
        self.plans.get(&profile)?.edit(what)
    }
}

impl Plan {
    fn edit<T>(&self, change: impl FnOnce(&mut Next) -> T) -> T {
        change(&mut self.next.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Uses one of the times that are left.
fn take<T: Copy>(planned: &mut Option<(T, u32)>) -> Option<T> {
    let (what, times) = (*planned)?;
    *planned = (times > 1).then(|| (what, times - 1));
    (times > 0).then_some(what)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use crate::media::time::MediaClock;

    use super::*;

    #[test]
    fn a_fault_hits_as_often_as_it_says_and_only_its_profile() {
        let hub = Hub::new(MediaClock::new(Instant::now(), SystemTime::now()));
        let faults = Faults::new(hub, &[Profile::Qencode, Profile::WowzaSe], None);
        let refuse = Fault::Refuse {
            status: 503,
            times: 2,
        };
        faults.commit(Some(Profile::WowzaSe), refuse);
        assert_eq!(faults.refusal(Profile::Qencode), None);
        assert_eq!(faults.refusal(Profile::WowzaSe), Some(503));
        assert_eq!(faults.refusal(Profile::WowzaSe), Some(503));
        assert_eq!(faults.refusal(Profile::WowzaSe), None);
        let silent = Fault::Silent {
            step: Step::Media,
            times: 1,
        };
        faults.commit(None, silent);
        assert!(!faults.silent(Profile::Qencode, Step::Upgrade));
        assert!(faults.silent(Profile::Qencode, Step::Media));
        assert!(!faults.silent(Profile::Qencode, Step::Media));
        faults.commit(None, Fault::HoldName { ms: 60_000 });
        assert!(faults.is_held(Profile::Qencode, Instant::now()));
        faults.commit(None, Fault::HoldName { ms: 0 });
        assert!(!faults.is_held(Profile::Qencode, Instant::now()));
    }

    #[test]
    fn faults_are_read_from_json() {
        let read = |text| serde_json::from_str::<Fault>(text).expect(text);
        assert_eq!(read(r#"{"fault":"drop-socket"}"#), Fault::DropSocket);
        assert_eq!(
            read(r#"{"fault":"silent","step":"description","times":2}"#),
            Fault::Silent {
                step: Step::Description,
                times: 2
            }
        );
        assert_eq!(
            read(r#"{"fault":"mutate","mutation":"code-404"}"#),
            Fault::Mutate {
                mutation: "code-404".parse().ok()
            }
        );
        let how = RefusedVideo::PortZero;
        assert_eq!(
            read(r#"{"fault":"refuse-video","how":"port-zero","times":1}"#),
            Fault::RefuseVideo { how, times: 1 }
        );
        assert_eq!(
            read(
                r#"{"fault":"rest","how":{"status":{"status":429,"retry_after_s":60}},"times":2,"call":"start"}"#
            ),
            Fault::Rest {
                how: RestFault::Status {
                    status: 429,
                    retry_after_s: Some(60)
                },
                times: 2,
                call: Some(RestCall::Start),
            }
        );
        assert_eq!(
            read(r#"{"fault":"rest","how":"silence","times":1}"#),
            Fault::Rest {
                how: RestFault::Silence,
                times: 1,
                call: None,
            }
        );
        assert!(serde_json::from_str::<Fault>(r#"{"fault":"nonsense"}"#).is_err());
    }
}
