"""Publishes moving pictures and silence by WHIP with aiortc: publisher.py URL SECONDS. Exit code 1 if it does not connect."""

import asyncio
import sys
import urllib.parse
import urllib.request

import numpy
from aiortc import RTCPeerConnection, RTCRtpSender, RTCSessionDescription, VideoStreamTrack
from aiortc.mediastreams import AudioStreamTrack
from av import VideoFrame


class Pictures(VideoStreamTrack):
    """A bar that wanders over grey."""

    count = 0

    async def recv(self):
        pts, time_base = await self.next_timestamp()
        picture = numpy.full((240, 320, 3), 90, numpy.uint8)
        at = 4 * self.count % 300
        picture[:, at:at + 20] = (30, 200, 240)
        self.count += 1
        frame = VideoFrame.from_ndarray(picture, format="rgb24")
        frame.pts, frame.time_base = pts, time_base
        return frame


def request(url, method, body=None, headers=None):
    """Status, final URL, headers and body."""
    data = body.encode() if body is not None else None
    asked = urllib.request.Request(url, data=data, method=method, headers=headers or {})
    with urllib.request.urlopen(asked, timeout=10) as response:
        return response.status, response.url, response.headers, response.read().decode()


async def main(url, seconds):
    peer = RTCPeerConnection()
    connected, failed = asyncio.Event(), asyncio.Event()

    @peer.on("connectionstatechange")
    def changed():
        if peer.connectionState == "connected":
            connected.set()
        elif peer.connectionState in ("failed", "closed"):
            failed.set()

    peer.addTransceiver(AudioStreamTrack(), direction="sendonly")
    video = peer.addTransceiver(Pictures(), direction="sendonly")
    codecs = RTCRtpSender.getCapabilities("video").codecs
    video.setCodecPreferences([codec for codec in codecs if codec.mimeType == "video/H264"])
    await peer.setLocalDescription(await peer.createOffer())
    sdp = peer.localDescription.sdp
    status, final, headers, answer = await asyncio.to_thread(
        request, url, "POST", sdp, {"Content-Type": "application/sdp"})
    assert status == 201, status
    session = urllib.parse.urljoin(final, headers["Location"])
    await peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    either = [asyncio.ensure_future(connected.wait()), asyncio.ensure_future(failed.wait())]
    await asyncio.wait(either, timeout=15, return_when=asyncio.FIRST_COMPLETED)
    if connected.is_set():
        await asyncio.sleep(seconds)
    await peer.close()
    status, _, _, _ = await asyncio.to_thread(request, session, "DELETE")
    assert status == 200, status
    return 0 if connected.is_set() else 1


sys.exit(asyncio.run(main(sys.argv[1], float(sys.argv[2]))))
