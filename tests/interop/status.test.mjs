// The agent's page in a browser: what it shows of an agent on air, and of one whose server is gone; the token.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdir, mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

import { Onair, launch, until } from "./support.mjs";

const OUT = fileURLToPath(new URL("out/", import.meta.url));
const TOKEN = "a-token-for-this-test";

let browser;

before(async () => {
  await mkdir(OUT, { recursive: true });
  browser = await launch();
});
after(async () => { await browser?.close(); });

/** Runs an agent that publishes to `url`, and waits for its status server. */
async function agent(url, status) {
  const folder = await mkdtemp(join(tmpdir(), "onair-status-"));
  const file = join(folder, "onair.toml");
  await writeFile(file, `
[feed.front]
video = { source = "testcard", size = "640x360", fps = 15 }
audio = { source = "tone" }
[publisher.main]
feed = "front"
to = "ome"
url = "${url}"
[daemon.status]
${status}
`);
  const child = spawn(process.env.ONAIR, ["run", "--config", file, "--for", "90s"], { stdio: ["ignore", "ignore", "pipe"] });
  const ended = new Promise(resolve => child.once("exit", resolve));
  const told = (async () => {
    for await (const line of createInterface({ input: child.stderr })) {
      const at = line.match(/status at (http:\S+)/);
      if (at) return at[1];
    }
    throw new Error("the agent ended before its status server was there");
  })();
  const at = await told;
  child.stderr.resume();
  return { at, stop: async () => { child.kill("SIGINT"); await ended; } };
}

async function open(at) {
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
  const faults = [];
  page.on("pageerror", error => faults.push(error.message));
  page.on("console", message => { if (message.type() === "error") faults.push(message.text()); });
  await page.goto(at);
  const text = async () => (await page.locator("body").innerText()).toLowerCase();
  const shows = (words) => until(`the page to show ${words}`, 40, async () => {
    const shown = await text();
    return { done: words.every(word => shown.includes(word)), shown };
  });
  return { page, faults, shows, text };
}

test("the page shows an agent on air, and then off air and why", async () => {
  const lab = await Onair.start("lab", ["--listen", "127.0.0.1:0", "--profile", "ome-0.21"], 90);
  const { at, stop } = await agent(lab.endpoints["ome-0.21"], 'listen = "127.0.0.1:0"');
  try {
    const { page, faults, shows } = await open(at);
    await shows(["healthy", "on air", "main", "udp", "feed front", "640x360 at 15", "nothing so far"]);
    const curve = () => page.locator("svg path").first().evaluate(path => path.getTotalLength());
    const { length } = await until("a curve", 20, async () => {
      const length = await curve();
      return { done: length > 4, length };
    });
    await until("a longer curve", 20, async () => {
      const longer = await curve();
      return { done: longer > length, longer };
    });
    await page.screenshot({ path: join(OUT, "status.png"), fullPage: true });
    await lab.stop();
    await shows(["off air", "next session in", "what went wrong", "publisher main"]);
    assert.deepEqual(faults, []);
  } finally {
    await lab.stop();
    await stop();
  }
});

test("the page asks for the token and then shows everything", async () => {
  const { at, stop } = await agent("ws://127.0.0.1:9/app/x", `listen = "127.0.0.1:0"\ntoken = "${TOKEN}"`);
  try {
    const { page, shows, text } = await open(at);
    await shows(["asks for its status token"]);
    assert.ok(!(await text()).includes("main"), "nothing is shown without it");
    await page.locator("#token").fill("a-wrong-token-for-it");
    await page.locator("#token").press("Enter");
    await shows(["asks for its status token"]);
    await page.locator("#token").fill(TOKEN);
    await page.locator("#token").press("Enter");
    await shows(["main", "feed front", "healthy"]);
    assert.equal(await page.locator("#gate").isVisible(), false);
  } finally {
    await stop();
  }
});
