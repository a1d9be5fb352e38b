// WHIP and Wowza's second dialect: the lab is judged by OvenMediaEngine's own client, by Chromium's WebRTC behind a page
// that follows the specifications, and by aiortc, a WebRTC of another make. Each must pass, and must fail where it should.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { after, before, describe, test } from "node:test";

import { Onair, launch, publish, serveFolder, until } from "./support.mjs";

const KIT = "ovenlivekit 1.5.8";
const SECONDS_ON_AIR = 6;
const PYTHON = fileURLToPath(new URL("node_modules/.python/bin/python", import.meta.url));

let browser, site;

before(async () => { [browser, site] = await Promise.all([launch(), serveFolder()]); });
after(async () => { await browser?.close(); site?.close(); });

/** Runs `body` with a fresh lab and a fresh profile of the browser; both are gone afterwards. */
async function rehearse(profile, args, body) {
  const lab = await Onair.start("lab", ["--listen", "127.0.0.1:0", "--profile", profile, ...args], 90);
  const context = await browser.newContext();
  try {
    return await body(lab, context, lab.endpoints[profile]);
  } finally {
    await context.close();
    lab.kill();
  }
}

/** Waits until the lab has decoded for some seconds more than `before` of them. */
async function onAir(lab, before = 0) {
  const seconds = before + SECONDS_ON_AIR;
  await until("on air for a while", 40, async () => {
    const [session] = await lab.sessions();
    const decoded = session?.report.video.frames_decoded ?? 0;
    const sound = session?.report.audio.seconds_decoded ?? 0;
    return { done: session?.state === "on-air" && decoded > 10 * seconds && sound > seconds, session };
  });
}

async function ended(lab) {
  await until("ended at the lab", 45, async () => {
    const [session] = await lab.sessions();
    return { done: session?.state === "ended", session };
  });
}

/** Stops the lab and demands that it judged one session, and passed it. */
async function passed(lab) {
  await ended(lab);
  const report = await lab.stop();
  assert.equal(report.sessions.length, 1);
  const [session] = report.sessions;
  assert.deepEqual(session.violations, []);
  assert.equal(report.verdict, "pass", report.reasons.join("; "));
  assert.equal(session.transport, "udp");
  assert.equal(session.reconnects, 0);
  assert.ok(session.video.frames_decoded >= 0.97 * session.video.frames_received, JSON.stringify(session.video));
  return session;
}

/** Opens the page without a kit and lets it publish. */
async function begin(context, kind, ...where) {
  const page = await context.newPage();
  await page.goto(`${site.url}/dialects.html`);
  await page.evaluate(args => begin(...args), [kind, ...where]);
  return page;
}

async function messages(lab) {
  const [{ id }] = await lab.sessions();
  const answer = await fetch(new URL(`/v1/sessions/${id}/messages`, lab.page));
  return JSON.stringify(await answer.json());
}

describe(`${KIT} by WHIP`, () => {
  test("publishes to whip-ome and is judged pass", () => rehearse("whip-ome", [], async (lab, context, url) => {
    const page = await publish(context, site, KIT, url);
    await onAir(lab);
    assert.match(await messages(lab), /oven-capabilities: max_width=640/);
    await page.evaluate(() => instance.stopStreaming());
    const session = await passed(lab);
    assert.equal(session.dialect, "whip");
    assert.match(session.end_reason, /deleted/);
    assert.deepEqual(await page.evaluate(() => seen.errors), []);
  }));

  test("fails on wrong-fingerprint", () => rehearse("whip-ome", ["--mutate", "wrong-fingerprint"], async (lab, context, url) => {
    const page = await publish(context, site, KIT, url);
    await until("the client's failure", 40, async () => {
      const seen = await page.evaluate(() => seen);
      return { done: seen.connection.includes("failed"), seen };
    });
    assert.ok(!(await page.evaluate(() => seen.connection)).includes("connected"));
    await page.evaluate(() => instance.stopStreaming());
    await ended(lab);
    const report = await lab.stop();
    assert.equal(report.verdict, "fail");
    assert.ok(!report.sessions[0].video.frames_decoded);
  }));

  for (const [status, text] of [[401, "Unauthorized"], [404, "Could not find application"]]) {
    test(`fails when it is refused with ${status}`, () => rehearse("whip-ome", [], async (lab, context, url) => {
      await lab.fault({ fault: "refuse", status, times: 1, profile: "whip-ome" });
      const page = await publish(context, site, KIT, url);
      const { seen } = await until("the client's error", 20, async () => {
        const seen = await page.evaluate(() => seen);
        return { done: seen.errors.length > 0, seen };
      });
      assert.ok(!seen.connection.includes("connected"), JSON.stringify(seen));
      assert.match(await messages(lab), new RegExp(text));
      const report = await lab.stop();
      assert.equal(report.verdict, "fail");
    }));
  }
});

