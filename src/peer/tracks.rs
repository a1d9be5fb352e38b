//! Our tracks as the engine and our descriptions know them: codecs, SSRCs, and the way in for packets.

use std::sync::Arc;

use rtc::rtp_transceiver::rtp_sender::{
    RTCRtpCodec, RTCRtpCodecParameters, RTCRtpCodingParameters, RTCRtpEncodingParameters,
    RtpCodecKind,
};
use webrtc::media_stream::MediaStreamTrack;
use webrtc::media_stream::track_local::TrackLocal;
use webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;

use super::packetizer::Packetizer;
use super::{Config, sdp};
use crate::media::access_unit::Track;
use crate::media::time::{AUDIO_CLOCK_HZ, VIDEO_CLOCK_HZ};

/// One track on its way to the server.
pub(super) struct Sender {
    /// Takes packets.
    pub(super) track: Arc<TrackLocalStaticRTP>,
    /// Makes them.
    pub(super) packetizer: Packetizer,
    /// Its SSRC and codec, as a transceiver is told.
    pub(super) encoding: RTCRtpEncodingParameters,
}

impl Sender {
    /// A track called after `name`.
    pub(super) fn new(
        track: Track,
        ssrc: u32,
        codec: &RTCRtpCodecParameters,
        kind: RtpCodecKind,
        name: &str,
        packetizer: impl FnOnce(u8) -> Packetizer,
    ) -> Self {
        let encoding = RTCRtpEncodingParameters {
            rtp_coding_parameters: RTCRtpCodingParameters {
                ssrc: Some(ssrc),
                ..Default::default()
            },
            codec: codec.rtp_codec.clone(),
            ..Default::default()
        };
        let id = format!("{name}-{track}");
        let local = MediaStreamTrack::new(
            name.to_owned(),
            id.clone(),
            id,
            kind,
            vec![encoding.clone()],
        );
        Self {
            track: Arc::new(TrackLocalStaticRTP::new(local)),
            packetizer: packetizer(codec.payload_type),
            encoding,
        }
    }

    /// The track as the engine takes it.
    pub(super) fn local(&self) -> Arc<dyn TrackLocal> {
        Arc::clone(&self.track) as Arc<dyn TrackLocal>
    }
}

/// The media of our description, and each track with its SSRC and codec, sound first.
pub(super) fn describe(
    config: &Config,
    name: &str,
) -> (sdp::Media, Vec<(Track, u32, RTCRtpCodecParameters)>) {
    let mut media = sdp::Media {
        name: name.to_owned(),
        audio: None,
        video: None,
    };
    let mut codecs = Vec::new();
    // Never 0, which some take for none; and never twice the same.
    let audio_ssrc = fastrand::u32(1..u32::MAX / 2);
    let video_ssrc = fastrand::u32(u32::MAX / 2..u32::MAX);
    if let Some(audio) = config.tracks.audio {
        media.audio = Some(sdp::Audio {
            ssrc: audio_ssrc,
            payload_type: config.payload_types.opus,
            channels: audio.channels,
        });
        let codec = RTCRtpCodec {
            mime_type: "audio/opus".to_owned(),
            clock_rate: AUDIO_CLOCK_HZ,
            channels: 2,
            sdp_fmtp_line: sdp::opus_fmtp(audio.channels).to_owned(),
            rtcp_feedback: Vec::new(),
        };
        codecs.push((Track::Audio, audio_ssrc, codec, config.payload_types.opus));
    }
    if config.tracks.video.is_some() {
        media.video = Some(sdp::Video {
            ssrc: video_ssrc,
            payload_type: config.payload_types.h264,
        });
        let codec = RTCRtpCodec {
            mime_type: "video/H264".to_owned(),
            clock_rate: VIDEO_CLOCK_HZ,
            channels: 0,
            sdp_fmtp_line: sdp::H264_FMTP.to_owned(),
            rtcp_feedback: Vec::new(),
        };
        codecs.push((Track::Video, video_ssrc, codec, config.payload_types.h264));
    }
    let codecs = codecs
        .into_iter()
        .map(|(track, ssrc, rtp_codec, payload_type)| {
            let codec = RTCRtpCodecParameters {
                rtp_codec,
                payload_type,
            };
            (track, ssrc, codec)
        })
        .collect();
    (media, codecs)
}
