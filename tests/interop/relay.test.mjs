// Relays in the lab, judged by Chromium's TURN client and OvenMediaEngine's own kit, neither of which was written
// here: the embedded TURN server of older and newer OvenMediaEngines, and the lab's real TURN server.

import assert from "node:assert/strict";
import { X509Certificate, createHash } from "node:crypto";
import { mkdtemp, readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";

import { Onair, launch, publish, serveFolder, until } from "./support.mjs";

const KIT = "ovenlivekit 1.5.8";
const SECONDS_ON_AIR = 5;

let browser, site;

before(async () => { [browser, site] = await Promise.all([launch(), serveFolder()]); });
after(async () => { await browser?.close(); site?.close(); });

/** Runs `body` with a fresh lab and a fresh profile of the browser; both are gone afterwards. */
async function rehearse(profile, args, query, body, launched = async () => browser) {
  const lab = await Onair.start("lab", ["--listen", "127.0.0.1:0", "--profile", profile, ...args], 90);
  const chosen = await launched();
  const context = await chosen.newContext();
  try {
    const endpoint = lab.endpoints[profile];
    return await body(lab, context, endpoint + (endpoint.includes("?") ? query : `?direction=send${query}`));
  } finally {
    await context.close();
    if (chosen !== browser) await chosen.close();
    lab.kill();
  }
}

/** Publishes until the lab has judged, and demands that it passes over `transport`. */
async function passes(lab, context, url, transport, connection = {}) {
  const page = await publish(context, site, KIT, url, connection);
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
  const [session] = report.sessions;
  assert.deepEqual(session.violations, []);
  assert.equal(report.verdict, "pass", report.reasons.join("; "));
  assert.equal(session.transport, transport);
  assert.ok(session.video.frames_decoded >= 0.97 * session.video.frames_received, JSON.stringify(session.video));
}

/** Publishes, and demands that the relay gives no candidate, so that no connection comes of it. */
async function fails(lab, context, url, connection = {}) {
  const page = await publish(context, site, KIT, url, connection);
  const { seen } = await until("the end of gathering", 60, async () => {
    const seen = await page.evaluate(() => seen);
    return { done: seen.gathering.includes("complete"), seen };
  });
  assert.equal(seen.candidates, 0, JSON.stringify(seen));
  assert.ok(!seen.connection.includes("connected"), JSON.stringify(seen));
  await page.evaluate(() => instance.stopStreaming());
  await until("ended at the lab", 40, async () => {
    const [session] = await lab.sessions();
    return { done: session?.state === "ended", session };
  });
  const report = await lab.stop();
  assert.equal(report.verdict, "fail");
  assert.ok(!report.sessions[0].video.frames_decoded);
}

describe(`OvenMediaEngine's embedded TURN server and ${KIT}`, () => {
  const CASES = [
    ["ome-0.16", "&transport=tcp", "turn-tcp"],
    ["ome-0.20", "&transport=tcp", "turn-tcp"],
    ["ome-0.20", "", "udp"],
    ["ome-0.21", "&transport=relay", "turn-tcp"],
    ["ome-0.21", "&transport=tcp", "tcp"],
    ["qencode", "&transport=relay", "turn-tcp"],
    ["whip-ome", "&transport=relay", "turn-tcp"],
  ];
  for (const [profile, query, transport] of CASES) {
    test(`publishes to ${profile} with ${query || "nothing asked"} over ${transport}`,
      () => rehearse(profile, [], query, (lab, context, url) => passes(lab, context, url, transport)));
  }

  test("finds a server that knows itself by an internal address alone",
    () => rehearse("ome-0.20", ["--ome-turn-address", "10.255.255.1"], "&transport=tcp",
      (lab, context, url) => passes(lab, context, url, "turn-tcp")));

  for (const [profile, query] of [["ome-0.20", "&transport=tcp"], ["ome-0.21", "&transport=relay"]]) {
    test(`fails at ${profile} on a wrong TURN password`,
      () => rehearse(profile, ["--mutate", "wrong-turn-password"], query, fails));
  }
});

describe("the lab's TURN server and Chromium", () => {
  const through = (lab, transport, password = lab.turnPassword) => ({
    iceServers: [{
      urls: lab.turn.filter(url => transport === "tls" ? url.startsWith("turns:") : url.endsWith(`=${transport}`)
        && url.startsWith("turn:")),
      username: lab.turnUser,
      credential: password,
    }],
    iceTransportPolicy: "relay",
  });

  for (const transport of ["udp", "tcp"]) {
    test(`relays over ${transport}`, () => rehearse("ome-0.21", ["--turn"], "&transport=udp",
      (lab, context, url) => passes(lab, context, url, "turn", through(lab, transport))));

    test(`does not relay over ${transport} for a wrong password`,
      () => rehearse("ome-0.21", ["--turn"], "&transport=udp",
        (lab, context, url) => fails(lab, context, url, through(lab, transport, "wrong"))));
  }

  test("relays over tls, with signalling under the same certificate", async () => {
    const folder = await mkdtemp(join(tmpdir(), "onair-certificate-"));
    await rehearse("ome-0.21", ["--turn", "--turn-tls", "0", "--self-signed", folder], "&transport=udp", async (lab, context, url) => {
      assert.match(url, /^wss:/);
      await passes(lab, context, url, "turn", through(lab, "tls"));
    }, async () => {
      const certificate = new X509Certificate(await readFile(join(folder, "ca.pem")));
      const key = certificate.publicKey.export({ type: "spki", format: "der" });
      const pin = createHash("sha256").update(key).digest("base64");
      return launch([`--ignore-certificate-errors-spki-list=${pin}`]);
    });
  });
});
