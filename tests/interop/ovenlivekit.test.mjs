// OvenMediaEngine's own browser client, unmodified, against the lab: the judge is judged by a client that nobody
// here wrote. It must pass, and it must fail on each lie:
//
// | lie of the lab | what the client does |
// |---|---|
// | wrong-fingerprint | connects by ICE, fails in DTLS: the connection goes to `failed`, no error event |
// | wrong-ice-pwd | never connects by ICE: the connection goes to `failed` after 15 s, no error event |
// | missing-fingerprint | refuses the offer: an error event, no connection |
// | code-404 | looks for `error` alone, so it answers the offer; the lab refuses that: an error event |
// | refused, in the words of the real server | an error event with those words, no connection |
//
// The versions are the newest on npm, and of those that npm has the one nearest to 1.5.1.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { KITS, Onair, launch, publish, serveFolder, until } from "./support.mjs";

const SECONDS_ON_AIR = 8;
const QUERY = { "ome-0.21": "?direction=send", qencode: "?direction=send&transport=tcp" };
const TRANSPORT = { "ome-0.21": "udp", qencode: "tcp" };

/** What the client comes to on each lie of the lab's description. */
const LIES = {
  "wrong-fingerprint": { connection: "failed", ice: "connected" },
  "wrong-ice-pwd": { connection: "failed" },
  "missing-fingerprint": { error: /fingerprint/i },
  "code-404": { error: /^Cannot create offer$/ },
};

let browser, site;

before(async () => { [browser, site] = await Promise.all([launch(), serveFolder()]); });
after(async () => { await browser?.close(); site?.close(); });

/** Runs `body` with a fresh lab and a fresh profile of the browser; both are gone afterwards. */
async function rehearse(profile, args, body) {
  const lab = await Onair.start("lab", ["--listen", "127.0.0.1:0", "--profile", profile, ...args], 90);
  const context = await browser.newContext();
  try {
    return await body(lab, context, lab.endpoints[profile] + QUERY[profile]);
  } finally {
    await context.close();
    lab.kill();
  }
}

test("this Chromium can encode H.264", async () => {
  const page = await browser.newPage();
  await page.goto(`${site.url}/publisher.html?kit=`);
  const codecs = await page.evaluate(() => RTCRtpSender.getCapabilities("video").codecs.map(c => c.mimeType));
  await page.close();
  assert.ok(codecs.includes("video/H264"), codecs.join());
});

for (const kit of Object.keys(KITS)) {
  describe(kit, () => {
    for (const profile of Object.keys(QUERY)) {
      test(`publishes to ${profile} and is judged pass`, () => rehearse(profile, [], async (lab, context, url) => {
        const page = await publish(context, site, kit, url);
        await until("on air for a while", 40, async () => {
          const [session] = await lab.sessions();
          const decoded = session?.report.video.frames_decoded ?? 0;
          const sound = session?.report.audio.seconds_decoded ?? 0;
          return { done: session?.state === "on-air" && decoded > 10 * SECONDS_ON_AIR && sound > SECONDS_ON_AIR, session };
        });
        await page.evaluate(() => instance.stopStreaming());
        await until("ended at the lab", 10, async () => {
          const [session] = await lab.sessions();
          return { done: session.state === "ended", session };
        });
        const seen = await page.evaluate(() => seen);
        const report = await lab.stop();

        assert.deepEqual(seen.errors, []);
        assert.ok(seen.connection.includes("connected"), JSON.stringify(seen));
        assert.equal(report.sessions.length, 1);
        const [session] = report.sessions;
        assert.deepEqual(session.violations, []);
        assert.equal(report.verdict, "pass", report.reasons.join("; "));
        assert.equal(session.profile, profile);
        assert.equal(session.transport, TRANSPORT[profile]);
        assert.ok(session.video.frames_decoded >= 0.97 * session.video.frames_received, JSON.stringify(session.video));
        assert.ok(session.video.width > 0 && session.video.idr_count >= 1, JSON.stringify(session.video));
      }));
    }

    for (const [lie, { error, connection, ice }] of Object.entries(LIES)) {
      test(`fails on ${lie}`, () => rehearse("ome-0.21", ["--mutate", lie], async (lab, context, url) => {
        const page = await publish(context, site, kit, url);
        const { seen } = await until("the client's failure", 40, async () => {
          const seen = await page.evaluate(() => seen);
          return { done: seen.errors.length > 0 || seen.connection.includes("failed"), seen };
        });
        const told = JSON.stringify(seen);
        assert.ok(!seen.connection.includes("connected"), told);
        assert.equal(seen.connection.includes("failed"), connection === "failed", told);
        assert.equal(seen.callbacks.includes("ice connected"), ice === "connected", told);
        assert.equal(seen.errors.length > 0, error !== undefined, told);
        if (error) assert.match(seen.errors[0], error);
        await page.evaluate(() => instance.stopStreaming());
        const report = await judgedFail(lab);
        if (lie === "code-404") assert.match(report.reasons.join(), /an offer with code 404 was answered/);
      }));
    }

    test("fails when it is refused", () => rehearse("ome-0.21", [], async (lab, context, url) => {
      await lab.fault({ fault: "refuse", status: 404, times: 1, profile: "ome-0.21" });
      const page = await publish(context, site, kit, url);
      const { seen } = await until("the client's error", 20, async () => {
        const seen = await page.evaluate(() => seen);
        return { done: seen.errors.length > 0, seen };
      });
      assert.deepEqual(seen.errors, ["Cannot create offer"]);
      assert.deepEqual(seen.connection, []);
      await page.evaluate(() => instance.stopStreaming());
      await judgedFail(lab);
    }));
  });
}

async function judgedFail(lab) {
  await until("ended at the lab", 40, async () => {
    const [session] = await lab.sessions();
    return { done: session?.state === "ended", session };
  });
  const report = await lab.stop();
  assert.equal(report.verdict, "fail");
  assert.ok(report.reasons.length > 0);
  for (const session of report.sessions) assert.ok(!session.video.frames_decoded, JSON.stringify(session.video));
  return report;
}
