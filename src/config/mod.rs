//! The typed configuration: what the rest of the program sees, all invariants held.
//!
//! `raw` mirrors the file and is the only place that may complain; whatever reached these types is valid.

pub mod ice_server;
pub mod load;
pub mod pin;
pub mod platform;
pub mod prints;
pub mod raw;
pub mod redact;
pub mod schedule;
pub mod secret;
pub mod units;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ice_server::IceServer;
use jiff::tz::TimeZone;
use platform::Platform;
use schedule::Schedule;
use secret::{Bearer, Secret};

/// Everything the file says.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Feeds by name; at least one.
    pub feeds: BTreeMap<String, Feed>,
    /// Publishers by name; each names an existing feed.
    pub publishers: BTreeMap<String, Publisher>,
    /// What concerns the process as a whole.
    pub daemon: Daemon,
}

/// What concerns the process as a whole.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Daemon {
    /// Where onair keeps what must outlive it: which streams it has started, the flight recorder. By default what
    /// systemd says in `STATE_DIRECTORY`; without either nothing is kept.
    pub state_dir: Option<PathBuf>,
    /// How the process can be looked at and told what to do.
    pub status: Status,
    /// What is kept of the last minutes.
    pub recorder: Recorder,
}

/// The flight recorder, which keeps its files in [`Daemon::state_dir`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorder {
    /// Bytes that all its files may take together, 1 MiB to 256 MiB; `None` and nothing is recorded.
    pub size: Option<u64>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self {
            size: Some(16 << 20),
        }
    }
}

/// The status server.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// Where it listens; `None` and there is none. Anything but a loopback address needs a token.
    pub listen: Option<SocketAddr>,
    /// What everyone must show who asks for more than whether onair is healthy and on air.
    pub token: Option<Secret>,
    /// Whether it shows the feeds' last pictures. By default only where a token is asked for: whoever may use this host
    /// need not be one who may look through its camera.
    pub picture: bool,
}

impl Status {
    /// Where it listens if the file does not say: on this host only.
    pub const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9810);
}

impl Default for Status {
    fn default() -> Self {
        Self {
            listen: Some(Self::LISTEN),
            token: None,
            picture: false,
        }
    }
}

/// One camera and one microphone, encoded once. At least one of the two tracks is present.
#[derive(Clone, Debug, PartialEq)]
pub struct Feed {
    /// The picture.
    pub video: Option<Video>,
    /// The sound.
    pub audio: Option<Audio>,
}

/// The video track of a feed.
#[derive(Clone, Debug, PartialEq)]
pub struct Video {
    /// Where pictures come from.
    pub source: VideoSource,
    /// Size of the encoded picture; a source of another size is scaled.
    pub size: Size,
    /// Pictures per second, 1 to 60.
    pub fps: u32,
    /// Highest bitrate; the encoder is opened at it and set down when a server wants less.
    pub bitrate: Bitrate,
    /// Longest time between two key frames.
    pub key_frame_interval: Duration,
}

/// Where pictures come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VideoSource {
    /// A V4L2 camera: a path (best under `/dev/v4l/by-id`), a name, an index, or `auto`.
    Camera {
        /// As the user wrote it.
        device: String,
        /// What is looked for in its pictures.
        watch: PictureWatch,
    },
    /// A Y4M file, looped.
    File {
        /// Its path.
        path: PathBuf,
    },
    /// The synthetic picture with a burnt-in clock.
    TestCard,
}

/// For how long the pictures of a camera may be useless before that is said; `None` is for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureWatch {
    /// The same to the bit.
    pub frozen_after: Option<Duration>,
    /// Black.
    pub black_after: Option<Duration>,
}

impl Default for PictureWatch {
    /// Ten seconds each.
    fn default() -> Self {
        Self {
            frozen_after: Some(Duration::from_secs(10)),
            black_after: Some(Duration::from_secs(10)),
        }
    }
}

/// For how long the sound of a microphone may be useless before that is said; `None` is for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SoundWatch {
    /// Digital silence, or a constant level.
    pub silent_after: Option<Duration>,
    /// Cut off at full scale, a tenth of the time.
    pub clipped_after: Option<Duration>,
}

impl Default for SoundWatch {
    /// Half a minute for silence, because some microphones are silent while nobody speaks; ten seconds for clipping.
    fn default() -> Self {
        Self {
            silent_after: Some(Duration::from_secs(30)),
            clipped_after: Some(Duration::from_secs(10)),
        }
    }
}

/// The audio track of a feed.
#[derive(Clone, Debug, PartialEq)]
pub struct Audio {
    /// Where samples come from.
    pub source: AudioSource,
    /// 1 or 2.
    pub channels: u8,
    /// Opus bitrate, 6 to 510 kbit/s.
    pub bitrate: Bitrate,
}

/// Where samples come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AudioSource {
    /// A WAV file, looped.
    File {
        /// Its path.
        path: PathBuf,
    },
    /// An ALSA capture device: an ALSA name, a part of its description, or `auto`.
    Microphone {
        /// As the user wrote it.
        device: String,
        /// What is looked for in its sound.
        watch: SoundWatch,
        /// What becomes of it when it was lost.
        after_loss: AfterLoss,
    },
    /// Digital silence.
    Silence,
    /// A tone with a beep at each full second of wall time.
    Tone,
}

