"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const nodeVariable = (name) => "--n" + ((Number(name.replace("node-", "")) - 1) % 8);
  const originVariable = { local: "--n0", remote: "--n2", lease: "--n6", standby: "--n1", fallback: "--n4" };
  const rate = (x) => (x >= 10 ? Math.round(x) : Math.round(10 * x) / 10).toLocaleString("en");
  const text = (element, value) => { if (element.textContent !== value) element.textContent = value; };
  const element = (tag, properties = {}, ...children) => {
    const e = Object.assign(document.createElement(tag), properties);
    e.append(...children);
    return e;
  };
  const dot = (variable) => {
    const d = element("span", { className: "dot" });
    d.style.setProperty("--colour", `var(${variable})`);
    d.setAttribute("aria-hidden", "true");
    return d;
  };

  // rows keeps one child of a parent per item, so that what has the focus keeps it.
  const rows = (parent, items, name, create, update) => {
    const old = new Map([...parent.children].map((child) => [child.dataset.name, child]));
    items.forEach((item, i) => {
      let child = old.get(name(item));
      if (!child) {
        child = create(item);
        child.dataset.name = name(item);
      }
      old.delete(name(item));
      update(child, item);
      if (parent.children[i] !== child) parent.insertBefore(child, parent.children[i] ?? null);
    });
    old.forEach((child) => child.remove());
  };

  // Commands.
  const command = async (what) => {
    text($("answer"), "");
    try {
      const response = await fetch("do", { method: "POST", body: JSON.stringify(what), headers: { "Content-Type": "application/json" } });
      if (!response.ok) text($("answer"), await response.text());
    } catch {
      text($("answer"), "The demo does not answer.");
    }
    update();
  };
  let state;
  const ownerOf = (key) => state?.keys.find((k) => k.name === key)?.owner;
  $("kill-owner").addEventListener("click", () => command({ do: "kill", node: ownerOf("alice") ?? "" }));
  $("start").addEventListener("click", () => command({ do: "start" }));
  $("split").addEventListener("click", () => command({ do: state?.split ? "heal" : "split" }));
  $("load").addEventListener("change", () => command({ do: "load", load: Number($("load").value) }));
  $("limit-form").addEventListener("submit", (event) => {
    event.preventDefault();
    command({ do: "limit", rate: Number($("rate").value), burst: Number($("burst").value) });
  });

  // Plots. Each series is drawn from zero to the sum of it and those after it, the highest first.
  const seconds = 60;
  const plots = {};
  const plot = (id, names, variables, stacked) => {
    const shape = [id, ...names].join();
    if (plots[id]?.shape === shape) return plots[id].plot;
    plots[id]?.plot.destroy();
    const series = names.map((name, i) => stacked
      ? { stroke: colour(variables[i]), fill: colour(variables[i]), width: 1, points: { show: false } }
      : { stroke: colour(variables[i]), width: name === "limit" ? 2 : 2, dash: name === "limit" ? [6, 4] : undefined, points: { show: false } });
    const axis = { stroke: colour("--soft"), grid: { stroke: colour("--grid"), width: 1 }, ticks: { stroke: colour("--grid") } };
    const marks = (u) => {
      u.ctx.save();
      u.ctx.strokeStyle = colour("--text");
      u.ctx.setLineDash([2, 3]);
      for (const e of state?.events ?? []) {
        if (!e.done || e.t < u.scales.x.min || e.t > u.scales.x.max) continue;
        const x = Math.round(u.valToPos(e.t, "x", true));
        u.ctx.beginPath();
        u.ctx.moveTo(x, u.bbox.top);
        u.ctx.lineTo(x, u.bbox.top + u.bbox.height);
        u.ctx.stroke();
      }
      u.ctx.restore();
    };
    const made = new uPlot({
      width: Math.max($(id).clientWidth, 200), height: 190, legend: { show: false }, cursor: { show: false },
      scales: { x: { time: false }, y: { range: (u, low, high) => [0, Math.max(high * 1.08, 1)] } },
      axes: [{ ...axis, values: (u, ticks) => ticks.map((t) => t + " s") }, { ...axis, size: 48 }],
      series: [{}, ...series], hooks: { draw: [marks] },
    }, [[0], ...names.map(() => [0])], $(id));
    plots[id] = { shape, plot: made };
    return made;
  };
  const draw = (id, points, names, variables, value, stacked) => {
    const sums = names.map((_, i) => points.map((p) => (stacked ? names.slice(i) : [names[i]]).reduce((sum, n) => sum + value(p, n), 0)));
    plot(id, names, variables, stacked).setData([points.map((p) => p.t), ...sums]);
    const last = points.slice(-2);
    rows($(id + "-text"), names, (n) => n, (n) => {
      const label = element("span", {}, dot(variables[names.indexOf(n)]), n + " ", element("b"));
      return label;
    }, (label, n) => text(label.querySelector("b"), rate(last.reduce((sum, p) => sum + value(p, n), 0) / Math.max(last.length, 1))));
  };
  const forget = () => Object.keys(plots).forEach((id) => { plots[id].plot.destroy(); delete plots[id]; });
  const redraw = () => { forget(); $("total-text").replaceChildren(); $("by-node-text").replaceChildren(); $("by-origin-text").replaceChildren(); if (state) drawPlots(); };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  new ResizeObserver(() => Object.entries(plots).forEach(([id, p]) => p.plot.setSize({ width: Math.max($(id).clientWidth, 200), height: 190 }))).observe(document.body);

  const drawPlots = () => {
    const points = state.points.filter((p) => p.t >= state.now - seconds);
    if (points.length === 0) return;
    draw("total", points, ["offered", "admitted", "limit"], ["--offered", "--admitted", "--limit"], (p, n) => p[n], false);
    const nodes = state.nodes.map((n) => n.name).filter((name) => points.some((p) => p.nodes[name]));
    draw("by-node", points, nodes, nodes.map(nodeVariable), (p, n) => p.nodes[n] ?? 0, true);
    const origins = ["local", "remote", "lease", "standby", "fallback"].filter((o) => o === "local" || o === "remote" || points.some((p) => p.origins[o]));
    draw("by-origin", points, origins, origins.map((o) => originVariable[o]), (p, o) => p.origins[o] ?? 0, true);
  };

  // The ring.
  const circle = (arcs, of, radius, width) => {
    const parts = [];
    let from = 0;
    const at = (i) => { const a = 2 * Math.PI * (i / arcs.length) - Math.PI / 2; return `${(radius * Math.cos(a)).toFixed(2)} ${(radius * Math.sin(a)).toFixed(2)}`; };
    for (let i = 1; i <= arcs.length; i++) {
      if (i < arcs.length && of(arcs[i]) === of(arcs[from])) continue;
      const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
      path.setAttribute("d", `M ${at(from)} A ${radius} ${radius} 0 ${i - from > arcs.length / 2 ? 1 : 0} 1 ${at(i === from + arcs.length ? i - 0.01 : i)}`);
      path.setAttribute("fill", "none");
      path.setAttribute("stroke-width", width);
      path.style.stroke = of(arcs[from]) ? `var(${nodeVariable(of(arcs[from]))})` : "var(--line)";
      parts.push(path);
      from = i;
    }
    return parts;
  };
  let drawn = "";
  const drawRing = () => {
    const shape = JSON.stringify([state.arcs, state.keys.map((k) => [k.owner, k.standby, k.place])]);
    if (shape === drawn || state.arcs.length === 0) return;
    drawn = shape;
    const parts = [...circle(state.arcs, (a) => a.o, 88, 18), ...circle(state.arcs, (a) => a.h, 68, 9)];
    for (const k of state.keys) {
      const a = 2 * Math.PI * k.place - Math.PI / 2;
      const mark = document.createElementNS("http://www.w3.org/2000/svg", "path");
      mark.setAttribute("d", `M ${(99 * Math.cos(a)).toFixed(1)} ${(99 * Math.sin(a)).toFixed(1)} L ${(108 * Math.cos(a)).toFixed(1)} ${(108 * Math.sin(a)).toFixed(1)}`);
      mark.setAttribute("stroke-width", 2);
      mark.style.stroke = "var(--text)";
      const label = document.createElementNS("http://www.w3.org/2000/svg", "text");
      label.setAttribute("x", (111 * Math.cos(a)).toFixed(1));
      label.setAttribute("y", (113 * Math.sin(a) + 4).toFixed(1));
      label.setAttribute("text-anchor", Math.cos(a) > 0.3 ? "start" : Math.cos(a) < -0.3 ? "end" : "middle");
      label.textContent = k.name;
      parts.push(mark, label);
    }
    $("ring").replaceChildren(...parts);
    text($("ring-text"), state.keys.map((k) => `${k.name}: ${k.owner}${k.standby ? ", then " + k.standby : ""}`).join("; ") + ".");
  };

  // Tables.
  const cells = (row, values) => values.forEach((v, i) => text(row.children[i + 1], v));
  const tokens = (x) => (x < 100 ? Math.round(10 * x) / 10 : Math.round(x)).toLocaleString("en");
  const drawKeys = () => {
    const last = state.points.slice(-2);
    rows($("keys").tBodies[0], state.keys, (k) => k.name, (k) => {
      const row = element("tr", {}, element("th", { scope: "row", textContent: k.name }));
      for (let i = 0; i < 7; i++) row.append(element("td", { className: i === 2 || i === 3 ? "" : "n" }));
      return row;
    }, (row, k) => cells(row, [
      rate(k.times * state.rate * state.load), rate(last.reduce((sum, p) => sum + (p.keys[k.name] ?? 0), 0) / Math.max(last.length, 1)),
      k.owner, k.standby || "–", tokens(k.admitted), tokens(k.bound), k.extra ? "+" + tokens(k.extra) : "0",
    ]));
  };
  const actions = { running: ["kill", "freeze", "retire"], frozen: ["wake"], "cut off": [], starting: [] };
  const drawNodes = () => {
    const last = state.points.slice(-2);
    const shown = state.nodes.filter((n, i) => (n.state !== "killed" && n.state !== "left") || i >= state.nodes.length - 8);
    rows($("nodes").tBodies[0], shown, (n) => n.name, (n) => {
      const row = element("tr", {}, element("th", { scope: "row" }, dot(nodeVariable(n.name)), n.name));
      for (let i = 0; i < 6; i++) row.append(element("td", { className: i === 3 || i === 4 ? "n" : "" }));
      return row;
    }, (row, n) => {
      row.className = n.state === "killed" || n.state === "left" ? "gone" : "";
      const admitted = last.reduce((sum, p) => sum + (p.nodes[n.name] ?? 0), 0) / Math.max(last.length, 1);
      cells(row, [String(n.pid), n.state, n.owns.join(", ") || "–", n.share ? Math.round(100 * n.share) + " %" : "–", rate(admitted)]);
      const possible = actions[n.state] ?? [];
      rows(row.lastElementChild, possible, (a) => a, (a) => {
        const button = element("button", { type: "button", textContent: a[0].toUpperCase() + a.slice(1) });
        button.setAttribute("aria-label", button.textContent + " " + n.name);
        button.addEventListener("click", () => command({ do: a, node: n.name }));
        return button;
      }, (button) => { button.disabled = state.split; });
    });
  };
  const drawVerdict = () => {
    const problems = [...state.problems, ...state.keys.flatMap((k) => k.problems.map((p) => `${k.name}: ${p}`))];
    const judged = state.judged > 0;
    const section = $("verdict");
    section.className = !judged ? "judging" : state.held ? "good" : "broken";
    text($("verdict-h"), !judged ? "Starting …" : state.held ? "✓ The limit is held" : "✗ Not as promised");
    if (judged) {
      text($("verdict-text"), `${Math.floor(state.judged)} s of load, and no window of any length admitted more than a burst of B = ${tokens(state.burst)}, R = ${tokens(state.rate)} for each of its seconds` +
        (state.extras.length ? ", and the extra for what was done and reported:" : "."));
      if (!state.held) text($("verdict-text"), "This broke:");
    }
    rows($("problems"), state.held ? [] : problems, (p) => p, (p) => element("li", { textContent: p }), () => {});
    rows($("extras"), state.extras.slice(-6), (x) => `${x.key}: ${tokens(x.tokens)} ${x.why} (${x.what})`, () => element("li"), (li, x) => text(li, `${x.key}: ${tokens(x.tokens)} ${x.why} (${x.what})`));
  };
  const drawEvents = () => {
    const log = $("log");
    const stays = log.scrollTop < 4;
    rows($("events"), state.events.slice(-100).reverse(), (e) => e.t + e.text, (e) => element("li", { className: e.done ? "done" : "" },
      element("time", { textContent: e.t.toFixed(1) + " s" }), e.text), () => {});
    if (stays) log.scrollTop = 0;
  };

  let shownLimit = "";
  const show = () => {
    const running = state.nodes.filter((n) => n.state === "running" || n.state === "cut off").length;
    text($("count"), running ? String(running) : "many");
    text($("limit-text"), `${tokens(state.rate)} requests a second`);
    const limit = `${state.rate} ${state.burst}`;
    if (limit !== shownLimit) {
      shownLimit = limit;
      $("rate").value = state.rate;
      $("burst").value = state.burst;
    }
    if (document.activeElement !== $("load")) $("load").value = String(state.load);
    $("split").setAttribute("aria-pressed", String(state.split));
    text($("split"), state.split ? "Heal the network" : "Split the network");
    $("kill-owner").disabled = state.split;
    $("start").disabled = state.split;
    document.title = (state.judged ? (state.held ? "✓ held" : "✗ broken") + ": " : "") + "peerlimit, one limit";
    drawVerdict();
    drawKeys();
    drawNodes();
    drawPlots();
    drawRing();
    drawEvents();
  };
  let asking = false;
  const update = async () => {
    if (asking) return;
    asking = true;
    try {
      const response = await fetch("state", { cache: "no-store" });
      if (!response.ok) throw new Error(response.statusText);
      state = await response.json();
      $("lost").hidden = true;
      show();
    } catch (error) {
      $("lost").hidden = false;
      if (!(error instanceof TypeError)) throw error; // not the network: a mistake of this page
    } finally {
      asking = false;
    }
  };
  setInterval(() => { if (!document.hidden) update(); }, 500);
  update();
})();
