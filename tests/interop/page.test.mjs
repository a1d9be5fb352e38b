// The lab's page in a browser: the received picture moves.

import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

import { KITS, Onair, launch, publish, serveFolder, until } from "./support.mjs";

const OUT = fileURLToPath(new URL("out/", import.meta.url));

let browser, site;

before(async () => {
  await mkdir(OUT, { recursive: true });
  [browser, site] = await Promise.all([launch(), serveFolder()]);
});
after(async () => { await browser?.close(); site?.close(); });

/** Watches the page until every one of `n` sessions shows a picture that moves. */
async function watch(url, n) {
  const page = await browser.newPage({ viewport: { width: 1280, height: 960 } });
  const faults = [];
  page.on("pageerror", error => faults.push(error.message));
  await page.goto(url);
  const look = () => page.evaluate(() => [...document.querySelectorAll("article:not(.ended) video")].map(video => {
    const canvas = Object.assign(document.createElement("canvas"), { width: 160, height: 90 });
    const draw = canvas.getContext("2d");
    draw.drawImage(video, 0, 0, 160, 90);
    return {
      time: video.currentTime,
      frames: video.getVideoPlaybackQuality().totalVideoFrames,
      pixels: [...draw.getImageData(0, 0, 160, 90).data],
    };
  }));
  const live = views => views.length === n && views.every(view => view.frames > 10);
  const { views: first } = await until("pictures on the page", 40, async () => {
    const views = await look();
    return { done: live(views), views: live(views) ? views : views.map(({ time, frames }) => ({ time, frames })) };
  });
  const { views: later } = await until("further pictures", 20, async () => {
    const views = await look();
    const moved = views.every((view, i) => view.frames >= first[i].frames + 15);
    return { done: moved, views: moved ? views : views.map(({ time, frames }) => ({ time, frames })) };
  });
  for (const [i, view] of later.entries()) {
    assert.ok(view.time > first[i].time, `currentTime of picture ${i} stands at ${view.time}`);
    const changed = view.pixels.filter((value, at) => Math.abs(value - first[i].pixels[at]) > 8).length;
    assert.ok(changed > 20, `picture ${i} does not move: ${changed} values changed`);
    const levels = new Set(view.pixels.filter((_, at) => at % 4 !== 3));
    assert.ok(levels.size > 8, `picture ${i} is of ${levels.size} levels only`);
  }
  return { page, faults };
}

test("the page shows what a browser publishes", async () => {
  const lab = await Onair.start("lab", ["--listen", "127.0.0.1:0", "--profile", "ome-0.21,qencode"], 90);
  const context = await browser.newContext();
  try {
    const [kit] = Object.keys(KITS);
    await publish(context, site, kit, lab.endpoints["ome-0.21"] + "?direction=send");
    const publisher = await publish(context, site, kit, lab.endpoints.qencode + "?direction=send&transport=tcp");
    const { page, faults } = await watch(lab.page, 2);
    assert.ok(await page.getByText("request_offer").count() >= 2, "the messages are shown");
    await page.screenshot({ path: `${OUT}lab.png` });

    await publisher.evaluate(() => instance.stopStreaming());
    await page.waitForFunction(() => document.querySelectorAll("article.ended").length === 1);
    assert.equal(await page.locator("article.ended .verdict").textContent(), "PASS");
    assert.deepEqual(faults, []);
    await page.close();
  } finally {
    await context.close();
    lab.kill();
  }
});

test("the page shows the demo", { skip: process.env.ONAIR_DEMO === "no" && "ONAIR_DEMO=no" }, async () => {
  const demo = await Onair.start("demo", [], 40);
  try {
    const { page, faults } = await watch(demo.page, 2);
    await until("both sessions on air for a while", 40, async () => {
      const sessions = await demo.sessions();
      return { done: sessions.length === 2 && sessions.every(s => s.report.video.frames_decoded > 360), sessions };
    });
    await page.screenshot({ path: `${OUT}page.png` });
    assert.deepEqual(faults, []);
    await page.close();
    const report = await demo.stop();
    assert.equal(report.verdict, "pass", report.reasons.join("; "));
    assert.equal(report.code, 0);
  } finally {
    demo.kill();
  }
});
