//! The command line: flags say how this run goes, the configuration file says what runs.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};

use crate::config::units;

/// `onair`.
#[derive(Debug, Parser)]
#[command(
    name = "onair",
    version,
    about = "Puts a camera and a microphone on air over WebRTC and keeps them there",
    after_help = "Exit codes: 0 done, 1 failed, 2 usage, 3 verdict fail, 75 stuck and to be started anew, 78 configuration,\n\
    130 ended at once by a second interrupt.\n\
                  \n\
                  Examples:\n  \
                    onair demo --for 20s --report report.json\n  \
                    onair run --config /etc/onair/onair.toml"
)]
pub struct Cli {
    /// Flags of every verb.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Flags that every verb takes.
#[derive(Args, Clone, Debug, Default)]
pub struct Global {
    /// What to log: error, warn, info, debug or trace for onair's own words, or a list of directives such as "info,onair::session=trace"
    #[arg(long, global = true, value_name = "FILTER", default_value = "info")]
    pub log: String,

    /// How to log: text (for people), or json (one object per line)
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,

    /// Seed of everything onair leaves to chance itself (backoff jitter), to replay a run; never of keys
    #[arg(long, global = true, value_name = "N")]
    pub seed: Option<u64>,
}

impl Global {
    /// The seed asked for, or one of chance.
    pub fn seed(&self) -> u64 {
        self.seed.unwrap_or_else(|| fastrand::u64(..))
    }
}

/// Form of the log on standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object per event.
    Json,
    /// One line per event; coloured on a terminal.
    #[default]
    Text,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Put the test card on air in a lab in this process, as Wowza and as Qencode at once
    Demo(Demo),
    /// Put the feeds of a configuration file on air and keep them there
    Run(Run),
    /// Read a configuration file and report every fault in it
    Check(Check),
    /// List cameras and microphones, with the configuration to paste
    Devices(Devices),
    /// Run the strict ingest server alone, with its page and its report
    Lab(Box<Lab>),
    /// Find out what a server would take, without publishing; exit code 0 if one could publish
    Probe(Probe),
    /// Pack what support needs to see into one file: the flight recorder, the configuration without secrets, the machine
    Bundle(Bundle),
    /// Look after the streams at Wowza Video or Qencode: list, create, start, status, stop, delete
    Stream(Stream),
    /// Write the manual pages and the completions of shells into a folder, for packages
    #[command(hide = true)]
    Generate(Generate),
}

/// The command line as manual pages and completions describe it: without verbs that are not shown.
pub fn shown() -> clap::Command {
    let whole = Cli::command();
    let verbs = whole.get_subcommands();
    clap::Command::new("onair")
        .version(env!("CARGO_PKG_VERSION"))
        .about(whole.get_about().cloned().unwrap_or_default())
        .after_help(whole.get_after_help().cloned().unwrap_or_default())
        .args(whole.get_arguments().cloned())
        .subcommand_required(true)
        .subcommands(verbs.filter(|verb| !verb.is_hide_set()).cloned())
}

/// `onair stream`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "The account is that of a publisher with to = \"wowza-video\" or \"qencode\". What is started here is not \
    stopped by `onair run`; and what is stopped here, an `onair run` that is to be on air starts again: take its publisher \
    off the air instead (POST /v1/publishers/NAME/stop).\n\
    \n\
    Examples:\n  \
    onair stream list --config /etc/onair/onair.toml\n  \
    onair stream stop main --config onair.toml --json"
)]
pub struct Stream {
    /// What to do
    pub action: StreamAction,

    /// The publisher whose account and stream are meant; may be left out where the file has one of them
    pub publisher: Option<String>,

    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,

    /// Another stream of the account, by its id
    #[arg(long, value_name = "ID", conflicts_with = "name")]
    pub id: Option<String>,

    /// Another stream of the account, by its name; or the name of the one to create
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,

    /// Delete without being asked again; needed for delete
    #[arg(long)]
    pub yes: bool,

    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// What `onair stream` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StreamAction {
    /// Make a stream that takes WebRTC.
    Create,
    /// Remove the stream for good.
    Delete,
    /// List the account's streams.
    List,
    /// Start the stream and wait until it takes media. It costs from then on.
    Start,
    /// Show the stream.
    Status,
    /// Stop the stream.
    Stop,
}

/// How long a run lasts and what it leaves behind.
#[derive(Args, Clone, Debug, Default)]
pub struct Extent {
    /// Stop after this time, such as 20s or 1.5min; without it, run until interrupted
    #[arg(long = "for", value_name = "TIME", value_parser = time)]
    pub duration: Option<Duration>,

