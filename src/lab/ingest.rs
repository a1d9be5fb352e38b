//! The media engine of a session: ICE over UDP and passive TCP, DTLS as server, SRTP; `str0m` inside.
//!
//! Here it is bound and told the publisher's description; `engine` runs it. Each session has one UDP port and
//! one TCP listener of its own, so there is nothing to tell apart.

use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::time::Duration;

use str0m::Candidate;
use str0m::IceCreds;
use str0m::Rtc;
use str0m::crypto::Fingerprint;
use str0m::format::Codec;
use str0m::format::FormatParams;
use str0m::media::Frequency;
use str0m::media::MediaKind;
use str0m::media::Mid;
use str0m::net::Protocol;
use str0m::net::TcpType;
use str0m::rtp::Extension;
use tokio::net::TcpListener;
use tokio::net::UdpSocket;

use crate::media::access_unit::Track;

use super::framing;
use super::now;
use super::profile::IceRole;
use super::profile::Profile;
use super::turn::Handle;
use super::turn::embedded;
use super::turn::embedded::Place;

/// RTP payload types of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PayloadTypes {
    pub(super) h264: u8,
    pub(super) opus: u8,
    /// Number of the transport-cc header extension, if packets carry it.
    pub(super) transport_cc: Option<u8>,
}

/// ICE credentials: user fragment and password.
pub(super) type Credentials = (String, String);

/// What the publisher's description says about itself.
#[derive(Clone, Debug)]
pub(super) struct Remote {
    pub(super) ufrag: String,
    pub(super) pwd: String,
    /// As after `a=fingerprint:`.
    pub(super) fingerprint: String,
    /// SSRC of each track it sends; a track without is never heard.
    pub(super) tracks: Vec<(Track, u32)>,
}

/// How a session is run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    pub(super) profile: Profile,
    pub(super) ice_role: IceRole,
    /// Silence after which the session is given up.
    pub(super) ghost: Duration,
    /// A key frame is asked for this often while media flows.
    pub(super) key_frame_every: Duration,
    /// Ask for packets that are missing.
    pub(super) nack: bool,
    /// Throw away every n-th packet of the video track when it first arrives, to see it sent again.
    pub(super) withhold: Option<u32>,
}

/// Sockets and engine, before the publisher's description is known.
#[derive(Debug)]
pub(super) struct Ingest {
    /// Boxed: it is large, and is moved about until it runs.
    pub(super) rtc: Box<Rtc>,
    pub(super) udp: Option<UdpSocket>,
    pub(super) tcp: Option<TcpListener>,
    pub(super) options: Options,
    /// Where packets come from that came through the embedded TURN server.
    pub(super) place: Option<Place>,
    /// The lab's TURN server, if it has one.
    pub(super) turn: Option<Handle>,
    transport_cc: bool,
}

impl Ingest {
    /// Binds sockets on `ip` and prepares the engine.
    pub(super) async fn bind(
        ip: IpAddr,
        (udp, tcp): (bool, bool),
        payload_types: PayloadTypes,
        (ufrag, pwd): Credentials,
        options: Options,
    ) -> io::Result<Self> {
        let udp = if udp {
            Some(UdpSocket::bind((ip, 0)).await?)
        } else {
            None
        };
        let tcp = if tcp {
            let listener = TcpListener::bind((ip, 0)).await?;
            framing::as_over_a_network(&listener);
            Some(listener)
        } else {
            None
        };
        let mut config = Rtc::builder()
            .set_local_ice_credentials(IceCreds { ufrag, pass: pwd })
            .set_rtp_mode(true)
            .enable_raw_packets(true)
            .set_rtcp_report_interval_audio(Duration::from_secs(1))
            .set_rtcp_report_interval_video(Duration::from_secs(1))
            .set_stats_interval(None)
            .clear_codecs()
            .clear_extension_map();
        if let Some(id) = payload_types.transport_cc {
            config = config.set_extension(id, Extension::TransportSequenceNumber);
        }
        let codecs = config.codec_config();
        codecs.add_h264(payload_types.h264.into(), None, true, 0x42_e0_1f);
        codecs.add_config(
            payload_types.opus.into(),
            None,
            Codec::Opus,
            Frequency::FORTY_EIGHT_KHZ,
            Some(2),
            FormatParams::default(),
        );
        let mut rtc = Box::new(config.build(now()));
        let failed = |error: str0m::error::IceError| io::Error::other(error.to_string());
        if let Some(socket) = &udp {
            let candidate = Candidate::host(socket.local_addr()?, Protocol::Udp).map_err(failed)?;
            rtc.add_local_candidate(candidate);
        }
        if let Some(listener) = &tcp {
            let candidate = Candidate::builder()
                .tcp()
                .host(listener.local_addr()?)
                .tcptype(TcpType::Passive)
                .build()
                .map_err(failed)?;
            rtc.add_local_candidate(candidate);
        }
        Ok(Self {
            rtc,
            udp,
            tcp,
            options,
            place: None,
            turn: None,
            transport_cc: payload_types.transport_cc.is_some(),
        })
    }

    /// Takes packets from the embedded TURN server too; without UDP they are addressed to its dummy.
    pub(super) fn relayed(&mut self, place: Place) -> io::Result<()> {
        if self.udp.is_none() {
            let candidate = Candidate::host(embedded::DUMMY, Protocol::Udp)
                .map_err(|error| io::Error::other(error.to_string()))?;
            self.rtc.add_local_candidate(candidate);
        }
        self.place = Some(place);
        Ok(())
    }

    /// Addresses of the UDP and the TCP candidate.
    pub(super) fn addresses(&self) -> (Option<SocketAddr>, Option<SocketAddr>) {
        let udp = self.udp.as_ref().and_then(|s| s.local_addr().ok());
        let tcp = self.tcp.as_ref().and_then(|s| s.local_addr().ok());
        (udp, tcp)
    }

    /// Fingerprint of the engine's certificate, as after `a=fingerprint:`.
    pub(super) fn fingerprint(&mut self) -> String {
        self.rtc.direct_api().local_dtls_fingerprint().to_string()
    }

    /// Takes the publisher's description; from now on its checks and its media are understood.
    ///
    /// The error says what of the description is unusable.
    pub(super) fn accept(&mut self, remote: &Remote) -> Result<(), String> {
        let fingerprint: Fingerprint = remote.fingerprint.parse()?;
        let mut api = self.rtc.direct_api();
        let role = self.options.ice_role;
        api.set_ice_controlling(role == IceRole::Controlling);
        api.set_ice_lite(role == IceRole::Lite);
        api.set_remote_ice_credentials(IceCreds {
            ufrag: remote.ufrag.clone(),
            pass: remote.pwd.clone(),
        });
        api.set_remote_fingerprint(fingerprint);
        for track in [Track::Audio, Track::Video] {
            let (mid, kind) = match track {
                Track::Audio => (Mid::from("audio"), MediaKind::Audio),
                Track::Video => (Mid::from("video"), MediaKind::Video),
            };
            api.declare_media(mid, kind);
            for (_, ssrc) in remote.tracks.iter().filter(|(of, _)| *of == track) {
                let nack = self.options.nack && track == Track::Video;
                api.expect_stream_rx((*ssrc).into(), None, mid, None)
                    .suppress_nack(!nack);
            }
        }
        if self.transport_cc {
            api.enable_twcc_feedback();
        }
        api.start_dtls(false).map_err(|error| error.to_string())
    }
}
