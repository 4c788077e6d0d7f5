// Draws the report: one view for a sweep, one for each run. Only what is visible is drawn; nothing is fetched.
"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const read = (id) => { const e = byId(id); return e ? JSON.parse(e.textContent) : null; };
  const el = (tag, attrs, ...kids) => {
    const e = document.createElement(tag);
    for (const [k, v] of Object.entries(attrs || {})) {
      if (k.startsWith("on")) e.addEventListener(k.slice(2), v);
      else if (v === true) e.setAttribute(k, "");
      else if (v !== false && v != null) e.setAttribute(k, v);
    }
    e.append(...kids.flat(9).filter((k) => k != null && k !== false));
    return e;
  };
  const svg = (tag, attrs, ...kids) => {
    const e = document.createElementNS("http" + "://www.w3.org/2000/svg", tag);
    for (const [k, v] of Object.entries(attrs || {})) e.setAttribute(k, v);
    e.append(...kids.flat(9));
    return e;
  };
  const secs = (ms) => (ms / 1000).toFixed(3) + " s";
  const eventTime = (ms) => {
    if (Math.abs(ms) < 1e11) return String(ms);
    const d = new Date(ms);
    return Number.isNaN(d.getTime()) ? String(ms) : d.toISOString().replace("T", " ").replace(/\.?0*Z$/, "");
  };
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
  const colours = new Map();
  const colour = (name) => { if (!colours.has(name)) colours.set(name, css(name) || css("mark")); return colours.get(name); };
  const redraws = new Set();
  const redrawAll = (now) => { colours.clear(); redraws.forEach((f) => f(now)); };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redrawAll());
  // Paper does not wait for a frame.
  addEventListener("beforeprint", () => redrawAll(true));
  addEventListener("afterprint", () => redrawAll());
  // What is in sight is drawn in the next frame; the rest once nothing has asked for it for a while, so that it takes no time
  // from what is seen. Asked for again, it is still drawn once.
  const SOON = 200;
  const lazily = (box, draw) => {
    let frame = 0, timer = 0;
    return (now) => {
      if (now) { draw(); return; }
      if (frame) return;
      frame = requestAnimationFrame(() => {
        frame = 0;
        clearTimeout(timer);
        const r = box.getBoundingClientRect();
        if (r.bottom < 0 || r.top > innerHeight) timer = setTimeout(draw, SOON); else draw();
      });
    };
  };
  // First index whose value is at least x.
  const lower = (n, at, x) => { let a = 0, b = n; while (a < b) { const m = (a + b) >> 1; if (at(m) < x) a = m + 1; else b = m; } return a; };
  // Not toLocaleString: its first call takes longer than a frame.
  const thousands = (n) => String(n).replace(/\B(?=(\d{3})+$)/g, ",");
  const plural = (n, what) => thousands(n) + " " + what + (n === 1 ? "" : "s");

  // --- tables -------------------------------------------------------------------------------------------------------------
  const table = (caption, heads, rows, classes) => {
    const head = heads.map((h) => el("th", { scope: "col", class: h[1] }, h[0]));
    const body = rows.map((r) => el("tr", { class: r.class }, (r.cells || r).map((c, i) => el("td", { class: heads[i][1] }, c))));
    return el("div", { class: "scroll short", role: "region", tabindex: "0", "aria-label": caption },
      el("table", { class: classes }, el("caption", { class: "muted" }, caption), el("thead", {}, el("tr", {}, head)), el("tbody", {}, body)));
  };
  // Rows that are not in sight are two empty rows of the right height. Those in sight are the same elements again with other
  // text, in columns whose widths are fixed by a sample of all rows: nothing jumps, and little is laid out, while it scrolls.
  const virtual = (label, heads, cells) => {
    const ROW = 26, AROUND = 4, PRINTED = 300;
    let rows = [], most = [];
    const cols = heads.map(() => el("col"));
    const pad = () => el("tr", { class: "pad", "aria-hidden": "true" }, el("td", { colspan: heads.length }));
    const above = pad(), below = pad(), body = el("tbody", {}, above, below), pool = [];
    const tbl = el("table", { class: "virtual" }, el("colgroup", {}, cols), el("thead", {}, el("tr", { "aria-rowindex": 1 }, heads.map((h) => el("th", { scope: "col", class: h[1] }, h[0])))), body);
    const box = el("div", { class: "scroll rows", role: "region", tabindex: "0", "aria-label": label }, tbl);
    const fill = (tr, i) => {
      const list = cells(rows[i]);
      tr.className = list.class || "";
      tr.setAttribute("aria-rowindex", i + 2);
      list.forEach((v, k) => {
        const td = tr.cells[k], text = String(v);
        if (td.textContent === text) return;
        td.textContent = text;
        if (text.length > most[k]) td.title = text; else td.removeAttribute("title");
      });
    };
    let shown = "", fresh = false;
    const draw = (all) => {
      if (fresh) { fresh = false; measure(); box.scrollTop = 0; }
      const from = all ? 0 : Math.max(0, Math.floor(box.scrollTop / ROW) - AROUND);
      const to = Math.min(rows.length, all ? PRINTED : from + Math.ceil((box.clientHeight || 380) / ROW) + 2 * AROUND);
      const key = from + ":" + to;
      if (key === shown) return;
      shown = key;
      const count = Math.max(0, to - from);
      while (pool.length < count) { const tr = el("tr", {}, heads.map((h) => el("td", { class: h[1] }))); pool.push(tr); below.before(tr); }
      while (pool.length > count) pool.pop().remove();
      pool.forEach((tr, i) => fill(tr, from + i));
      for (const [row, n] of [[above, from], [below, rows.length - from - count]]) { row.hidden = !n; row.cells[0].style.height = n * ROW + "px"; }
    };
    const redraw = lazily(box, () => draw(false));
    box.addEventListener("scroll", () => redraw(), { passive: true });
    addEventListener("beforeprint", () => { shown = ""; draw(true); });
    addEventListener("afterprint", () => { shown = ""; draw(false); });
    const measure = () => {
      most = heads.map((h) => h[0].length);
      const step = Math.max(1, Math.floor(rows.length / 300));
      for (let i = 0; i < rows.length; i += step) cells(rows[i]).forEach((v, k) => { most[k] = Math.min(46, Math.max(most[k], String(v).length)); });
      cols.forEach((col, k) => { col.style.width = "calc(" + (most[k] + 1) + "ch + 20px)"; });
      tbl.style.minWidth = "calc(" + most.reduce((a, b) => a + b + 1, 0) + "ch + " + 20 * heads.length + "px)";
    };
    return { box, set(next) { rows = next; shown = ""; fresh = true; tbl.setAttribute("aria-rowcount", rows.length + 1); redraw(); } };
  };

  // --- a plot over simulated time -----------------------------------------------------------------------------------------
  const ticks = (from, to, most) => {
    const raw = (to - from) / Math.max(1, most), step = 10 ** Math.floor(Math.log10(raw || 1));
    const by = [1, 2, 5, 10].map((m) => m * step).find((s) => s >= raw) || step;
    const out = [];
    for (let t = Math.ceil(from / by) * by; t <= to; t += by) out.push(t);
    return out;
  };
  const plot = (view, label, help, paint, hit, keys) => {
    const canvas = el("canvas", { tabindex: "0", role: "application", "aria-label": label, "aria-describedby": help });
    const tip = el("div", { class: "tip", hidden: true });
    const box = el("div", { class: "plot" }, canvas, tip);
    let drawn = 0;
    const draw = () => {
      const w = box.clientWidth;
      if (!w) return;
      drawn = w;
      const ratio = devicePixelRatio || 1, g = canvas.getContext("2d"), h = paint.height(w);
      if (canvas.width !== Math.round(w * ratio) || canvas.height !== Math.round(h * ratio)) {
        canvas.width = Math.round(w * ratio); canvas.height = Math.round(h * ratio); canvas.style.height = h + "px";
      }
      g.setTransform(ratio, 0, 0, ratio, 0, 0);
      g.fillStyle = colour("bg"); g.fillRect(0, 0, w, h);
      g.font = "11px system-ui, sans-serif"; g.textBaseline = "middle";
      paint(g, w, h);
    };
    const redraw = lazily(box, draw);
    view.redraws.add(redraw); redraws.add(redraw);
    // Its height changes with what is drawn, and needs no second drawing.
    new ResizeObserver(() => { if (box.clientWidth !== drawn) redraw(); }).observe(box);
    const left = () => paint.left(box.clientWidth);
    const time = (x) => view.t0 + (x - left()) / Math.max(1, box.clientWidth - left()) * (view.t1 - view.t0);
    let drag = null;
    canvas.addEventListener("pointerdown", (e) => { drag = { x: e.offsetX, t0: view.t0, t1: view.t1, moved: false }; canvas.setPointerCapture(e.pointerId); });
    canvas.addEventListener("pointermove", (e) => {
      if (drag) {
        const dt = (e.offsetX - drag.x) / Math.max(1, box.clientWidth - left()) * (drag.t1 - drag.t0);
        if (Math.abs(e.offsetX - drag.x) > 3) { drag.moved = true; view.zoom(drag.t0 - dt, drag.t1 - dt); }
      }
      const found = hit(e.offsetX, e.offsetY, time(e.offsetX));
      tip.hidden = !found;
      if (found) {
        tip.textContent = found.text;
        tip.style.left = Math.min(e.offsetX + 12, Math.max(0, box.clientWidth - 260)) + "px";
        tip.style.top = (e.offsetY + 14) + "px";
      }
    });
    canvas.addEventListener("pointerup", (e) => {
      if (drag && !drag.moved) { const found = hit(e.offsetX, e.offsetY, time(e.offsetX)); if (found) view.say(found.text); }
      drag = null;
    });
    canvas.addEventListener("pointerleave", () => { tip.hidden = true; });
    canvas.addEventListener("wheel", (e) => {
      if (!e.ctrlKey && !e.metaKey) return;
      e.preventDefault();
      view.scale(e.deltaY > 0 ? 1.25 : 0.8, time(e.offsetX));
    }, { passive: false });
    canvas.addEventListener("keydown", (e) => {
      const step = (view.t1 - view.t0) / 5;
      const act = {
        ArrowLeft: () => view.zoom(view.t0 - step, view.t1 - step), ArrowRight: () => view.zoom(view.t0 + step, view.t1 + step),
        "+": () => view.scale(0.6), "=": () => view.scale(0.6), "-": () => view.scale(1.6), 0: () => view.fit(), Home: () => view.fit(), v: () => view.violation(),
        ...(keys || {}),
      }[e.key];
      if (act && !e.ctrlKey && !e.altKey && !e.metaKey) { e.preventDefault(); act(); }
    });
    return { box, redraw };
  };
  const axis = (g, w, left, view, top, bottom) => {
    g.strokeStyle = colour("line"); g.fillStyle = colour("muted"); g.lineWidth = 1; g.textAlign = "center";
    for (const t of ticks(view.t0, view.t1, (w - left) / 90)) {
      const x = Math.round(left + (t - view.t0) / (view.t1 - view.t0) * (w - left)) + 0.5;
      if (x < left) continue;
      g.beginPath(); g.moveTo(x, top); g.lineTo(x, bottom); g.stroke();
      if (x < w - 24) g.fillText((t / 1000).toFixed(view.t1 - view.t0 < 100 ? 3 : view.t1 - view.t0 < 2000 ? 2 : 1) + " s", x, 9);
    }
    g.textAlign = "left";
  };

  // A line of steps through [time, value]; of points within a pixel the last counts. Returns where it ends.
  const steps = (g, points, view, X, Y) => {
    let x = null, y = 0, due = false;
    g.beginPath();
    for (let i = Math.max(0, lower(points.length, (j) => points[j][0], view.t0) - 1); i < points.length; i++) {
      const nx = X(points[i][0]), ny = Y(points[i][1]);
      if (x === null) { g.moveTo(nx, ny); x = nx; }
      else if (nx - x < 1) due = true;
      else {
        if (due) g.lineTo(x, y);
        g.lineTo(nx, y); g.lineTo(nx, ny);
        x = nx; due = false;
      }
      y = ny;
      if (points[i][0] > view.t1) break;
    }
    if (due) g.lineTo(x, y);
    return x === null ? null : { x, y };
  };

  // --- a run --------------------------------------------------------------------------------------------------------------
  const GROUPS = [["nodes", "Nodes"], ["partitions", "Partitions"], ["tasks", "Tasks"], ["job", "Checkpoints"], ["transactions", "Transactions"]];
  const runView = (d, index) => {
    const S = (i) => (i < 0 ? "" : d.strings[i]);
    const live = el("p", { class: "live", role: "status" });
    const view = {
      t0: 0, t1: d.end || 1, redraws: new Set(), filter: { key: "", partition: "", txn: "" }, hidden: new Set(),
      say(text) { live.textContent = text; },
      zoom(a, b) {
        const span = Math.min(Math.max(b - a, 0.02), d.end * 1.02 || 1);
        a = Math.max(-0.01 * d.end, Math.min(a, d.end * 1.01 - span));
        [view.t0, view.t1] = [a, a + span];
        view.redraws.forEach((f) => f());
      },
      scale(by, at) { const c = at == null ? (view.t0 + view.t1) / 2 : at; view.zoom(c - (c - view.t0) * by, c + (view.t1 - c) * by); },
      fit() { view.zoom(0, d.end); },
      look(at, text) { const half = Math.min(d.end, 1000) / 2; view.zoom(at - half, at + half); view.say(secs(at) + ": " + text); },
      violation() { if (d.violated != null) view.look(d.violated, "first violation" + (d.told ? ": " + d.told.message : "")); },
    };
    if (d.lanes.filter((l) => l.group === "partitions").length > 14) d.lanes.forEach((l) => { if (l.name.startsWith("__")) view.hidden.add(l.name); });
    d.lanes.forEach((lane) => { lane.most = 1; lane.lines.forEach((l) => l.points.forEach((p) => { if (p[1] > lane.most) lane.most = p[1]; })); });
    const laneOps = new Map();
    d.ops.forEach((op) => { const name = "client-" + op[0]; if (!laneOps.has(name)) laneOps.set(name, []); laneOps.get(name).push(op); });
    const answered = (op) => (op[7] < 0 ? d.end : op[7]);
    // The last answer up to each: where those begin that reach into a span of time.
    laneOps.forEach((ops) => { let last = 0; ops.until = Float64Array.from(ops, (op) => (last = Math.max(last, answered(op)))); });
    // The filter as numbers: texts would be compared tens of thousands of times a frame.
    let want = {};
    const filter = () => {
      const f = view.filter, number = (text) => d.strings.indexOf(text);
      want = { key: f.key && number(f.key), partition: f.partition && number(f.partition), split: Number(f.partition.split("-").pop()), txn: f.txn && Number(f.txn) };
    };
    filter();
    // -1 stands for a text that no record has, and is also what a record without one has.
    const is = (wanted, has) => wanted === "" || (wanted === has && has >= 0);
    const passes = (key, part, txn) => is(want.key, key) && is(want.partition, part) && is(want.txn, txn);
    const filtered = () => view.filter.key || view.filter.partition || view.filter.txn;

    // The timeline.
    const TOP = 50, heights = { nodes: 24, partitions: 34, tasks: 20, job: 18, transactions: 16 };
    const places = () => {
      const out = []; let y = TOP, group = null;
      d.lanes.forEach((lane, i) => {
        if (view.hidden.has(lane.group) || view.hidden.has(lane.name)) return;
        if (group !== null && group !== lane.group) y += 6;
        group = lane.group;
        const h = lane.group === "partitions" && !lane.bands.length ? 20 : heights[lane.group];
        out.push({ lane, i, y, h }); y += h + 2;
      });
      out.bottom = y; out.of = new Map(out.map((p) => [p.i, p]));
      return out;
    };
    const left = (w) => (w < 600 ? 96 : 190);
    const MESSAGES = 600;
    // From the frequent, which lie below, to the rare; those not named are rarer.
    const MARKS = ["advance", "judge", "begin", "state", "idle", "barrier", "fire", "late"];
    const mark = (g, kind, y, lh, c) => {
      const fill = (name, draw) => { g.fillStyle = colour(name); return draw; };
      const line = (name, draw) => { g.strokeStyle = colour(name); return draw; };
      switch (kind) {
        case "judge": return fill("judge", (x) => g.fillRect(x - 1, c - 3, 2, 6));
        case "advance": return fill("advance", (x) => g.fillRect(x, y + lh - 4, 1, 4));
        case "idle": return line("mark", (x) => g.strokeRect(x - 2, c - 2, 4, 4));
        case "fire": return fill("fire", (x) => { g.beginPath(); g.moveTo(x, y + 2); g.lineTo(x + 4, y + 9); g.lineTo(x - 4, y + 9); g.fill(); });
        case "barrier": return fill("barrier", (x) => g.fillRect(x - 1, y, 2, lh));
        case "late": g.lineWidth = 2; return line("late", (x) => { g.beginPath(); g.moveTo(x - 3, c - 3); g.lineTo(x + 3, c + 3); g.moveTo(x + 3, c - 3); g.lineTo(x - 3, c + 3); g.stroke(); });
        case "begin": case "state": return fill("muted", (x) => g.fillRect(x, y, 1, lh));
        default: return fill(kind === "turn" ? "bad" : "mark", (x) => { g.beginPath(); g.moveTo(x, c - 5); g.lineTo(x + 4, c); g.lineTo(x, c + 5); g.lineTo(x - 4, c); g.fill(); });
      }
    };
    const paint = (g, w, h) => {
      const L = left(w), rows = places(), W = w - L, X = (t) => L + (t - view.t0) / (view.t1 - view.t0) * W;
      axis(g, w, L, view, 18, h);
      g.save(); g.beginPath(); g.rect(L, 0, W, h); g.clip();
      d.phases.forEach(([name, a, b], i) => {
        g.fillStyle = colour(i % 2 ? "attempt-b" : "attempt-a"); g.fillRect(X(a), 19, X(b) - X(a) - 1, 13);
        g.fillStyle = colour("muted");
        const x = Math.max(X(a), L) + 3;
        if (Math.min(X(b), w) - x > g.measureText(name).width) g.fillText(name, x, 26);
      });
      for (const { lane, y, h: lh } of rows) {
        const odd = { 0: 0, 1: 0, 2: 0 }, labels = [];
        for (const [a, b, row, kind, text] of lane.bands) {
          odd[row] += 1;
          if (b < view.t0 || a > view.t1) continue;
          const name = kind === "epoch" || kind === "isr" || kind === "attempt" ? kind + (odd[row] % 2 ? "-a" : "-b") : kind;
          const by = row === 2 ? y + lh / 2 : y, bh = row === 0 ? lh : lh / 2;
          const x = Math.max(X(a), L - 1), bw = Math.max(1.5, Math.min(X(b), w + 1) - x);
          g.fillStyle = colour(name); g.fillRect(x, by, bw, bh);
          if (lane.group === "transactions" || lane.group === "job") { g.strokeStyle = colour("line"); g.strokeRect(x + 0.5, by + 0.5, bw, bh - 1); }
          if (bw > 70 && (kind === "epoch" || kind === "isr" || kind === "down" || kind === "off" || kind === "paused")) {
            labels.push([kind === "epoch" || kind === "isr" ? S(text).replace(/, (log end|partition epoch).*/, "") : kind, x, by, bw, bh, name]);
          }
        }
        const most = lane.most;
        for (const line of lane.lines) {
          g.strokeStyle = colour(line.kind); g.lineWidth = line.kind === "high" ? 1.5 : 1; g.setLineDash(line.kind === "stable" ? [3, 2] : []);
          const last = steps(g, line.points, view, X, (v) => y + lh - 2 - v / most * (lh - 4));
          if (last && last.x < w) g.lineTo(Math.min(w, X(d.end)), last.y);
          g.stroke(); g.setLineDash([]); g.lineWidth = 1;
        }
        // After the lines, which would strike them out; where they would hide much of a line, they are left to the tip.
        for (const [text, x, by, bw, bh, name] of labels) {
          const wide = g.measureText(text).width + 8;
          if (wide > bw || (wide > bw * 0.6 && lane.lines.length)) continue;
          g.fillStyle = colour(name); g.fillRect(x, by, wide, bh);
          g.fillStyle = colour("fg"); g.fillText(text, x + 4, by + bh / 2 + 0.5);
        }
      }
      // Faults lie over what they struck.
      for (const [a, b, kind, , , struck] of d.faults) {
        if (b < view.t0 || a > view.t1) continue;
        const x = X(a), fw = Math.max(2, X(b) - x);
        g.fillStyle = colour("fault-edge"); g.fillRect(x, 34, fw, 4);
        if (fw > 30 || view.t1 - view.t0 < 3000) g.fillText(kind, Math.max(x, L) + 1, 44);
        g.fillStyle = colour("fault");
        for (const i of struck) { const p = rows.of.get(i); if (p) { g.fillRect(x, p.y, fw, p.h); g.fillStyle = colour("fault-edge"); g.fillRect(x, p.y, 1.5, p.h); g.fillStyle = colour("fault"); } }
      }
      // Messages, once few enough are in sight.
      const m0 = lower(d.messages.length, (i) => d.messages[i][1], view.t0), m1 = lower(d.messages.length, (i) => d.messages[i][1], view.t1);
      view.inSight = m1 - m0;
      if (m1 - m0 <= MESSAGES) {
        g.strokeStyle = colour("message"); g.fillStyle = colour("message");
        for (let i = m0; i < m1; i++) {
          const [sent, got, from, to] = d.messages[i], a = rows.of.get(from), b = rows.of.get(to);
          if (!a || !b) continue;
          const x0 = X(sent), y0 = a.y + a.h / 2, x1 = X(got), y1 = b.y + b.h / 2;
          g.beginPath(); g.moveTo(x0, y0); g.lineTo(x1, y1); g.stroke();
          if (m1 - m0 < 300) { const r = Math.atan2(y1 - y0, x1 - x0); g.beginPath(); g.moveTo(x1, y1); g.lineTo(x1 - 6 * Math.cos(r - 0.4), y1 - 6 * Math.sin(r - 0.4)); g.lineTo(x1 - 6 * Math.cos(r + 0.4), y1 - 6 * Math.sin(r + 0.4)); g.fill(); }
        }
      }
      const dim = filtered();
      for (const { lane, y, h: lh } of rows) {
        const ops = laneOps.get(lane.name);
        // One that would not show beside another of its kind is left out, so a lane costs what it is wide and not what it holds.
        // Those that the filter is not about go first, to lie below; those that the violation is about go last.
        if (ops) {
          const groups = Array.from({ length: 7 }, () => []), edges = new Float64Array(7).fill(-1);
          for (let i = lower(ops.length, (j) => ops.until[j], view.t0); i < ops.length && ops[i][6] <= view.t1; i++) {
            const op = ops[i], xe = X(answered(op));
            if (xe < L) continue;
            const k = op[10] ? 6 : dim && !passes(op[4], op[3], op[5]) ? op[8] : 3 + op[8];
            if (k < 6 && xe <= edges[k] + 0.5) continue;
            edges[k] = xe;
            const x = X(op[6]);
            groups[k].push(x, Math.max(1.5, xe - x), op[7] < 0 ? 0.35 : 0.9);
          }
          groups.forEach((list, k) => {
            g.fillStyle = colour(k === 6 ? "bad" : ["judge", "late", "barrier"][k % 3]);
            for (let i = 0; i < list.length; i += 3) {
              g.globalAlpha = k < 3 ? 0.12 : list[i + 2];
              g.fillRect(list[i], k === 6 ? y + 2 : y + lh * 0.45, list[i + 1], k === 6 ? lh - 4 : lh * 0.4);
            }
          });
          g.globalAlpha = 1;
        }
        const n = lane.marks.length, c = y + lh / 2, kinds = new Map();
        for (let i = lower(n, (j) => lane.marks[j][0], view.t0); i < n && lane.marks[i][0] <= view.t1; i++) {
          const [t, kind, , key, part, txn] = lane.marks[i], x = X(t), off = dim && !passes(key, part, txn) ? 1 : 0;
          let list = kinds.get(kind);
          if (!list) kinds.set(kind, list = [[], []]);
          list = list[off];
          if (list.length && x - list[list.length - 1] < (kind === "fire" ? 2 : 1)) continue;
          list.push(x);
        }
        const rank = (kind) => (MARKS.includes(kind) ? MARKS.indexOf(kind) : MARKS.length);
        const sorted = [...kinds].sort((a, b) => rank(a[0]) - rank(b[0]));
        for (const off of dim ? [1, 0] : [0]) {
          g.globalAlpha = off ? 0.12 : 1;
          for (const [kind, lists] of sorted) {
            const draw = mark(g, kind, y, lh, c);
            for (const x of lists[off]) draw(x);
            g.lineWidth = 1;
          }
        }
        g.globalAlpha = 1;
      }
      if (d.violated != null && d.violated >= view.t0 && d.violated <= view.t1) {
        const x = Math.round(X(d.violated));
        g.fillStyle = colour("bad"); g.fillRect(x - 1, 18, 2, h - 32);
        g.fillText("violation", Math.min(x + 4, w - 50), h - 22);
      }
      g.restore();
      if (m1 - m0 > MESSAGES && w - L > 300) { g.fillStyle = colour("muted"); g.textAlign = "right"; g.fillText(plural(m1 - m0, "message") + " in sight: zoom in to see them", w - 6, h - 8); g.textAlign = "left"; }
      rows.forEach(({ lane, y, h: lh, i }) => {
        g.fillStyle = view.at && view.at.lane === i ? colour("accent") : colour("fg");
        g.save(); g.beginPath(); g.rect(0, y, L - 4, lh); g.clip(); g.fillText(lane.name, 6, y + lh / 2); g.restore();
      });
    };
    // Below the lanes a line for the violation's name and one for the number of messages.
    paint.height = () => places().bottom + 28;
    paint.left = left;
    const hit = (x, y, t) => {
      const p = places().find((r) => y >= r.y && y <= r.y + r.h), px = (view.t1 - view.t0) / 600;
      if (y < TOP) { const f = d.faults.find(([a, b]) => t >= a - px * 2 && t <= b + px * 2); return f && y > 30 ? { text: secs(f[0]) + " " + f[2] + " " + f[3] + ": " + f[4] } : null; }
      if (!p) return null;
      let best = null;
      const marks = p.lane.marks, k = lower(marks.length, (i) => marks[i][0], t);
      for (const i of [k - 1, k]) if (marks[i] && Math.abs(marks[i][0] - t) < px * 3 && (!best || Math.abs(marks[i][0] - t) < Math.abs(best[0] - t))) best = marks[i];
      if (best) return { text: secs(best[0]) + " " + p.lane.name + ": " + S(best[2]) };
      const ops = laneOps.get(p.lane.name) || [], o = lower(ops.length, (i) => ops[i][6], t);
      for (let i = o - 1; i >= Math.max(0, o - 200); i--) if ((ops[i][7] < 0 ? d.end : ops[i][7]) >= t - px) return { text: opText(ops[i]) };
      const band = p.lane.bands.filter(([a, b]) => t >= a && t <= b).pop();
      return band ? { text: S(band[4]) } : null;
    };
    const opText = (op) => secs(op[6]) + " client " + op[0] + " operation " + op[1] + ": " + S(op[2]) + (op[3] < 0 ? "" : " to " + S(op[3])) + (op[4] < 0 ? "" : ", key " + S(op[4])) + (op[5] < 0 ? "" : ", transaction " + op[5]) + "; " + (op[7] < 0 ? "never answered" : S(op[9]) + " at " + secs(op[7]));
    // Marks and operations of a lane in order of time, put together when asked for.
    const events = (lane) => {
      if (!lane.events) {
        const ops = laneOps.get(lane.name) || [], marks = lane.marks, all = [];
        for (let i = 0, j = 0; i < marks.length || j < ops.length;) {
          if (j >= ops.length || (i < marks.length && marks[i][0] <= ops[j][6])) { const m = marks[i++]; all.push({ t: m[0], text: () => secs(m[0]) + " " + lane.name + ": " + S(m[2]) }); }
          else { const op = ops[j++]; all.push({ t: op[6], text: () => opText(op) }); }
        }
        lane.events = all;
      }
      return lane.events;
    };
    const walk = (by) => {
      const rows = places();
      if (!rows.length) return;
      view.at = view.at || { lane: rows[0].i, t: view.t0, i: null };
      // Several events may have one time: the place among them is kept, not only the time.
      const all = events(d.lanes[view.at.lane]), k = view.at.i, i = k == null ? lower(all.length, (j) => all[j].t, view.at.t) - (by < 0 ? 1 : 0) : k + by;
      if (!all[i]) { view.say(d.lanes[view.at.lane].name + ": no " + (by > 0 ? "later" : "earlier") + " event"); return; }
      [view.at.t, view.at.i] = [all[i].t, i];
      if (all[i].t < view.t0 || all[i].t > view.t1) { const half = (view.t1 - view.t0) / 2; view.zoom(all[i].t - half, all[i].t + half); }
      view.say(all[i].text());
    };
    const change = (by) => {
      const rows = places();
      if (!rows.length) return;
      const k = view.at ? rows.findIndex((r) => r.i === view.at.lane) : -1;
      const next = rows[Math.max(0, Math.min(rows.length - 1, k + by))];
      view.at = { lane: next.i, t: view.at ? view.at.t : view.t0, i: null };
      view.say("lane " + next.lane.name + ", " + plural(events(next.lane).length, "event"));
      view.redraws.forEach((f) => f());
    };
    const help = "help-" + index;
    const lanes = plot(view, "Timeline of " + d.name, help, paint, hit, { n: () => walk(1), p: () => walk(-1), ArrowDown: () => change(1), ArrowUp: () => change(-1) });

    // Event time against simulated time.
    let low = Infinity, high = -Infinity;
    for (const r of d.records) { if (r[1] < low) low = r[1]; if (r[1] > high) high = r[1]; }
    for (const w of d.watermarks) for (const p of w.points) { if (p[1] < low) low = p[1]; if (p[1] > high) high = p[1]; }
    const DOTS = ["judge", "warn", "late", "advance"], TASKS = ["fire", "barrier", "stable", "bad", "warn", "judge"];
    const names = [...new Set(d.watermarks.map((w) => w.task))];
    let windowsOf = { key: null, list: [] };
    const windows = () => {
      const key = view.filter.key || (d.guilty_window ? d.guilty_window[0] : null);
      if (windowsOf.key !== key) {
        const number = d.strings.indexOf(key), judged = d.records.filter((r) => r[2] === number);
        const first = (a, b) => { const r = judged.find((r) => r[1] >= a && r[1] < b); return r ? r[0] : Infinity; };
        const list = key == null ? [] : d.panes.filter((p) => p.key === key).slice(0, 400).map((p) => ({ p, from: first(p.start, p.end) }));
        windowsOf = { key, list };
      }
      return windowsOf.list;
    };
    const paintTime = (g, w, h) => {
      const L = left(w), W = w - L, span = Math.max(1, high - low), X = (t) => L + (t - view.t0) / (view.t1 - view.t0) * W, Y = (e) => h - 12 - (e - low) / span * (h - 36);
      axis(g, w, L, view, 18, h);
      g.fillStyle = colour("muted");
      for (const e of ticks(low, high, 5)) { g.save(); g.beginPath(); g.rect(0, 0, L - 4, h); g.clip(); g.fillText(eventTime(e), 6, Y(e)); g.restore(); g.fillStyle = colour("line"); g.fillRect(L, Y(e), W, 1); g.fillStyle = colour("muted"); }
      g.save(); g.beginPath(); g.rect(L, 18, W, h - 18); g.clip();
      for (const { p, from } of windows()) {
        const a = Number.isFinite(from) ? from : view.t0, b = p.fired == null ? d.end : p.fired;
        if (b < view.t0 || a > view.t1) continue;
        g.fillStyle = colour(p.differs ? "fault" : "attempt-a"); g.fillRect(X(a), Y(p.end), Math.max(2, X(b) - X(a)), Math.max(2, Y(p.start) - Y(p.end)));
        g.strokeStyle = colour(p.differs ? "bad" : "line"); g.strokeRect(X(a), Y(p.end), Math.max(2, X(b) - X(a)), Math.max(2, Y(p.start) - Y(p.end)));
      }
      // A dot where one of its kind is already drawn would not show.
      const dim = filtered(), n = d.records.length, wide = Math.ceil(w / 2) + 2, seen = new Uint8Array(wide * (Math.ceil(h / 2) + 2)), dots = [[], [], [], []];
      for (let i = lower(n, (j) => d.records[j][0], view.t0); i < n && d.records[i][0] <= view.t1; i++) {
        const [t, e, key, part, , of] = d.records[i];
        if (dim && !(is(want.key, key) && (want.partition === "" || want.split === part))) continue;
        const x = X(t), y = Y(e), cell = (y >> 1) * wide + (x >> 1), bit = 1 << of;
        if (seen[cell] & bit) continue;
        seen[cell] |= bit;
        dots[of].push(x - 1.5, y - 1.5);
      }
      dots.forEach((list, of) => {
        g.fillStyle = g.strokeStyle = colour(DOTS[of]);
        for (let i = 0; i < list.length; i += 2) if (of === 3) g.strokeRect(list[i], list[i + 1], 3, 3); else g.fillRect(list[i], list[i + 1], 3, 3);
      });
      for (const wm of d.watermarks) {
        g.strokeStyle = colour(TASKS[names.indexOf(wm.task) % TASKS.length]); g.setLineDash(wm.task.startsWith("source") ? [5, 3] : []); g.lineWidth = 1.5;
        steps(g, wm.points, view, X, Y);
        g.stroke();
      }
      g.setLineDash([]); g.lineWidth = 1;
      if (d.violated != null) { g.fillStyle = colour("bad"); g.fillRect(X(d.violated) - 1, 18, 2, h); }
      g.restore();
    };
    paintTime.height = (w) => (w < 600 ? 220 : 300);
    paintTime.left = left;
    const hitTime = (x, y, t) => {
      const px = (view.t1 - view.t0) / 400, n = d.records.length;
      let best = null;
      const h = paintTime.height(9999), span = Math.max(1, high - low), Y = (e) => h - 12 - (e - low) / span * (h - 36);
      for (let i = lower(n, (j) => d.records[j][0], t - px); i < n && d.records[i][0] <= t + px; i++) { const dy = Math.abs(Y(d.records[i][1]) - y); if (dy < 6 && (!best || dy < best.dy)) best = { dy, r: d.records[i] }; }
      if (!best) return null;
      const r = best.r;
      return { text: secs(r[0]) + " record " + r[4] + " of split " + r[3] + ", key " + S(r[2]) + ", event time " + eventTime(r[1]) + ": " + ["on time", "behind", "late", "judged, and not in the committed output"][r[5]] };
    };

    // Filters and tables.
    const refresh = () => { filter(); view.redraws.forEach((f) => f()); fillPanes(); fillOps(); };
    const input = (name, label, options) => {
      const list = el("datalist", { id: "list-" + name + index }, [...options].slice(0, 2000).map((o) => el("option", { value: o })));
      const box = el("input", { type: "text", list: "list-" + name + index, autocomplete: "off", oninput: (e) => { view.filter[name] = e.target.value.trim(); refresh(); } });
      view["box_" + name] = box;
      return [el("label", {}, label, box), list];
    };
    const keysOf = new Set(), partsOf = new Set(), txnsOf = new Set();
    d.ops.forEach((o) => { if (o[4] >= 0) keysOf.add(S(o[4])); if (o[3] >= 0) partsOf.add(S(o[3])); if (o[5] >= 0) txnsOf.add(String(o[5])); });
    d.panes.forEach((p) => keysOf.add(p.key));
    const clear = el("button", { type: "button", onclick: () => { for (const n of ["key", "partition", "txn"]) { view.filter[n] = ""; view["box_" + n].value = ""; } refresh(); } }, "Clear");
    const filters = el("div", { class: "tools", role: "group", "aria-label": "Filters" }, input("key", "Key", [...keysOf].sort()), input("partition", "Partition", [...partsOf].sort()), input("txn", "Transaction", txnsOf), clear);
    const button = (text, act, title) => el("button", { type: "button", onclick: act, title }, text);
    const tools = el("div", { class: "tools", role: "group", "aria-label": "Timeline" },
      d.violated == null ? null : button("Jump to first violation", () => view.violation(), "v"),
      button("Whole run", () => view.fit(), "0"), button("Zoom in", () => view.scale(0.5), "+"), button("Zoom out", () => view.scale(2), "-"),
      button("Earlier", () => { const s = (view.t1 - view.t0) / 2; view.zoom(view.t0 - s, view.t1 - s); }, "left arrow"), button("Later", () => { const s = (view.t1 - view.t0) / 2; view.zoom(view.t0 + s, view.t1 + s); }, "right arrow"),
      GROUPS.filter(([g]) => d.lanes.some((l) => l.group === g)).map(([g, name]) => el("label", {}, el("input", { type: "checkbox", checked: true, onchange: (e) => { if (e.target.checked) view.hidden.delete(g); else view.hidden.add(g); lanes.redraw(); } }), name)));
    const legend = (items) => el("ul", { class: "legend" }, items.map(([c, text]) => el("li", {}, el("i", { style: "background:var(--" + c + ")" }), text)));

    const differing = d.panes.filter((p) => p.differs).length;
    let onlyDiffer = differing > 0, onlyOdd = false;
    // Long rows look alike side by side: of what was found, only what is not as expected.
    const found = (p) => {
      if (!p.found.length) return "none";
      const fields = (p.expected || "").split(", "), times = new Map();
      for (const [text] of p.found) {
        const other = p.expected == null ? text : text.split(", ").filter((field) => !fields.includes(field)).join(", ");
        const short = text === p.expected ? "as expected" : other || text;
        times.set(short, (times.get(short) || 0) + 1);
      }
      return [...times].map(([text, n]) => (n > 1 ? text + ", " + n + " times" : text)).join("; ");
    };
    const within = (p) => {
      const a = eventTime(p.start), b = eventTime(p.end), day = a.indexOf(" ") + 1;
      return "[" + a + ", " + (day && b.startsWith(a.slice(0, day)) ? b.slice(day) : b) + ")";
    };
    const paneTable = virtual("Windows, expected beside found", [["key"], ["window, event time"], ["pane", "num"], ["op"], ["found"], ["expected"], ["fired", "num"], ["where"], ["found, in full", "full"]], (p) => {
      const row = [p.key, within(p), p.pane, p.op, found(p), p.expected == null ? "none" : p.expected, p.fired == null ? "" : secs(p.fired), p.found.map((f) => f[1]).join(", "), p.found.map((f) => f[0]).join(" and again ")];
      row.class = p.differs ? "differs" : null;
      return row;
    });
    const paneCount = el("p", { class: "muted" });
    const fillPanes = () => {
      const list = d.panes.filter((p) => (!onlyDiffer || p.differs) && (!view.filter.key || p.key === view.filter.key));
      paneTable.set(list); paneCount.textContent = plural(list.length, "row") + " of " + d.panes.length + "; " + plural(differing, "row") + " not as expected.";
    };
    const opTable = virtual("Operations of the workload's clients", [["client"], ["n", "num"], ["what"], ["partition"], ["key"], ["transaction", "num"], ["invoked", "num"], ["answered", "num"], ["answer"]], (o) => {
      const row = [o[0], o[1], S(o[2]), S(o[3]), S(o[4]), o[5] < 0 ? "" : o[5], secs(o[6]), o[7] < 0 ? "never" : secs(o[7]), S(o[9])];
      row.class = o[10] ? "guilty" : null;
      return row;
    });
    const opCount = el("p", { class: "muted" });
    const fillOps = () => {
      const list = d.ops.filter((o) => (!onlyOdd || o[8] !== 0 || o[10]) && passes(o[4], o[3], o[5]));
      opTable.set(list); opCount.textContent = plural(list.length, "operation") + " of " + thousands(d.ops.length) + ".";
    };
    const tick = (text, value, act) => el("label", {}, el("input", { type: "checkbox", checked: value, onchange: (e) => act(e.target.checked) }), text);

    const told = d.told, kind = told && told.property;
    const story = told ? [
      el("h2", {}, "What happened"),
      kind ? el("p", {}, el("strong", {}, kind.name), ": " + kind.statement + " ", el("span", { class: "muted" }, "(" + kind.source + ")")) : null,
      el("dl", { class: "facts" }, [["violated", told.message], ["where", told.place], ["expected", told.expected], ["found", told.found]].filter((r) => r[1]).flatMap(([k, v]) => [el("dt", {}, k), el("dd", {}, v)])),
      el("ol", { class: "steps" }, told.steps.map((s, i) => el("li", { class: s.kind },
        el("span", { class: "n" }, i + 1 + "."),
        s.at_ms == null ? el("span", {}) : button(secs(s.at_ms), () => { view.look(s.at_ms, s.who + ": " + s.what); lanes.box.scrollIntoView({ block: "nearest" }); }, "Show in the timeline"),
        el("span", { class: "what" }, el("strong", {}, s.who), ": " + s.what)))),
      told.journey ? [el("h3", {}, "The way of the record: " + told.journey.record),
        table("Stages of the record", [["stage"], ["at", "num"], ["what", "wrap"]], told.journey.stages.map((s) => ({ class: s.reached ? null : "differs", cells: [s.reached ? s.name : "not " + s.name, s.at_ms == null ? "" : secs(s.at_ms), s.what] })))] : null,
      told.faults ? [el("h3", {}, "Which faults it takes"), told.without_any && told.without_any.tried ? el("p", {}, "Without any fault it fails in " + told.without_any.failing + " of " + told.without_any.tried + " runs.") : null, table("Each fault removed in turn", [["verdict"], ["fault", "wrap"], ["failing without it", "num"]], told.faults.map((f) => [f.need.replace("_", " "), "fault " + f.id + ": " + f.what + (f.did_bite ? "" : " (did not bite)"), f.without.tried ? f.without.failing + " of " + f.without.tried : "not tried"]))] : null,
      told.curve ? curve(told.curve) : null,
    ] : null;

    const root = el("div", {},
      el("p", {}, el("span", { class: "chip " + (d.failed ? "bad" : "good") }, d.verdict), " " + d.name + ", " + secs(d.end) + " simulated, " + plural(d.ops.length, "operation") + ", " + plural(d.faults.length, "fault") + " took effect."),
      story,
      el("h2", {}, "Timeline"), filters, tools,
      el("figure", {}, lanes.box, live, el("figcaption", {},
        el("span", { id: help }, "Keys on the picture: arrows left and right move, + and - zoom, 0 shows the whole run, v jumps to the first violation, arrows up and down choose a lane, n and p tell its next and previous event. Ctrl and wheel zoom, dragging moves. "),
        plural(d.lanes.length, "lane") + "; " + (d.faults.length ? "faults: " + d.faults.slice(0, 12).map((f) => f[2] + " " + f[3] + " at " + secs(f[0])).join("; ") + (d.faults.length > 12 ? "; and " + (d.faults.length - 12) + " more" : "") : "no fault took effect") + (d.violated == null ? "." : "; first violation at " + secs(d.violated) + ".") + (d.messages.length ? " " + plural(d.messages.length, "message") + " between nodes are arrows once few enough are in sight." + (d.messages_left_out ? " " + d.messages_left_out + " later ones were not kept." : "") : "")),
        legend([["up", "node up"], ["down", "process down"], ["off", "without power"], ["paused", "paused"], ["fault-edge", "fault"], ["epoch-b", "leader epoch"], ["isr-b", "in-sync set"], ["high", "high watermark"], ["stable", "last stable offset"], ["judge", "operation answered, records judged"], ["barrier", "operation unknown, barrier"], ["late", "operation failed, late record"], ["fire", "window fires"], ["done", "committed"], ["aborted", "aborted"], ["lost", "never complete"]])),
      d.records.length || d.watermarks.length ? (() => {
        const time = plot(view, "Event time against simulated time", help, paintTime, hitTime);
        return [el("h2", {}, "Event time"), el("figure", {}, time.box, el("figcaption", {}, "Up: event time; right: simulated time. Lines are the combined watermarks of " + names.join(", ") + " (sources dashed), one for each attempt; dots are records when they were judged; boxes are the windows of the chosen key from their first record to their firing" + (d.guilty_window ? ", at first those of key " + d.guilty_window[0] : "") + "."),
          legend([["judge", "on time"], ["warn", "behind"], ["late", "late"], ["advance", "judged, and not in the committed output"], ["fault", "window not as expected"]]))];
      })() : null,
      d.panes.length ? [el("h2", {}, "Windows: expected and found"), el("div", { class: "tools" }, tick("only rows that differ", onlyDiffer, (v) => { onlyDiffer = v; fillPanes(); })), paneCount, paneTable.box] : null,
      el("h2", {}, "Operations"), el("div", { class: "tools" }, tick("only those that failed or are unknown", false, (v) => { onlyOdd = v; fillOps(); })), opCount, opTable.box,
      el("h2", {}, "Faults that took effect"),
      d.faults.length ? table("Faults in order of time", [["from", "num"], ["to", "num"], ["kind"], ["at"], ["effect", "wrap"]], d.faults.map((f) => [secs(f[0]), secs(f[1]), f[2], f[3].length > 60 ? f[3].slice(0, 60) + "…" : f[3], f[4]])) : el("p", {}, "None."),
      el("h2", {}, "Properties"),
      table("Properties that judged the run", [["property"], ["verdict"], ["why", "wrap"]], d.properties.map((p) => ({ class: p[1] === "violated" ? "differs" : null, cells: p }))),
      d.notes.length ? [el("h2", {}, "Notes"), el("ul", {}, d.notes.map((n) => el("li", {}, n)))] : null,
      el("h2", {}, "How to see it again"), el("dl", { class: "facts" }, d.facts.flatMap(([k, v]) => [el("dt", {}, k), el("dd", {}, el("code", {}, v))])));
    fillPanes(); fillOps();
    if (d.violated != null && d.end > 4000) view.zoom(d.violated - 2000, d.violated + 1000);
    view.root = root;
    return view;
  };
  const curve = (c) => {
    const W = 720, H = 190, L = 44, R = 12, T = 10, B = 30, pts = c.points.filter((p) => p.runs.tried);
    if (!pts.length) return null;
    const end = Math.max(...pts.map((p) => p.at_ms), 1), X = (t) => L + t / end * (W - L - R), Y = (s) => T + (1 - s) * (H - T - B);
    const path = pts.map((p, i) => (i ? "H" + X(p.at_ms) + "V" : "M" + X(p.at_ms) + " ") + Y(p.runs.failing / p.runs.tried)).join("");
    const text = pts.map((p) => secs(p.at_ms) + ", after " + p.after + ": " + p.runs.failing + " of " + p.runs.tried).join("; ");
    const picture = svg("svg", { viewBox: `0 0 ${W} ${H}`, width: "100%", style: "max-width:720px", role: "img", "aria-label": "Probability of the failure over simulated time: " + text },
      [0, 0.5, 1].map((s) => [svg("line", { x1: L, x2: W - R, y1: Y(s), y2: Y(s), stroke: "var(--line)" }), Object.assign(svg("text", { x: L - 6, y: Y(s) + 4, "text-anchor": "end" }), { textContent: s * 100 + " %" })]).flat(),
      ticks(0, end, 8).map((t) => Object.assign(svg("text", { x: X(t), y: H - 10, "text-anchor": "middle" }), { textContent: (t / 1000).toFixed(1) + " s" })),
      c.inevitable_ms == null ? [] : [svg("rect", { x: X(c.inevitable_ms), y: T, width: Math.max(1, W - R - X(c.inevitable_ms)), height: H - T - B, fill: "var(--fault)" })],
      svg("path", { d: path + "H" + X(end), fill: "none", stroke: "var(--bad)", "stroke-width": 2 }),
      pts.map((p) => svg("circle", { cx: X(p.at_ms), cy: Y(p.runs.failing / p.runs.tried), r: 3.5, fill: "var(--bad)" })));
    return [el("h3", {}, "How probable the failure was"), el("figure", {}, picture, el("figcaption", {}, "Everything up to the instant as it was, everything after it drawn anew, up to " + c.tails + " times. " + (c.inevitable_ms == null ? "Even from the last instant some run escaped. " : "From " + secs(c.inevitable_ms) + " on no run escaped. "))),
      table("Points of the curve", [["from", "num"], ["after", "wrap"], ["failing", "num"]], pts.map((p) => [secs(p.at_ms), p.after, p.runs.failing + " of " + p.runs.tried]))];
  };

  // --- a sweep ------------------------------------------------------------------------------------------------------------
  const sweepView = (d, open) => {
    const s = d.summary, share = (x) => (100 * x).toFixed(1) + " %";
    const families = [...new Set(Object.values(d.faults).flatMap((f) => Object.keys(f)))].sort();
    const heat = (n, most, ofBad) => "background:color-mix(in srgb, var(--" + (ofBad ? "lost" : "done") + ") " + Math.round(65 * n / Math.max(1, most)) + "%, transparent)";
    const cell = (text, style) => el("td", { class: "cell", style }, text);
    const matrix = (caption, first, cols, rows) => el("div", { class: "scroll short", role: "region", tabindex: "0", "aria-label": caption }, el("table", { class: "heat" }, el("caption", { class: "muted" }, caption),
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, first), cols.map((c) => el("th", { scope: "col", class: "num" }, c)))), el("tbody", {}, rows.map(([name, cells]) => el("tr", {}, el("th", { scope: "row" }, name), cells)))));
    const bins = d.bins, top = Math.max(...bins, 1), W = 720, H = 150;
    const histogram = svg("svg", { viewBox: `0 0 ${W} ${H}`, width: "100%", style: "max-width:720px", role: "img", "aria-label": "Wall time of seeds: median " + s.median_wall_ms + " ms, 99th hundredth " + s.p99_wall_ms + " ms" },
      bins.map((n, i) => svg("rect", { x: 10 + i * (W - 20) / bins.length, y: H - 24 - n / top * (H - 34), width: (W - 20) / bins.length - 1, height: n / top * (H - 34), fill: "var(--fire)" })),
      [0, 0.25, 0.5, 0.75, 1].map((f) => Object.assign(svg("text", { x: 10 + f * (W - 20), y: H - 6, "text-anchor": f === 0 ? "start" : f === 1 ? "end" : "middle" }), { textContent: Math.round(f * bins.length * d.bin_ms) + " ms" })));
    const seedLink = ([scenario, seed]) => { const name = scenario + "/" + seed, i = open.names.indexOf(name); return i < 0 ? name : el("button", { type: "button", onclick: () => open(i) }, name); };
    const join = (list) => list.flatMap((x, i) => (i ? [" ", x] : [x]));
    const root = el("div", {},
      el("p", {}, el("span", { class: "chip " + (s.failed ? "bad" : "good") }, s.failed ? plural(s.failed, "failing seed") : "all passed"), " " + plural(s.seeds, "seed") + ": " + s.passed + " passed, " + s.failed + " failed, " + s.inconclusive + " inconclusive; " + (s.simulated_ms / 3600000).toFixed(1) + " simulated hours in " + (s.wall_ms / 1000).toFixed(1) + " s, " + s.seeds_per_second + " seeds a second; " + share(s.faults_bit_share) + " of " + s.faults_enabled + " faults bit."),
      Object.entries(s.canaries).map(([name, caught]) => el("p", {}, "canary " + name + ": ", el("strong", { class: caught ? "good" : "bad" }, caught ? "caught" : "NOT CAUGHT"))),
      el("h2", {}, "Failures by signature"),
      d.signatures.length ? table("What failed, the most frequent first", [["seeds", "num"], ["trend"], ["signature", "wrap"], ["first of them", "wrap"]], d.signatures.map((f) => [f.count, f.trend, f.signature, el("span", {}, join(f.seeds.map(seedLink)))])) : el("p", { class: "good" }, "None."),
      el("h2", {}, "Scenarios"),
      table("Figures by scenario", [["scenario"], ["seeds", "num"], ["failed", "num"], ["inconclusive", "num"], ["records", "num"], ["windows", "num"], ["checkpoints", "num"], ["faults bit", "num"], ["p50", "num"], ["p99", "num"]], s.scenarios.map((r) => ({ class: r.failed ? "differs" : null, cells: [r.scenario, r.seeds, r.failed, r.inconclusive, r.median_records, r.median_windows, r.median_checkpoints, r.faults_bit + "/" + r.faults_enabled, r.median_wall_ms + " ms", r.p99_wall_ms + " ms"] }))),
      families.length ? [el("h2", {}, "Faults by family"), matrix("Faults that took effect, of those planned", "scenario", families, Object.entries(d.faults).map(([name, f]) => [name, families.map((x) => (f[x] ? cell(f[x].bit + " of " + f[x].enabled, heat(f[x].bit, f[x].enabled)) : cell("", "")))]))] : null,
      Object.keys(d.job_phases).length ? [el("h2", {}, "Faults by phase of the job"), (() => { const most = Math.max(...Object.values(d.job_phases).flatMap((f) => Object.values(f).map((n) => n.bit))); return matrix("Faults that took effect, of those that struck while the job was in the phase", "family", d.job_phase_names, Object.entries(d.job_phases).map(([family, f]) => [family, d.job_phase_names.map((p) => (f[p] ? cell(f[p].bit + " of " + f[p].enabled, heat(f[p].bit, most)) : cell("0", "")))])); })()] : null,
      Object.keys(d.struck).length ? [el("h2", {}, "When faults struck in failing seeds"), matrix("Faults of failing seeds by tenth of the run's simulated time", "fault", ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"], Object.entries(d.struck).map(([kind, row]) => { const most = Math.max(...Object.values(d.struck).flat()); return [kind, row.map((n) => cell(n || "", heat(n, most, true)))]; }))] : null,
      el("h2", {}, "Rare states reached"),
      Object.keys(d.marks).length ? table("Marks and the seeds that reached them", [["mark", "wrap"], ["seeds", "num"]], Object.entries(d.marks).map(([m, n]) => [m, n])) : el("p", {}, "None."),
      el("h2", {}, "Speed"), el("figure", {}, histogram, el("figcaption", {}, "Wall time of a seed: median " + s.median_wall_ms + " ms, 99th hundredth " + s.p99_wall_ms + " ms; the last bar holds all slower ones.")),
      table("The slowest seeds", [["seed"], ["wall time", "num"]], d.slowest.map(([a, b, ms]) => [a + "/" + b, ms + " ms"])),
      d.inconclusive.length ? [el("h2", {}, "Inconclusive"), table("Seeds that were not decided", [["seed"], ["why", "wrap"]], d.inconclusive.slice(0, 50).map(([a, b, why]) => [a + "/" + b, why]))] : null,
      el("h2", {}, "Runs"), table("Runs in this report", [["run"], ["command", "wrap"]], d.runs.map(([id, c]) => [id, el("code", {}, c)])));
    return { root };
  };

  // --- views --------------------------------------------------------------------------------------------------------------
  const nav = byId("views"), main = byId("main"), made = new Map(), views = [];
  const sweep = byId("sweep");
  let count = 0;
  while (byId("run-" + count)) count += 1;
  const nameOf = (i) => { const m = /"name":\s*"((?:[^"\\]|\\.)*)"/.exec(byId("run-" + i).textContent.slice(0, 2000)); return m ? JSON.parse('"' + m[1] + '"') : "run " + i; };
  const show = (k, focus) => {
    const [key, make] = views[k];
    redraws.clear();
    if (!made.has(key)) made.set(key, make());
    const view = made.get(key);
    (view.redraws || []).forEach((f) => redraws.add(f));
    main.replaceChildren(view.root);
    [...nav.children].forEach((b, i) => b.setAttribute("aria-current", i === k ? "true" : "false"));
    redraws.forEach((f) => f());
    if (focus) { main.focus({ preventScroll: true }); scrollTo(0, 0); }
    history.replaceState(null, "", "#" + key);
  };
  const names = Array.from({ length: count }, (_, i) => nameOf(i));
  const open = (i) => show(i + (sweep ? 1 : 0), true);
  open.names = names;
  if (sweep) views.push(["sweep", () => sweepView(read("sweep"), open)]);
  names.forEach((_, i) => views.push(["run-" + i, () => runView(read("run-" + i), i)]));
  if (views.length > 1) views.forEach(([key], k) => nav.append(el("button", { type: "button", onclick: () => show(k, true) }, key === "sweep" ? "Sweep" : names[k - (sweep ? 1 : 0)])));
  const wanted = views.findIndex(([key]) => key === location.hash.slice(1));
  if (views.length) show(Math.max(0, wanted), false);
  document.documentElement.setAttribute("data-ready", "true");
})();