    /// Write the report there at the end, as JSON; the exit code is 3 if its verdict is fail
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}

/// `onair demo`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  \
    onair demo --for 20s --report report.json\n  \
    onair demo --video camera")]
pub struct Demo {
    /// Duration and report.
    #[command(flatten)]
    pub extent: Extent,

    /// What to show; the test card carries a clock, so that only with it latency is measured and each run is alike
    #[arg(long, value_name = "SOURCE", default_value = "testcard")]
    pub video: DemoVideo,
}

/// What the demo shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DemoVideo {
    /// The first camera found, with the default microphone.
    Camera,
    /// The test card, with the tone.
    Testcard,
}

/// `onair run`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "The first interrupt (Ctrl-C, SIGTERM) stops in order, the second at once. A hang-up (SIGHUP) reads the\n\
    configuration again: a file with faults changes nothing, and of a good one only what differs begins anew.\n\
    \n\
    Examples:\n  \
    onair run --config /etc/onair/onair.toml\n  \
    onair run --config config/demo.toml --for 20s --report report.json"
)]
pub struct Run {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,

    /// Read the configuration again too when its file, or one of those that it names, has changed
    #[arg(long)]
    pub watch: bool,

    /// Duration and report.
    #[command(flatten)]
    pub extent: Extent,
}

/// `onair check`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  \
    onair check --config /etc/onair/onair.toml\n  \
    onair check --config onair.toml --offline --json")]
pub struct Check {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,

    /// Judge the text alone: open none of the secrets and files it names, look up no server's name
    #[arg(long)]
    pub offline: bool,

    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// `onair bundle`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Works whether the daemon runs or not. MANIFEST in the file says what is in it and what was left out; secrets are.\n\
    Run it as root to have the journal and the daemon's files in it too.\n\
    \n\
    Examples:\n  \
    onair bundle\n  \
    onair bundle --config onair.toml --output front-door.tar.gz"
)]
pub struct Bundle {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,

    /// Where to write it, a gzipped tar; default: onair-bundle-TIME.tar.gz in the current folder
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// `onair devices`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  \
    onair devices\n  \
    onair devices --json | jq '.cameras[].device'")]
pub struct Devices {
    /// Print the list as JSON
    #[arg(long)]
    pub json: bool,
}

/// `onair lab`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  \
    onair lab --profile wowza-cloud,qencode --rest --time-scale 0.1\n  \
    onair lab --listen 192.0.2.7:8080 --port ome-0.20=3333 --self-signed certs --turn=3478 --turn-tls 443 --report report.json")]
pub struct Lab {
    /// Where the page listens; each server gets a free port at the same IP address
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,

    /// IP address of media, of relays, and of the candidates that are handed out: one of this machine; needed if
    /// --listen names all of them, otherwise the same
    #[arg(long, value_name = "IP")]
    pub media_ip: Option<IpAddr>,

    /// Signalling port of a server, such as ome-0.21=3333; repeated
    #[arg(long = "port", value_name = "NAME=PORT", value_parser = profile_port)]
    pub ports: Vec<(String, u16)>,

    /// Secure signalling with this certificate (PEM, with those that it was issued by)
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// The key of the certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// Secure signalling with a certificate made for this run; DIR/ca.pem is what publishers have to trust (ca_file)
    #[arg(long, value_name = "DIR", conflicts_with = "tls_cert")]
    pub self_signed: Option<PathBuf>,

    /// Run a TURN server too, over UDP and TCP, on this port or a free one; its URLs and the user are printed
    #[arg(long, value_name = "PORT", num_args = 0..=1, require_equals = true, default_missing_value = "0")]
    pub turn: Option<u16>,

    /// The TURN server takes TLS too, on this port; needs --turn and a certificate
    #[arg(long, value_name = "PORT", requires = "turn")]
    pub turn_tls: Option<u16>,

    /// Where the TURN server's password is; without this flag, one of chance is printed
    #[arg(long, value_name = "FILE", requires = "turn")]
    pub turn_password_file: Option<PathBuf>,