/// What a microphone does that was on air and was lost, whatever the reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AfterLoss {
    /// It is on air again as soon as it is back.
    #[default]
    Resume,
    /// It is not opened again until a person says so: nobody is heard who does not expect it.
    Silence,
}

/// Width and height in pixels: both even, 64 to 4096.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Size {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

/// Bits per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bitrate(pub u32);

/// Keeps one feed on air at one server.
#[derive(Clone, Debug, PartialEq)]
pub struct Publisher {
    /// Name of the feed.
    pub feed: String,
    /// Where to, and in which dialect.
    pub server: Server,
    /// Which transports media may take.
    pub transport: Transport,
    /// STUN and TURN servers of ours, beside those that the server hands over.
    pub ice_servers: Vec<IceServer>,
    /// How connections leave this network.
    pub proxy: Proxy,
    /// Whom TLS trusts.
    pub trust: Trust,
    /// When it is on air; `None` is always.
    pub on_air: Option<Schedule>,
    /// Where the hours and days of its schedule and of its bill are those of the wall clock.
    pub time_zone: TimeZone,
}

impl Publisher {
    /// A publisher of `feed` at `server`, with the defaults for all else.
    pub fn new(feed: &str, server: Server) -> Self {
        Self {
            feed: feed.to_owned(),
            server,
            transport: Transport::default(),
            ice_servers: Vec::new(),
            proxy: Proxy::default(),
            trust: Trust::default(),
            on_air: None,
            time_zone: TimeZone::system(),
        }
    }
}

/// Whom TLS trusts. By default: the platform's authorities, for the name in the URL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// A PEM file of further certificate authorities.
    pub ca_file: Option<PathBuf>,
    /// SHA-256 digests of the public keys (SubjectPublicKeyInfo) of which the server's own certificate must have one;
    /// none means any. Authorities, names and times are checked all the same. They bind the host of the publisher's URL
    /// alone, at whatever port.
    pub pins: Vec<[u8; 32]>,
    /// Take any certificate of the host of the publisher's URL. For a lab; said as a warning on each connection.
    pub insecure: bool,
}

/// The HTTP proxy through which signalling and TURN over TCP and TLS leave (RFC 9110, section 9.3.6: `CONNECT`). TCP to a
/// server's own candidates is dialled directly as well, as UDP is, for such a server may be in the same network.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Proxy {
    /// What `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` say.
    #[default]
    Environment,
    /// None, whatever the environment says.
    None,
    /// `http://[user:password@]host:port` or `https://...`; `NO_PROXY` does not apply.
    Url(Secret),
}

/// A server, with what its dialect needs. URLs and stream names are as good as passwords: never log them.
#[derive(Clone, Debug, PartialEq)]
pub enum Server {
    /// OvenMediaEngine's WebSocket ingest: `wss://host:3334/app/stream`, with whatever query it needs.
    Ome {
        /// The URL; `direction=send` is added.
        url: Secret,
    },
    /// A stream at a vendor's control plane, which is asked for one of the servers here each time it is started.
    Platform(Box<Platform>),
    /// Qencode: OvenMediaEngine's protocol at the URL that the platform's start call returned.
    Qencode {
        /// The URL; `direction=send&transport=tcp` is added.
        url: Secret,
    },
    /// Any server that speaks WHIP (RFC 9725), OvenMediaEngine and Wowza Streaming Engine among them.
    Whip {
        /// `https://` or `http://`.
        url: Secret,
        /// Sent as `Authorization: Bearer`; none, and no such header is sent.
        bearer: Option<Bearer>,
        /// How candidates found after the offer are told.
        trickle: Trickle,
    },
    /// Wowza Streaming Engine or Wowza Video, over their WebSocket.
    Wowza {
        /// `wss://host/webrtc-session.json`.
        url: Secret,
        /// Application name.
        application: String,
        /// Stream name, possibly with a token as query.
        stream: Secret,
        /// Which of the two languages is spoken there.
        dialect: WowzaDialect,
    },
}

impl Server {
    /// Where it is asked first.
    pub const fn url(&self) -> &Secret {
        match self {
            Self::Ome { url }
            | Self::Qencode { url }
            | Self::Whip { url, .. }
            | Self::Wowza { url, .. } => url,
            Self::Platform(platform) => &platform.api,
        }
    }
}

/// Wowza's languages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WowzaDialect {
    /// Whichever the server answers.
    #[default]
    Auto,
    /// The older one (`sendOffer`): Wowza Video, Streaming Engine up to 4.10.
    V1,
    /// The newer one (`OFFER`): Streaming Engine from 4.11 on.
    V2,
}

/// How a WHIP server is told of candidates that are found after the offer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trickle {
    /// By `PATCH` with one bare candidate line each, as Wowza's own page does.
    Bare,
    /// Not at all: every server learns them from the connectivity checks.
    Off,
    /// By `PATCH` with an SDP fragment (RFC 9725, section 4.3), until the server refuses one.
    #[default]
    Sdpfrag,
}

/// Which transports media may take to a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// Whatever the server offers: UDP, ICE-TCP, TURN over UDP, TCP and TLS, in this order.
    #[default]
    Auto,
    /// Through a TURN server only.
    Relay,
    /// No UDP leaves this host: ICE-TCP, TURN over TCP and TLS.
    Tcp,
    /// Directly over UDP only.
    Udp,
}
