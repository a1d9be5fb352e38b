// A lab in a process of its own, a browser, and the pages that publish to it.

import { spawn } from "node:child_process";
import { createServer } from "node:http";
import { mkdtemp, readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { extname, join, normalize } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const HERE = fileURLToPath(new URL(".", import.meta.url));
const ONAIR = process.env.ONAIR;
const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";

/** The kits under test, as their authors published them. */
export const KITS = {
  "ovenlivekit 1.5.8": "/node_modules/ovenlivekit/dist/OvenLiveKit.min.js",
  "ovenlivekit 1.5.6": "/node_modules/ovenlivekit-1.5.6/dist/OvenLiveKit.min.js",
};

/** Runs `onair VERB ARGS`: its endpoints and page as it prints them, and its report once it is told to stop. */
export class Onair {
  static async start(verb, args, seconds) {
    const folder = await mkdtemp(join(tmpdir(), "onair-interop-"));
    const onair = new Onair();
    onair.report = join(folder, "report.json");
    onair.endpoints = {};
    onair.turn = [];
    onair.child = spawn(ONAIR, [verb, ...args, "--for", `${seconds}s`, "--report", onair.report], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    onair.ended = new Promise((resolve, reject) => {
      onair.child.once("error", reject);
      onair.child.once("exit", code => resolve(code));
    });
    const gone = onair.ended.then(code => { throw new Error(`onair ${verb} ended with ${code} before it was ready`); });
    await Promise.race([onair.#ready(), gone]);
    gone.catch(() => {});
    return onair;
  }

  async #ready() {
    for await (const line of createInterface({ input: this.child.stdout })) {
      const lab = line.match(/^lab (\S+) ((?:ws|http)s?:\S+)/);
      if (lab) this.endpoints[lab[1]] = lab[2];
      const turn = line.match(/^turn (\S+)/);
      if (turn) this.turn.push(turn[1]);
      const user = line.match(/^turn-user (\S+) (\S+)/);
      if (user) [, this.turnUser, this.turnPassword] = user;
      const page = line.match(/^(?!proxy|lab ).*?(http:\S+)/);
      if (page) { this.page = page[1]; break; }
    }
    this.child.stdout.resume();
  }

  async sessions() {
    const answer = await fetch(new URL("/v1/sessions", this.page));
    return (await answer.json()).sessions;
  }

  async fault(fault) {
    const answer = await fetch(new URL("/v1/faults", this.page), {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(fault),
    });
    if (!answer.ok) throw new Error(`fault refused: ${answer.status} ${await answer.text()}`);
  }

  /** Told to stop, it drains and writes its report. */
  async stop() {
    this.child.kill("SIGTERM");
    return this.finish();
  }

  async finish() {
    const code = await this.ended;
    return { code, ...JSON.parse(await readFile(this.report, "utf8")) };
  }

  kill() { this.child.kill("SIGKILL"); }
}

/** Serves this folder on loopback, so that pages have an origin that may use a camera. */
export async function serveFolder() {
  const types = { ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8" };
  const server = createServer(async (request, response) => {
    const path = normalize(decodeURIComponent(new URL(request.url, "http://x").pathname));
    try {
      const body = await readFile(join(HERE, path));
      response.writeHead(200, { "Content-Type": types[extname(path)] ?? "application/octet-stream" }).end(body);
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise(resolve => server.listen(0, "127.0.0.1", resolve));
  return { url: `http://127.0.0.1:${server.address().port}`, close: () => server.close() };
}

/** A browser; `more` are further flags of it. */
export function launch(more = []) {
  return chromium.launch({
    executablePath: CHROMIUM,
    args: [
      "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync", "--use-fake-device-for-media-stream",
      "--use-fake-ui-for-media-stream", "--autoplay-policy=no-user-gesture-required",
      ...more,
    ],
  });
}

/** Opens a page with `kit` and lets it publish to `url`, with the kit's own settings in `connection`. */
export async function publish(context, site, kit, url, connection = {}, size = { width: 640, height: 360 }) {
  const page = await context.newPage();
  await page.goto(`${site.url}/publisher.html?kit=${encodeURIComponent(KITS[kit])}`);
  await page.waitForFunction(() => window.ready);
  await page.evaluate(args => publish(...args), [url, size, connection]);
  return page;
}

/** Polls until `look` gives something true; the last thing it gave is in the error. */
export async function until(what, seconds, look) {
  const end = Date.now() + seconds * 1000;
  for (;;) {
    const found = await look();
    if (found.done) return found;
    if (Date.now() > end) throw new Error(`${what}: not within ${seconds} s; last seen ${JSON.stringify(found)}`);
    await new Promise(resolve => setTimeout(resolve, 100));
  }
}