    /// TCP port of the TURN server that OvenMediaEngine has inside, which its offers tell of where transport= asks
    /// for it; without this flag, a free one
    #[arg(
        long,
        value_name = "PORT",
        default_value_t = 0,
        hide_default_value = true
    )]
    pub ome_turn_port: u16,

    /// The address that OvenMediaEngine's offers tell of its TURN server instead of the right one, as from within a
    /// container
    #[arg(long, value_name = "IP")]
    pub ome_turn_address: Option<IpAddr>,

    /// OvenMediaEngine's offers always tell of its TURN server (TcpForce)
    #[arg(long)]
    pub ome_turn_forced: bool,

    /// Run a proxy too, which opens tunnels by CONNECT, on this port of the address of --listen
    #[arg(long, value_name = "PORT")]
    pub proxy: Option<u16>,

    /// Ports that the proxy connects to, as a list or repeated; all of them without this flag
    #[arg(long, value_name = "PORT", value_delimiter = ',', requires = "proxy")]
    pub proxy_allow: Vec<u16>,

    /// Which servers to be, as a list or repeated; all of them without this flag
    #[arg(
        long = "profile",
        value_name = "NAME",
        value_delimiter = ',',
        value_parser = PROFILES,
        default_values = PROFILES
    )]
    pub profiles: Vec<String>,

    /// What publishers by WHIP have to show as bearer; OvenMediaEngine never asks
    #[arg(long, value_name = "TOKEN")]
    pub bearer: Option<String>,

    /// Engines only answer ICE's checks, and say so by WHIP
    #[arg(long)]
    pub ice_lite: bool,

    /// The vendors' control planes.
    #[command(flatten)]
    pub control: Control,

    /// Multiply the servers' and vendors' own times by this: with 0.01 the twenty minutes of an idle stream are twelve seconds
    #[arg(long, value_name = "FACTOR", default_value = "1", value_parser = factor)]
    pub time_scale: f64,

    /// Be a wrong server: a negative control that every client must fail on; code-404, missing-fingerprint,
    /// wrong-fingerprint, wrong-ice-pwd or wrong-turn-password
    #[arg(long = "mutate", value_name = "NAME")]
    pub mutation: Option<String>,

    /// Duration and report.
    #[command(flatten)]
    pub extent: Extent,
}

/// The control planes of `onair lab`.
#[derive(Args, Clone, Debug)]
pub struct Control {
    /// Be the REST APIs of Wowza Video and Qencode too: at wowza-cloud and qencode one can then publish to started streams alone
    #[arg(long)]
    pub rest: bool,

    /// Port of a vendor's API, such as wowza=8087; repeated; without this flag, a free one
    #[arg(long = "rest-port", value_name = "NAME=PORT", requires = "rest", value_parser = vendor_port)]
    pub rest_ports: Vec<(String, u16)>,

    /// Name of a stream that exists at both from the start; repeated
    #[arg(
        long = "rest-stream",
        value_name = "NAME",
        requires = "rest",
        default_value = "front"
    )]
    pub rest_streams: Vec<String>,

    /// Where the token is that Wowza Video takes; without this flag, one of chance is printed
    #[arg(long, value_name = "FILE", requires = "rest")]
    pub wowza_token_file: Option<PathBuf>,

    /// Where the API key is that Qencode takes; without this flag, one of chance is printed
    #[arg(long, value_name = "FILE", requires = "rest")]
    pub qencode_key_file: Option<PathBuf>,
}

/// `onair probe`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "No offer and no answer of ours is ever sent, so nobody who is live under that name is disturbed:\n\
    OvenMediaEngine is asked under a name of chance, Wowza for its list of streams, WHIP for its options.\n\
    \n\
    A signed URL, or one with a stream key, is a secret, and lists of processes show what stands on a command line: `-`\n\
    reads it from standard input, --config takes it from a file.\n\
    \n\
    Examples:\n  \
    onair probe - < /run/secrets/url\n  \
    onair probe --config /etc/onair/onair.toml main --json"
)]
pub struct Probe {
    /// The server; `-` reads its URL from standard input, as one that is signed or holds a key must be, for lists of processes show what stands here: ws(s)://host/app/stream (OvenMediaEngine, Qencode), ws(s)://host/webrtc-session.json (Wowza), http(s)://... (WHIP); with --config, the name of a publisher
    #[arg(value_name = "URL", required_unless_present = "config")]
    pub url: Option<String>,

    /// Ask the server of a publisher in this configuration file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["application", "stream", "ca_file", "insecure_tls", "proxy"])]
    pub config: Option<PathBuf>,

    /// Wowza's application
    #[arg(long, value_name = "NAME")]
    pub application: Option<String>,

    /// Wowza's stream name, without a query
    #[arg(long, value_name = "NAME")]
    pub stream: Option<String>,

    /// Trust these certificate authorities too (PEM)
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,

    /// Take any certificate of the host in the URL
    #[arg(long)]
    pub insecure_tls: bool,