describe("Chromium without a kit", () => {
  for (const [profile, kind, query, what] of [
    ["whip", "Whip", "", ["POST 201", "PATCH 204", "PATCH 200", "DELETE 200"]],
    ["wowza-v2", "WowzaV2", "?webrtcImplementation=v2", ["OFFER 200", "ICE_RESTART 200"]],
  ]) {
    test(`publishes to ${profile}, restarts ICE and is judged pass`, () => rehearse(profile, [], async (lab, context, url) => {
      const page = await begin(context, kind, url + query, "live", "front");
      assert.deepEqual(await page.evaluate(() => seen.errors), []);
      await onAir(lab);
      await page.evaluate(() => instance.restart());
      await onAir(lab, SECONDS_ON_AIR);
      assert.match(await messages(lab), /checks with its new credentials/);
      await page.evaluate(() => instance.stop());
      await passed(lab);
      const seen = await page.evaluate(() => seen);
      assert.deepEqual(seen.statuses, what);
      if (kind === "WowzaV2") assert.ok(seen.candidates >= 2, JSON.stringify(seen));
    }));

    test(`fails at ${profile} on wrong-fingerprint`, () => rehearse(profile, ["--mutate", "wrong-fingerprint"], async (lab, context, url) => {
      const page = await begin(context, kind, url + query, "live", "front");
      await until("the client's failure", 40, async () => {
        const seen = await page.evaluate(() => seen);
        return { done: seen.connection.includes("failed"), seen };
      });
      await page.evaluate(() => instance.stop());
      await ended(lab);
      assert.equal((await lab.stop()).verdict, "fail");
    }));

    test(`is told at ${profile} that the name is in use`, () => rehearse(profile, [], async (lab, context, url) => {
      await lab.fault({ fault: "hold-name", ms: 60_000, profile });
      const page = await begin(context, kind, url + query, "live", "front");
      const status = kind === "Whip" ? 409 : 503;
      assert.match((await page.evaluate(() => seen.errors)).join(), new RegExp(`: ${status} Stream name is already in use`));
    }));
  }
});

describe("aiortc", { skip: !existsSync(PYTHON) && "aiortc is not installed (see run)" }, () => {
  /** Runs the publisher until it ends by itself; its output. */
  async function python(url, seconds) {
    const script = fileURLToPath(new URL("publisher.py", import.meta.url));
    const child = spawn(PYTHON, [script, url, String(seconds)], { stdio: ["ignore", "pipe", "pipe"] });
    let said = "";
    child.stdout.on("data", data => { said += data; });
    child.stderr.on("data", data => { said += data; });
    const code = await new Promise((resolve, reject) => { child.once("exit", resolve); child.once("error", reject); });
    return { code, said };
  }

  test("publishes to whip and is judged pass", () => rehearse("whip", [], async (lab, _context, url) => {
    const { code, said } = await python(url, 2 * SECONDS_ON_AIR);
    assert.equal(code, 0, said);
    const session = await passed(lab);
    assert.ok(session.video.frames_decoded > 10 * SECONDS_ON_AIR, JSON.stringify(session.video));
  }));

  test("fails on wrong-fingerprint", () => rehearse("whip", ["--mutate", "wrong-fingerprint"], async (lab, _context, url) => {
    const { code, said } = await python(url, SECONDS_ON_AIR);
    assert.notEqual(code, 0, said);
    await lab.stop().then(report => assert.equal(report.verdict, "fail"));
  }));
});
