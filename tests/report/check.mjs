// Opens reports in headless Chromium as people do: light and dark, wide and narrow. No console error, nothing fetched, no
// serious fault found by axe-core, readable within a second, smooth to move in, all of it by keyboard.
//
// Other programs on the machine make frames late. So times are medians, beside the time that passed there is the time that the
// page's main thread computed, and limits are longer by as much as the machine is slower just then for anything at all.
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
// What people do, a frame a step; `c` is the timeline's canvas and `key` presses one on it.
const KEYS = ["0", "+", "ArrowRight", "ArrowLeft", "+", "ArrowRight", "-", "0", "v", "ArrowDown", "n", "n", "p"];
const FRAMES = 24;
const GESTURES = {
  "scrolling the page": (i) => scrollTo(0, i * 90),
  "the whole run": (i) => key(i % 2 ? "0" : "ArrowRight"),
  "zooming by key": (i) => key(i < 8 ? "+" : i < 16 ? "-" : "0"),
  "zooming by wheel": (i) => c.dispatchEvent(new WheelEvent("wheel", { deltaY: i % 16 < 8 ? -100 : 100, ctrlKey: true, bubbles: true, cancelable: true, clientX: innerWidth / 2, clientY: 140 })),
  dragging: (i) => {
    const at = (type, x) => c.dispatchEvent(new PointerEvent(type, { bubbles: true, pointerId: 1, clientX: x, clientY: 140 }));
    if (i === 0) { key("0"); key("+"); c.setPointerCapture = () => {}; at("pointerdown", innerWidth / 2); }
    at(i === last ? "pointerup" : "pointermove", innerWidth / 2 + 4 * i);
  },
  filtering: (i) => {
    if (i === 0) key("0");
    const box = document.querySelector("input[type=text]"), all = document.querySelectorAll("datalist option");
    box.value = i % 3 === 2 || i === last ? "" : all[i % all.length].value;
    box.dispatchEvent(new Event("input"));
  },
  "switching lanes": (i) => { const all = document.querySelectorAll("[aria-label=Timeline] input[type=checkbox]"); all[(i >> 1) % all.length].click(); },
  "scrolling a table": (i) => { const box = [...document.querySelectorAll("table.virtual")].pop().parentElement; if (i === 0) box.scrollIntoView(); box.scrollTop = i * 777; },
  "choosing rows": (i) => [...document.querySelectorAll("main input[type=checkbox]")].pop().click(),
  "telling events": (i) => key(i % 3 === 0 ? "ArrowDown" : "n"),
};
// Runs in the page.
const play = async (source, frames) => {
  const c = document.querySelector("canvas"), key = (k) => c.dispatchEvent(new KeyboardEvent("keydown", { key: k, bubbles: true, cancelable: true }));
  const frame = () => new Promise(requestAnimationFrame), last = frames - 1, times = [];
  const act = new Function("c", "key", "last", "return " + source)(c, key, last);
  scrollTo(0, scrollY + c.getBoundingClientRect().top - 20);
  // What was put off by the gesture before is not this one's.
  await new Promise((done) => setTimeout(done, 300));
  let from = await frame();
  for (let i = 0; i < frames; i += 1) {
    act(i);
    const at = await frame();
    times.push(at - from);
    from = at;
  }
  return times.sort((a, b) => a - b);
};
const spin = (ms) => { const from = performance.now(); while (performance.now() - from < ms); return performance.now() - from; };
const median = (all) => [...all].sort((a, b) => a - b)[all.length >> 1];
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
      const tools = await page.createCDPSession();
      await tools.send("Performance.enable", { timeDomain: "threadTicks" });
      const computed = async () => 1000 * (await tools.send("Performance.getMetrics")).metrics.find((m) => m.name === "TaskDuration").value;
      // How much longer anything takes than it computes; 1 on a machine that does nothing else.
      const slower = async () => {
        const before = await computed(), passed = await page.evaluate(`(${spin})(150)`);
        return Math.max(1, passed / ((await computed()) - before));
      };
      const took = [], own = [], machine = [];
      for (let i = 0; i < 3; i += 1) {
        await page.goto("about:blank");
        const before = await computed(), from = Date.now();
        await page.goto(url, { waitUntil: "load" });
        await page.waitForSelector("html[data-ready]", { timeout: 20000 });
        await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
        took.push(Date.now() - from);
        own.push((await computed()) - before);
        // Not before: another process may load the page than held the empty one, and counts from nothing.
        machine.push(await slower());
      }
      const operations = await page.evaluate(() => Math.max(0, ...[...document.querySelectorAll("script[id^=run-]")].map((e) => JSON.parse(e.textContent).ops.length)));
      const busy = median(machine);
      check(median(took) < LOAD_MS * busy, `${name}: ${operations} operations loaded and drawn in ${median(took)} ms, ${Math.round(median(own))} ms of them computing; machine ${busy.toFixed(1)} times slower than idle`);
      const unseen = [];
      for (let i = 0; i < 12; i += 1) {
        await page.keyboard.press("Tab");
        const bare = await page.evaluate(() => { const e = document.activeElement, s = getComputedStyle(e); return e === document.body || (s.outlineStyle !== "none" && parseFloat(s.outlineWidth) >= 1) ? null : e.outerHTML.slice(0, 80); });
        if (bare) unseen.push(bare);
      }
      check(unseen.length === 0, `${name}: what has the focus shows it: ${unseen.join("; ") || "yes"}`);
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
          const gestures = { "every key": `(i) => key(${JSON.stringify(KEYS)}[i % ${KEYS.length}])` };
          // Once on each size is enough of the rest.
          if ((scheme === "light") === (size === "wide")) Object.assign(gestures, GESTURES);
          for (const [what, act] of Object.entries(gestures)) {
            const frames = what === "every key" ? 2 * KEYS.length : FRAMES;
            let times, each, busy, smooth = false;
            const at = (share) => Math.round(times[Math.floor(share * (times.length - 1))]);
            // Other programs come and go: what is slow for the page's sake is slow thrice.
            for (let i = 0; i < 3 && !smooth; i += 1) {
              const was = await slower(), before = await computed();
              times = await page.evaluate(`(${play})(${JSON.stringify(String(act))}, ${frames})`);
              each = ((await computed()) - before) / frames;
              busy = (was + (await slower())) / 2;
              smooth = each < FRAME_MS && at(0.5) < FRAME_MS * busy && at(1) < LOAD_MS * busy;
            }
            check(smooth, `${name}: ${what}: ${each.toFixed(1)} ms computing a step; a frame in ${at(0.5)} ms, nine of ten within ${at(0.9)}, at worst ${at(1)}; machine ${busy.toFixed(1)} times slower`);
          }
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