    /// Ask OvenMediaEngine under the very name of the URL, where it refuses others; may end whoever is live under it
    #[arg(long)]
    pub this_name: bool,

    /// HTTP proxy to leave through, or `none`; without user and password, which HTTPS_PROXY may hold; default: the environment's
    #[arg(long, value_name = "URL")]
    pub proxy: Option<String>,

    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// `onair generate`.
#[derive(Args, Clone, Debug)]
pub struct Generate {
    /// The folder; it is made
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
}

/// Where the daemon's configuration belongs.
const DEFAULT_CONFIG: &str = "/etc/onair/onair.toml";

/// The names of the lab's profiles.
const PROFILES: [&str; 10] = [
    "ome-0.16",
    "ome-0.20",
    "ome-0.21",
    "qencode",
    "whip",
    "whip-ome",
    "whip-wowza",
    "wowza-cloud",
    "wowza-se",
    "wowza-v2",
];

fn profile_port(text: &str) -> Result<(String, u16), String> {
    let (name, port) = text
        .split_once('=')
        .ok_or("a server and its port, such as ome-0.21=3333")?;
    if !PROFILES.contains(&name) {
        return Err(format!("{name:?} is none of {}", PROFILES.join(", ")));
    }
    let port = port.parse().map_err(|_| format!("{port:?} is no port"))?;
    Ok((name.to_owned(), port))
}

fn vendor_port(text: &str) -> Result<(String, u16), String> {
    let (name, port) = text
        .split_once('=')
        .ok_or("a vendor and its port, such as wowza=8087")?;
    if !matches!(name, "qencode" | "wowza") {
        return Err(format!("{name:?} is neither qencode nor wowza"));
    }
    let port = port.parse().map_err(|_| format!("{port:?} is no port"))?;
    Ok((name.to_owned(), port))
}

fn factor(text: &str) -> Result<f64, String> {
    let factor: f64 = text.parse().map_err(|_| "a number, such as 0.01")?;
    if (0.000_1..=100.0).contains(&factor) {
        Ok(factor)
    } else {
        Err("a factor between 0.0001 and 100".to_owned())
    }
}

fn time(text: &str) -> Result<Duration, String> {
    units::duration(text).ok_or_else(|| {
        "a time has a unit, such as 20s, 500ms or 1.5min, and is ten years at most".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
        shown().debug_assert();
    }

    #[test]
    fn profiles_come_as_a_list_or_repeated() {
        let parse = |args: &[&str]| {
            let Verb::Lab(lab) = Cli::parse_from(args).verb else {
                panic!("{args:?} is another verb");
            };
            lab.profiles
        };
        assert_eq!(parse(&["onair", "lab"]), PROFILES);
        let listed = ["onair", "lab", "--profile", "ome-0.21,qencode"];
        let repeated = [
            "onair",
            "lab",
            "--profile",
            "ome-0.21",
            "--profile",
            "qencode",
        ];
        assert_eq!(parse(&listed), parse(&repeated));
        assert_eq!(parse(&listed), ["ome-0.21", "qencode"]);
    }

    #[test]
    fn the_lab_takes_ports_by_name_and_a_turn_server_with_or_without_port() {
        let parse = |args: &[&str]| {
            let all = [&["onair", "lab"], args].concat();
            Cli::try_parse_from(all).map(|cli| {
                let Verb::Lab(lab) = cli.verb else {
                    panic!("{args:?} is another verb");
                };
                lab
            })
        };
        let lab = parse(&["--port", "ome-0.21=3333", "--port", "qencode=4444"]);
        let ports = lab.expect("parses").ports;
        assert_eq!(ports[0], ("ome-0.21".to_owned(), 3_333));
        assert_eq!(ports[1], ("qencode".to_owned(), 4_444));
        for wrong in ["ome-0.21", "ome-0.21=x", "ome=3333", "ome-0.21=70000"] {
            assert!(parse(&["--port", wrong]).is_err(), "{wrong}");
        }
        let turn = |args: &[&str]| parse(args).expect("parses").turn;
        assert_eq!((turn(&[]), turn(&["--turn"])), (None, Some(0)));
        assert_eq!(turn(&["--turn=3478"]), Some(3_478));
        assert!(
            parse(&["--rest-port", "wowza=1"]).is_err(),
            "without --rest"
        );
        assert!(parse(&["--rest", "--rest-port", "ome=1"]).is_err());
        assert!(parse(&["--time-scale", "0"]).is_err());
        assert!(parse(&["--turn-tls", "443"]).is_err(), "without --turn");
        assert!(parse(&["--tls-cert", "a.pem"]).is_err(), "without a key");
    }
}
