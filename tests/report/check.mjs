// Opens reports in headless Chromium as people do: light and dark, wide and narrow. No console error, nothing fetched, no
// serious fault found by axe-core, readable within a second, smooth to move in.
//
//   node check.mjs [--shots DIR] FILE.html…
//
// Needs puppeteer-core and axe-core beside it or in NODE_PATH (see `run`), and Chromium in CHROMIUM or on the path.
import { createRequire } from "node:module";
import { mkdirSync, readFileSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const require = createRequire(join(process.env.NODE_PATH || process.cwd(), "x.js"));
const puppeteer = require("puppeteer-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

const LOAD_MS = 1000;
const FRAME_MS = 50;
const args = process.argv.slice(2);
const shots = args[0] === "--shots" ? (args.shift(), args.shift()) : null;
if (shots) mkdirSync(shots, { recursive: true });
const browser = await puppeteer.launch({
  executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
});
let failed = 0;
const check = (ok, what) => { if (!ok) failed += 1; console.log((ok ? "ok    " : "FAILED ") + what); };

for (const file of args) {
  for (const scheme of ["light", "dark"]) {
    for (const [size, width, height] of [["wide", 1360, 900], ["narrow", 390, 800]]) {
      const page = await browser.newPage();
      const errors = [], requests = [];
      page.on("console", (m) => { if (["error", "warn"].includes(m.type())) errors.push(m.text()); });
      page.on("pageerror", (e) => errors.push(String(e)));
      page.on("request", (r) => { if (!r.url().startsWith("file:") && !r.url().startsWith("data:")) requests.push(r.url()); });
      await page.setViewport({ width, height });
      await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
      const url = pathToFileURL(resolve(file)).href, name = `${basename(file, ".html")} ${scheme} ${size}`;
      const views = [];
      let from = Date.now();
      await page.goto(url, { waitUntil: "load" });
      await page.waitForSelector("html[data-ready]", { timeout: 20000 });
      await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
      const took = Date.now() - from;
      check(took < LOAD_MS, `${name}: loaded and drawn in ${took} ms`);
      const buttons = await page.$$eval("#views button", (all) => all.length);
      for (let view = 0; view < Math.max(1, buttons); view += 1) {
        if (buttons) {
          const [key, ms] = await page.evaluate((i) => new Promise((done) => {
            const start = performance.now();
            document.querySelectorAll("#views button")[i].click();
            requestAnimationFrame(() => requestAnimationFrame(() => done([location.hash.slice(1), performance.now() - start])));
          }), view);
          views.push(key);
          check(ms < LOAD_MS, `${name} ${key}: shown in ${Math.round(ms)} ms`);
        } else views.push("");
        const canvas = await page.$("canvas");
        if (canvas) {
          // Every key that moves the picture, a few times each.
          const frames = await page.evaluate(async () => {
            const out = [], target = document.querySelector("canvas");
            target.focus();
            for (const key of ["0", "+", "ArrowRight", "ArrowLeft", "+", "ArrowRight", "-", "0", "v", "ArrowDown", "n", "n", "p"]) {
              target.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
              const start = performance.now();
              await new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)));
              out.push([performance.now() - start, key]);
            }
            return out.sort((a, b) => a[0] - b[0]);
          });
          // The first of a kind is slower: the script is compiled then, and the machine may be busy.
          const [median] = frames[frames.length >> 1], [worst, key] = frames[frames.length - 1];
          check(median < FRAME_MS && worst < LOAD_MS, `${name}: a move is drawn within ${median.toFixed(1)} ms, at worst ${worst.toFixed(1)} ms (key ${key})`);
          const said = await page.$eval(".live", (e) => e.textContent);
          check(said.length > 0, `${name}: the keyboard tells what it finds: ${said.slice(0, 70)}`);
        }
        const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
        check(wide <= 0, `${name}: nothing sticks out sideways (${wide} px)`);
        await page.evaluate(axe);
        const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
        const serious = found.violations.filter((v) => ["serious", "critical"].includes(v.impact));
        check(serious.length === 0, `${name} ${views[view]}: axe-core, serious faults: ${serious.map((v) => v.id + " " + v.nodes.length + " " + v.nodes[0].html.slice(0, 100)).join("; ") || "none"}`);
        if (shots) {
          await page.evaluate(() => scrollTo(0, 0));
          await page.screenshot({ path: join(shots, `${name} ${views[view]}.png`.replaceAll(" ", "-").replace("-.png", ".png")), fullPage: true });
        }
      }
      check(errors.length === 0, `${name}: console: ${errors.join("; ") || "no error"}`);
      check(requests.length === 0, `${name}: requests: ${requests.join(", ") || "none"}`);
      await page.close();
    }
  }
}
await browser.close();
process.exit(failed ? 1 : 0);
