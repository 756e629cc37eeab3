// The explorer: curves of runs, drawn by Plotly in the browser. It needs no Python once it is shown.
// viewing/browser_data.py writes it into notebooks' outputs and pages, with the data that it makes. A refresh calls
// colabcnnExplorer.update, which keeps the view.
(function () {
  "use strict";

  // Okabe and Ito's colours, which colour-blind people can distinguish; lighter ones on a dark page.
  const LIGHT = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"];
  const DARK = ["#4DA3E0", "#FF8A3D", "#2BC79A", "#E9A3C8", "#F2B632", "#9AD7FF", "#F2F2F2"];
  // When the colours are used up, they begin again with markers.
  const MARKERS = ["", "circle", "square", "diamond", "triangle-up", "x"];
  const SHAPES = { "": "", circle: "●", square: "■", diamond: "◆", "triangle-up": "▲", x: "✖" };
  const MANY_RUNS = 8; // From here on means are shown first.
  const MOST_STARS = 12;
  const BEST_SPAN = 25; // Epochs on either side of the best one.
  const CHOICES = {
    metric: ["metric", { accuracy: "accuracy", loss: "loss", learning_rate: "learning rate" }],
    x: ["against", { epochs: "epochs", minutes: "minutes", steps: "steps" }],
    scale: ["scale", { linear: "linear", log: "logarithmic" }],
    seeds: ["seeds", { each: "each run", mean: "mean and deviation", both: "both" }],
    curves: ["curves", { both: "training and validation", validation: "validation", training: "training" }],
  };
  const NONE = "rgba(0,0,0,0)";
  const KEYS = "Arrow keys move the view, + and - zoom, Home shows the complete run, Backspace goes back.";
  const RANGES = [["xrange", 0, "from"], ["xrange", 1, "to"], ["yrange", 0, "from"], ["yrange", 1, "to"]];
  const store = (window.colabcnnStore = window.colabcnnStore || {});

  function element(tag, attributes, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (typeof value === "function") made.addEventListener(name, value);
      else if (value === true) made.setAttribute(name, "");
      else if (value !== false && value != null) made.setAttribute(name, value);
    }
    made.append(...children.filter((child) => child != null)); // Strings become text, never markup.
    return made;
  }

  // A name as Plotly shows it: without its tags, its %{...} and the $...$ of MathJax.
  const LITERAL = { "&": "&amp;", "<": "&lt;", ">": "&gt;", "%": "&#37;", $: "&#36;" };
  const literal = (text) => text.replace(/[&<>%$]/g, (sign) => LITERAL[sign]);
  const digits = (value) => (Number.isFinite(value) ? value.toFixed(4) : "none");
  // The mean of numbers, NaN without one, and their sample standard deviation, 0 for one.
  function spread(values) {
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
    return { mean, deviation: values.length > 1 ? Math.sqrt(squares / (values.length - 1)) : 0 };
  }
  // The ends of a range, with four digits of each and of the distance between them.
  function short(range) {
    return range.map((end) => {
      const size = Math.min(...[end, range[1] - range[0]].map((length) => Math.abs(length) || Infinity));
      return String(Number(end.toFixed(Math.min(20, Math.max(0, 3 - Math.floor(Math.log10(size)))))));
    });
  }
  const precise = (value) => String(Number(value.toPrecision(7))); // Of many steps, too.
  const transparent = (colour, alpha) => colour + Math.round(alpha * 255).toString(16).padStart(2, "0");

  function column(value, count) {
    if (typeof value === "number") return new Float32Array(count).fill(value);
    const text = atob(value), bytes = new Uint8Array(text.length);
    for (let index = 0; index < text.length; index++) bytes[index] = text.charCodeAt(index);
    return new Float32Array(bytes.buffer);
  }

  // The mean over a centred window, which is narrower at the ends and so bends neither of them.
  function smooth(values, window) {
    if (window < 2) return values;
    const sums = [0], counts = [0];
    values.forEach((value, index) => {
      sums.push(sums[index] + (Number.isFinite(value) ? value : 0));
      counts.push(counts[index] + Number.isFinite(value));
    });
    return values.map((value, index) => {
      const half = Math.min((window - 1) >> 1, index, values.length - 1 - index);
      const [first, end] = [index - half, index + half + 1];
      return Number.isFinite(value) ? (sums[end] - sums[first]) / (counts[end] - counts[first]) : NaN;
    });
  }

  // Mean and standard deviation of the runs that have a number at an epoch.
  function meanOf(runs, name, axis) {
    const at = new Map(); // From an epoch to each run that has reached it, with its index there.
    for (const run of runs) {
      run.x.epochs.forEach((epoch, index) => {
        if (!at.has(epoch)) at.set(epoch, []);
        at.get(epoch).push([run, index]);
      });
    }
    const made = { x: [], mean: [], low: [], high: [], text: [] };
    let x = 0;
    for (const epoch of [...at.keys()].sort((a, b) => a - b)) {
      const there = at.get(epoch), average = (read) => there.reduce((sum, one) => sum + read(...one), 0) / there.length;
      const values = there.map(([run, index]) => run.values[name][index]).filter(Number.isFinite);
      const { mean, deviation } = spread(values); // Without a value: a gap.
      // Minutes from the epoch before, so that the curve does not go back in time where a slow run has ended.
      const step = (run, index) => run.x[axis][index] - (run.x[axis][index - 1] ?? 0);
      x = axis === "minutes" ? x + average(step) : average((run, index) => run.x[axis][index]);
      made.x.push(x);
      made.mean.push(mean);
      made.low.push(mean - deviation);
      made.high.push(mean + deviation);
      made.text.push(`epoch ${epoch}, ± ${digits(deviation)}, n = ${values.length}`);
    }
    return made;
  }

  // The index of the best epoch: the highest accuracy or the lowest loss; -1 without one.
  function bestIndex(values, metric) {
    const sign = metric === "loss" ? -1 : 1;
    const isBetter = (value, best) => value * sign > (best < 0 ? -Infinity : values[best] * sign);
    return values.reduce((best, value, index) => (isBetter(value, best) ? index : best), -1);
  }

  function isDark(root) {
    const paint = element("canvas", { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true });
    for (let node = root; node; node = node.parentElement) {
      paint.fillStyle = getComputedStyle(node).backgroundColor; // In any of CSS's colour spaces.
      paint.fillRect(0, 0, 1, 1);
      const [red, green, blue, alpha] = paint.getImageData(0, 0, 1, 1).data;
      if (alpha > 0) return 0.3 * red + 0.6 * green + 0.1 * blue < 128;
    }
    const theme = document.documentElement.getAttribute("theme"); // Colab's.
    return theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  }

  class Explorer {
    constructor(root, id) {
      this.root = root;
      this.id = id;
      this.back = [];
      this.coarse = matchMedia("(pointer: coarse)").matches;
      this.expanded = new Set();
      this.build();
      this.take(store[id].data);
      this.initial = this.view = this.firstView();
      this.open(store[id].view || this.given());
      // A link that is pasted into the page's address.
      if (this.data.page) window.addEventListener("hashchange", () => this.open(this.given()));
    }

    // ---- data and view

    given() {
      return this.decode((this.data.page && location.hash.slice(1)) || this.data.view);
    }

    open(view) {
      if (this.plot.data) this.back.push(this.view);
      this.view = view;
      this.draw();
      if (this.refused) this.report(`Ignored, since no view has it: ${this.refused}`, true);
    }

    take(data) {
      this.data = data;
      this.groups = new Map();
      this.runs = data.runs.map((given) => {
        const run = { ...given, values: {}, x: {} };
        for (const [name, value] of Object.entries(given.curves)) run.values[name] = column(value, run.epochs);
        run.x.epochs = run.values.epoch || Float32Array.from({ length: run.epochs }, (_, index) => index + 1);
        // Null where they are not known: without a record, or of a run that shared its device with other work.
        run.x.steps = run.steps && run.x.epochs.map((epoch) => epoch * run.steps);
        let seconds = 0;
        const add = (value) => (seconds += Number.isFinite(value) ? value : 0) / 60;
        run.x.minutes = run.timed ? run.values.seconds.map(add) : null;
        const name = given.group;
        if (!this.groups.has(name)) this.groups.set(name, { name, runs: [], index: this.groups.size });
        run.group = this.groups.get(name);
        run.group.runs.push(run);
        return run;
      });
      for (const group of this.groups.values()) {
        // Seeds of one experiment in colours of their own.
        group.apart = this.groups.size === 1 && group.runs.length <= LIGHT.length;
        group.runs.forEach((run, index) => (run.index = group.apart ? index : group.index));
      }
    }

    firstView() {
      const many = this.runs.length >= MANY_RUNS && this.groups.size < this.runs.length;
      const off = this.runs.filter((run) => run.off);
      return {
        metric: "accuracy", x: "epochs", scale: "linear", seeds: many ? "mean" : "each",
        curves: this.runs.length > 3 ? "validation" : "both", smoothing: 1, line: 0.9, xrange: null, yrange: null,
        hide: new Set(off.length < this.runs.length ? off.map((run) => run.label) : []),
      };
    }

    // Where the guide line is first: 0.9 is the aim of the accuracy, not of the loss.
    usualLine(metric) {
      return metric === "accuracy" ? this.initial.line : null;
    }

    encode() {
      const query = new URLSearchParams(), view = this.view, initial = this.initial;
      for (const name of [...Object.keys(CHOICES), "smoothing", "line"]) {
        // Without a fragment a page shows the view that it was written with, so another one is always written.
        const usual = name === "line" ? this.usualLine(view.metric) : initial[name];
        const isWritten = view[name] !== usual || (name === "metric" && this.data.view);
        if (isWritten) query.set(name, view[name] ?? "none");
      }
      for (const name of ["xrange", "yrange"]) if (view[name]) query.set(name, view[name].map(precise).join(":"));
      for (const run of this.runs) {
        const hidden = view.hide.has(run.label);
        if (hidden !== initial.hide.has(run.label)) query.append(hidden ? "hide" : "show", run.label);
      }
      return query.toString();
    }

    decode(text) {
      const view = { ...this.initial, hide: new Set(this.initial.hide) }, refused = [];
      const query = new URLSearchParams(text || ""), lowest = query.get("scale") === "log" ? 0 : -Infinity;
      for (const [name, value] of query) {
        const number = Number(value), range = value.split(":").map(Number);
        const isRange = range.length === 2 && range.every(Number.isFinite) && range[0] < range[1];
        const isChoice = Object.hasOwn(CHOICES, name) && Object.hasOwn(CHOICES[name][1], value);
        if (isChoice) view[name] = value;
        else if (name === "smoothing" && number >= 1 && number <= 101) view.smoothing = number;
        else if (name === "line" && value === "none") view.line = null;
        else if (name === "line" && Number.isFinite(number)) view.line = number;
        else if (isRange && (name === "xrange" || (name === "yrange" && range[0] > lowest))) view[name] = range;
        else if (name === "hide" || name === "show") view.hide[name === "hide" ? "add" : "delete"](value);
        else refused.push(`${name}=${value}`);
      }
      if (!query.has("line")) view.line = this.usualLine(view.metric);
      this.refused = refused.join(", ");
      return view;
    }

    change(changes) {
      const { metric } = changes;
      if (metric && metric !== this.view.metric) changes = { line: this.usualLine(metric), ...changes };
      const isSame = Object.entries(changes).every(([name, value]) => this.view[name] === value);
      if (isSame) return this.syncControls(); // A step back would seem to do nothing.
      this.back.push(this.view);
      this.view = { ...this.view, ...changes };
      if (Object.keys(changes).every((name) => name.endsWith("range"))) this.move();
      else this.draw();
    }

    goBack() {
      if (this.back.length) {
        this.view = this.back.pop();
        this.draw();
      }
    }

    // Runs that are switched on and have an epoch, and those of them that have values of the horizontal axis.
    get switchedOn() {
      return this.runs.filter((run) => !this.view.hide.has(run.label) && run.epochs);
    }

    get visible() {
      return this.switchedOn.filter((run) => run.x[this.view.x]);
    }

    get kinds() {
      const { metric, curves } = this.view;
      if (metric === "learning_rate") return [["learning rate", metric, false]];
      const kinds = [["training", metric, true], ["validation", `val_${metric}`, false]];
      return kinds.filter(([kind]) => curves === "both" || curves === kind);
    }

    // What both axes show: the view's ranges, or all that the visible curves reach.
    ranges({ x, xrange, yrange, metric, scale } = this.view) {
      let [left, right, low, high] = [Infinity, -Infinity, Infinity, -Infinity];
      for (const run of this.visible) {
        left = Math.min(left, run.x[x][0]);
        right = Math.max(right, run.x[x][run.epochs - 1]);
        for (const [, name] of this.kinds) {
          for (const value of run.values[name]) {
            if (!Number.isFinite(value) || (scale === "log" && value <= 0)) continue;
            low = Math.min(low, value);
            high = Math.max(high, value);
          }
        }
      }
      if (left > right) [left, right] = [0, 1];
      if (low > high) [low, high] = scale === "log" ? [0.1, 1] : [0, 1];
      const share = 0.02 * (right - left), side = x !== "epochs" ? share || 0.5 : share > 0.5 ? Math.ceil(share) : 0.5;
      const edge = high > low ? 0.04 * (high - low) : 0.05 * Math.abs(high) || 0.05;
      const all = scale === "log" ? [low / 1.1, high * 1.1] : [low - edge, high + edge];
      if (metric === "accuracy" && scale === "linear") {
        all.splice(0, 2, Math.max(0, all[0]), high > 1 ? all[1] : Math.min(1.005, all[1])); // Above 1: percent.
      }
      return { x: xrange || [Math.max(0, left - side), right + side], y: yrange || all };
    }

    bestOfVisible() {
      const best = this.visible
        .map((run) => [run, bestIndex(run.values.val_accuracy, "accuracy")])
        .filter(([, index]) => index >= 0)
        .sort(([a, i], [b, j]) => b.values.val_accuracy[j] - a.values.val_accuracy[i])[0];
      if (!best) return null;
      const [run, index] = best, value = run.values.val_accuracy[index];
      return { run, index, value, unit: value > 1 ? 100 : 1 }; // Percent, in a history of one's own.
    }

    // The article's pictures, of the runs that are visible.
    showEnlarged() {
      const best = this.bestOfVisible();
      const { value, unit } = best || {};
      const yrange = best ? [Math.max(0, value - 0.15 * unit), Math.min(unit, value + 0.1 * unit)] : null;
      this.change({ metric: "accuracy", scale: "linear", xrange: null, yrange });
    }

    showAroundBest() {
      const best = this.bestOfVisible();
      if (!best) return this.report("No visible run has an epoch.", true);
      const { run, index } = best, at = run.x[this.view.x][index], span = (BEST_SPAN * at) / run.x.epochs[index];
      const [left, right] = this.ranges({ ...this.view, xrange: null }).x;
      const xrange = span ? [Math.max(left, at - span), Math.min(right, at + span)] : null;
      // The line at 0.9 belongs into the picture only where the run comes near it.
      const { value, unit } = best, least = value > 0.85 * unit ? 0.91 * unit : 0;
      const yrange = [Math.max(0, value - 0.03 * unit), Math.max(least, Math.min(unit, value + 0.02 * unit))];
      this.change({ metric: "accuracy", scale: "linear", line: 0.9 * unit, xrange, yrange });
    }

    // Zoom by a factor around the middle, or move by a share of what is shown.
    zoom(factor, right = 0, up = 0) {
      const log = this.view.scale === "log";
      const ends = ({ x, y }) => [x, log ? y.map(Math.log10) : y];
      const shown = ends(this.ranges()), all = ends(this.ranges({ ...this.view, xrange: null, yrange: null }));
      const shares = shown.map(([low, high], axis) => (high - low) / (all[axis][1] - all[axis][0]));
      // Plotly does not return from ranges without an end.
      const isTooFar = factor > 1 ? Math.max(...shares) > 10 : factor < 1 && Math.min(...shares) < 1e-6;
      if (isTooFar) return this.report("No further: nothing more would be seen.", true);
      const scaled = ([low, high], share) => {
        const half = ((high - low) / 2) * factor, middle = (low + high) / 2 + share * (high - low);
        return [middle - half, middle + half];
      };
      const xrange = scaled(shown[0], right), y = scaled(shown[1], up);
      this.change({ xrange, yrange: log ? y.map((value) => 10 ** value) : y });
    }

    // ---- drawing

    // Of a run; a group has that of its first run, whether that is shown or not.
    style(owner) {
      const colours = this.dark ? DARK : LIGHT, run = owner.runs ? owner.runs[0] : owner;
      const marker = MARKERS[Math.floor(run.index / colours.length) % MARKERS.length];
      return { colour: colours[run.index % colours.length], marker };
    }

    traces() {
      const { seeds, x, smoothing, metric } = this.view, made = [];
      const add = (owner, trace) => made.push({ owner, trace: { mode: "lines", showlegend: false, ...trace } });
      const line = (owner, { name, points, y, text, dashed, width, opacity = 1, legend = false, kind }) => {
        const { colour, marker } = this.style(owner);
        const alone = y.length === 1 || marker;
        const shape = { symbol: marker || "circle", size: 7, color: colour, maxdisplayed: y.length === 1 ? 0 : 9 };
        // Below a logarithmic scale Plotly would draw a line to the bottom.
        if (this.view.scale === "log") y = y.map((value) => (value > 0 ? value : NaN));
        const smoothed = smoothing > 1 ? " (smoothed)" : "";
        const values = `${kind} %{y:.${metric === "learning_rate" ? "3~g" : "4f"}}${smoothed}`;
        if (smoothing > 1) {
          add(owner, { x: points, y, hoverinfo: "skip", line: { color: transparent(colour, 0.25), width: 1 } });
        }
        add(owner, {
          x: points, y: smooth(y, smoothing), text, name: literal(name), showlegend: legend,
          mode: alone ? "lines+markers" : "lines", ...(alone ? { marker: shape } : {}),
          // Transparent by its colour: an opacity of a trace costs the browser a layer.
          line: { color: transparent(colour, opacity), width, dash: dashed ? "dash" : "solid" },
          hovertemplate: `<b>${literal(name)}</b><br>%{text}<br>${values}<extra></extra>`,
        });
      };
      const visible = this.visible, groups = new Set(visible.map((run) => run.group));
      for (const [kind, column, dashed] of this.kinds) {
        const isLast = kind !== "training" || this.kinds.length === 1;
        for (const group of groups) {
          const runs = visible.filter((run) => run.group === group);
          const mean = seeds !== "each" && runs.length > 1 ? meanOf(runs, column, x) : null;
          if (mean) {
            const { colour } = this.style(group), floor = this.view.scale === "log" ? 1e-12 : -Infinity;
            // Plotly would close a polygon at each gap.
            const known = [...mean.x.keys()].filter((index) => Number.isFinite(mean.mean[index]));
            const outline = [...known.map((index) => [mean.x[index], mean.high[index]]),
              ...known.reverse().map((index) => [mean.x[index], Math.max(mean.low[index], floor)])];
            add(group, {
              x: outline.map(([x]) => x), y: outline.map(([, y]) => y), hoverinfo: "skip", fill: "toself",
              line: { width: 0 }, fillcolor: transparent(colour, 0.2),
            });
          }
          if (!mean || seeds === "both") {
            const width = mean ? 0.7 : runs.length > 1 ? 1.2 : 1.8, opacity = mean ? 0.55 : dashed ? 0.6 : 1;
            for (const run of runs) {
              const { epochs, minutes } = run.x;
              const after = (index) => (minutes ? `, ${minutes[index].toFixed(1)} min` : "");
              const text = Array.from(epochs, (epoch, index) => `epoch ${epoch}${after(index)}`);
              const legend = isLast && !mean, points = run.x[x], y = Array.from(run.values[column]);
              line(run, { name: run.label, points, y, text, dashed, width, opacity, legend, kind });
            }
          }
          if (mean) {
            const name = `${group.name}, mean of ${runs.length}`, { x: points, mean: y, text } = mean;
            line(group, { name, points, y, text, dashed, width: 2.4, legend: isLast, kind });
          }
        }
      }
      // Last, so that of two points equally near to the pointer the best epoch answers.
      const validation = this.kinds.find(([kind]) => kind === "validation");
      if (validation && seeds !== "mean" && visible.length <= MOST_STARS) {
        for (const run of visible) this.star(run, validation[1], add);
      }
      this.owners = made.map(({ owner }) => owner);
      return made.map(({ trace }, index) => ({ ...trace, type: "scatter", uid: `cc${index}x` }));
    }

    star(run, column, add) {
      const index = bestIndex(run.values[column], this.view.metric), at = (name) => digits(run.values[name][index]);
      if (index < 0) return;
      const figures = (kind, prefix) => `${kind} accuracy ${at(`${prefix}accuracy`)}, loss ${at(`${prefix}loss`)}`;
      const values = `${figures("validation", "val_")}<br>${figures("training", "")}`;
      // A small marker is nearer to the pointer than a large one. Without a second point, small and unseen, the middle
      // of the star would answer with the curve below it.
      add(run, {
        x: Array(2).fill(run.x[this.view.x][index]), y: Array(2).fill(run.values[column][index]), mode: "markers",
        marker: {
          symbol: "star", size: [13, 5], opacity: [1, 0], color: this.style(run).colour,
          line: { color: this.dark ? "#111" : "#FFF", width: 1 },
        },
        hovertemplate: `<b>${literal(run.label)}</b><br>best epoch ${run.x.epochs[index]}<br>${values}<extra></extra>`,
      });
    }

    layout() {
      const { metric, x, scale, line } = this.view, shown = this.ranges(), small = this.plot.clientWidth < 500;
      const [ink, grid] = this.dark ? ["#E6E6E6", "#444"] : ["#222", "#E3E3E3"];
      const axis = { gridcolor: grid, linecolor: "#888", showline: true, zeroline: false, ticks: "outside" };
      axis.exponentformat = "power";
      const lines = metric === "accuracy" ? [...this.data.references] : [];
      const hasLine = line !== null && metric !== "learning_rate" && (line > 0 || scale !== "log");
      if (hasLine) lines.push({ label: String(line), value: line });
      const at = (value) => (scale === "log" ? Math.log10(value) : value);
      const height = at(shown.y[1]) - at(shown.y[0]);
      const isJustAbove = (other, value) => other > value && at(other) - at(value) < 0.06 * height;
      this.drawnTick = this.tick(shown);
      return {
        template: "none", paper_bgcolor: NONE, plot_bgcolor: NONE, showlegend: false, autosize: true,
        font: { family: "system-ui, sans-serif", size: small ? 11 : 13, color: ink }, hovermode: "closest",
        // Wide enough for eight digits: measured by Plotly (automargin) it would draw everything twice.
        margin: { t: 12, r: 12, b: 46, l: small ? 70 : 86 }, dragmode: this.coarse && !this.dragZoom ? false : "zoom",
        hoverlabel: { align: "left", namelength: -1 },
        xaxis: { ...axis, title: { text: x === "epochs" ? "epoch" : x }, range: shown.x, dtick: this.drawnTick },
        yaxis: { ...axis, title: { text: metric.replace("_", " ") }, type: scale, range: shown.y.map(at) },
        shapes: lines.map(({ value }) => ({
          type: "line", xref: "paper", x0: 0, x1: 1, y0: value, y1: value,
          line: { color: "#888", width: 1.5, dash: "dot" },
        })),
        annotations: lines.map(({ label, value }) => ({
          // Seen where it is within the range, as an annotation of an axis is; below its line if another is just above.
          text: literal(label), xref: "paper", x: 1, xanchor: "right", yref: "y", y: at(value), showarrow: false,
          yanchor: lines.some((other) => isJustAbove(other.value, value)) ? "top" : "bottom",
          font: { size: 11, color: this.dark ? "#BBB" : "#666" },
        })),
      };
    }

    // Between epochs there is nothing.
    tick({ x: [left, right] }) {
      return this.view.x === "epochs" && right - left <= 10 ? 1 : null;
    }

    draw() {
      this.dark = isDark(this.root);
      this.root.classList.toggle("cc-dark", this.dark);
      this.syncList();
      const first = !this.plot.data;
      window.Plotly.react(this.plot, this.traces(), this.layout(), { displayModeBar: false, doubleClick: false });
      if (first) this.listen();
      this.afterChange();
    }

    recolour() {
      if (isDark(this.root) !== this.dark) this.draw();
    }

    // Other ranges: the curves stay as they are.
    move() {
      const drawn = this.drawnTick, { xaxis, yaxis } = this.layout();
      const changed = { "xaxis.range": xaxis.range, "yaxis.range": yaxis.range };
      if (xaxis.dtick !== drawn) changed["xaxis.dtick"] = xaxis.dtick; // With it Plotly takes much longer.
      window.Plotly.relayout(this.plot, changed);
      this.afterChange();
    }

    // What follows a change of the view.
    afterChange() {
      store[this.id].view = this.view;
      this.syncControls();
      if (this.drawnTick !== this.tick(this.ranges())) this.move(); // After a drag.
      if (this.data.page) {
        try {
          history.replaceState(null, "", `#${this.encode()}`);
        } catch (_) {} // A browser that forbids it for files.
      }
    }

    save(format) {
      const paper = this.dark ? "#111" : "#FFF", legend = { orientation: "h", y: -0.15 };
      const own = { showlegend: true, legend, paper_bgcolor: paper, margin: { t: 20, r: 20, b: 60, l: 60 } };
      own.yaxis = { ...this.layout().yaxis, automargin: true };
      const file = { format, filename: "curves", width: 1100, height: 700, scale: 2 };
      window.Plotly.downloadImage({ data: this.traces(), layout: { ...this.layout(), ...own } }, file);
    }

    listen() {
      const { plot } = this;
      plot.on("plotly_relayout", (changed) => {
        // Of a drag; `move` gives a range as a whole.
        const read = (axis) => [0, 1].map((end) => changed[`${axis}.range[${end}]`]);
        const [x, y] = ["xaxis", "yaxis"].map(read);
        const changes = {};
        if (x[0] !== undefined) changes.xrange = x;
        if (y[0] !== undefined) changes.yrange = this.view.scale === "log" ? y.map((value) => 10 ** value) : y;
        if (!Object.keys(changes).length) return;
        this.back.push(this.view);
        this.view = { ...this.view, ...changes };
        this.afterChange(); // Plotly has drawn it.
      });
      plot.on("plotly_doubleclick", () => this.change({ xrange: null, yrange: null }));
      plot.on("plotly_hover", ({ points }) => this.highlight(this.owners[points[0].curveNumber]));
      plot.on("plotly_unhover", () => this.highlight(null));
      const end = () => {
        this.dragging = false;
        if (this.waiting) setTimeout(() => this.update()); // After Plotly has zoomed.
      };
      // Of the right button a browser's menu takes the end. Only while it lasts: the window outlives this figure.
      plot.addEventListener("pointerdown", ({ button }) => {
        this.dragging = button === 0;
        for (const name of ["pointerup", "pointercancel"]) window.addEventListener(name, end, { once: true });
      });
      let width = plot.clientWidth;
      new ResizeObserver(() => {
        if (plot.clientWidth && plot.clientWidth !== width) {
          width = plot.clientWidth;
          window.Plotly.Plots.resize(plot);
        }
      }).observe(plot);
    }

    // New data, after the current drag.
    update() {
      this.waiting = this.dragging;
      if (this.waiting) return;
      const before = new Map(this.runs.map(({ id, label }) => [id ?? label, label]));
      this.take(store[this.id].data);
      this.initial = this.firstView(); // What a copied view is written against.
      for (const { id, label, off } of this.runs) {
        const former = before.get(id ?? label); // A new folder beside it may have made its label longer.
        for (const { hide } of [this.view, ...this.back]) {
          if (former === undefined ? off : hide.delete(former)) hide.add(label);
        }
      }
      this.refreshing = true;
      this.draw();
      this.refreshing = false;
    }

    // A run or a group; null for none. Classes alone change: drawing again would take much longer.
    highlight(owner) {
      const matches = (other) => other === owner || other.group === owner || other === owner.group;
      if (owner && !this.owners.some(matches)) owner = null; // It is switched off.
      this.owners.forEach((other, index) => {
        const isFaint = Boolean(owner) && !matches(other);
        this.plot.querySelectorAll(`.tracecc${index}x`).forEach((curve) => curve.classList.toggle("cc-faint", isFaint));
      });
      for (const [other, row] of this.rows) row.classList.toggle("cc-lit", Boolean(owner) && matches(other));
    }

    // ---- controls and list

    build() {
      const button = (text, title, click) => element("button", { type: "button", title, click }, text);
      this.selects = Object.entries(CHOICES).map(([name, [label, options]]) => {
        // A range of one metric or axis does not fit another.
        const reset = { metric: { yrange: null }, scale: { yrange: null }, x: { xrange: null } }[name];
        const change = (event) => this.change({ [name]: event.target.value, ...reset });
        const shown = Object.entries(options).map(([value, text]) => element("option", { value }, text));
        return [name, element("select", { "aria-label": label, change }, ...shown)];
      });
      const smoothing = (event) => this.change({ smoothing: Number(event.target.value) });
      const slider = { type: "range", min: 1, max: 101, step: 2, "aria-label": "smoothing, epochs" };
      this.smoothing = element("input", { ...slider, change: smoothing });
      this.smoothed = element("output");
      const decimal = { type: "text", size: 6 };  // Some telephones' pad of digits has neither a point nor a minus.
      const number = (label, change) => element("input", { ...decimal, "aria-label": label, change });
      this.line = number("guide line", () => this.typedLine());
      this.fields = RANGES.map(([name, , word], index) => {
        return number(`${name === "xrange" ? "horizontal" : "vertical"} axis ${word}`, () => this.typedRange(index));
      });
      const [x, y] = [this.fields.slice(0, 2), this.fields.slice(2)];
      this.backButton = button("Back", "The view before", () => this.goBack());
      const pictures = ["PNG", "SVG"].map((format) => {
        return button(format, `Save the curves as ${format}`, () => this.save(format.toLowerCase()));
      });
      const keydown = (event) => this.key(event);
      // JupyterLab takes no shortcuts from an element with this attribute.
      this.root.setAttribute("data-lm-suppress-shortcuts", "true");
      this.plot = element("div", { class: "cc-plot", tabindex: 0, role: "img", title: "", keydown });
      this.status = element("div", { class: "cc-status", role: "status" });
      const orders = { given: "as given", name: "by name", last: "by last", best: "by best" };
      const sync = () => this.syncList();
      const search = { type: "search", placeholder: "search runs", "aria-label": "search runs" };
      this.search = element("input", { ...search, input: sync });
      this.sort = element("select", { "aria-label": "sort runs", change: sync },
        ...Object.entries(orders).map(([value, text]) => element("option", { value }, text)));
      this.list = element("ul", { class: "cc-rows" });
      const copied = { type: "text", readonly: true, class: "cc-copy", "aria-label": "this view, to copy" };
      this.copied = element("input", { ...copied, hidden: true });
      const allowDrag = (event) => {
        this.dragZoom = event.target.checked;
        this.draw();
      };
      const drag = element("input", { type: "checkbox", change: allowDrag });
      this.root.replaceChildren(element("div", { class: "cc-body" },
        element("div", { class: "cc-bar" },
          button("Whole run", "All epochs of the visible runs", () => this.change({ xrange: null, yrange: null })),
          button("Enlarged", "The accuracy near its highest values", () => this.showEnlarged()),
          button("Around the best", "The epochs around the best one of the visible runs", () => this.showAroundBest()),
          button("+", "Zoom in", () => this.zoom(0.5)), button("−", "Zoom out", () => this.zoom(2)),
          button("◀", "Move left", () => this.zoom(1, -0.25)), button("▶", "Move right", () => this.zoom(1, 0.25)),
          this.backButton, ...pictures, this.coarse ? element("label", {}, drag, " drag to zoom") : null),
        element("div", { class: "cc-bar cc-options" }, ...this.selects.map(([, select]) => select),
          element("label", {}, "smoothing ", this.smoothing, this.smoothed),
          element("label", {}, "line ", this.line)),
        element("div", { class: "cc-main" },
          element("div", { class: "cc-picture" }, this.plot, this.status,
            element("div", { class: "cc-bar" },
              element("span", {}, "horizontal ", ...x), element("span", {}, "vertical ", ...y),
              (this.copyButton = button("", "So that this view can be shown again", () => this.copy())), this.copied)),
          element("div", { class: "cc-list" },
            element("div", { class: "cc-bar" }, this.search,
              button("All", "Show all runs that are found", () => this.showAll(true)),
              button("None", "Hide all runs that are found", () => this.showAll(false)), this.sort), this.list))));
      this.root.addEventListener("pointerover", ({ pointerType }) => (this.pointer = pointerType));
      // The classic Notebook's shortcuts.
      this.root.addEventListener("focusin", () => window.Jupyter?.keyboard_manager?.disable());
      this.root.addEventListener("focusout", () => window.Jupyter?.keyboard_manager?.enable());
    }

    report(text, isWrong = false) {
      // A refresh is not read out, and takes no refusal away.
      this.status.setAttribute("aria-live", this.refreshing ? "off" : "polite");
      if (this.refreshing && this.status.classList.contains("cc-wrong")) return;
      this.status.textContent = text;
      this.status.classList.toggle("cc-wrong", isWrong);
    }

    syncControls() {
      const { view } = this, shown = this.ranges();
      for (const [name, select] of this.selects) select.value = view[name];
      const isHeld = (field) => this.refreshing && field === document.activeElement; // By somebody who types or drags.
      if (!isHeld(this.smoothing)) this.smoothing.value = view.smoothing;
      this.smoothed.textContent = view.smoothing > 1 ? ` ${view.smoothing} epochs` : " none";
      const values = [...short(shown.x), ...short(shown.y)];
      [...this.fields, this.line].forEach((field, index) => {
        if (isHeld(field)) return;
        field.value = field === this.line ? (view.line ?? "") : values[index];
        field.removeAttribute("aria-invalid");
      });
      this.backButton.disabled = !this.back.length;
      this.copyButton.textContent = this.data.page ? "Copy link" : "Copy this view";
      this.copied.hidden ||= !this.refreshing;
      const [x, y] = [view.x, view.metric.replace("_", " ")], [left, right, low, high] = values;
      const on = this.runs.filter((run) => !view.hide.has(run.label)).length;
      const missing = this.switchedOn.length - this.visible.length, described = this.visible.slice(0, 20);
      const nothing = missing ? `No run has ${x}` : on ? "No epoch is done yet" : "No run is switched on";
      const there = described.length ? "" : `${nothing}. `;
      const texts = described.map((run) => `${run.label}: ${this.inWords(run)}`).join("; ") || nothing;
      const drawn = this.plot.data || [], words = [
        missing && `${missing} without ${x}: ${x === "minutes" ? "trained beside other work" : "no record"}.`,
        this.kinds.length > 1 && "Solid: validation, dashed: training.",
        drawn.some(({ fill }) => fill) && "Band: one standard deviation.",
        drawn.some(({ mode }) => mode === "markers") && "Star: best epoch.",
      ].filter(Boolean).join(" ");
      this.report(`${there}${y} ${low} to ${high}, ${x} ${left} to ${right}; ${on} of ${this.runs.length} runs. ${words}`);
      this.plot.setAttribute("aria-label", `Curves of ${y}. ${texts}. ${KEYS}`);
    }

    // Of the metric that is shown: the last epoch first, which no choice has flattered.
    figures(run) {
      const name = this.view.metric === "loss" ? "val_loss" : "val_accuracy", values = run.values[name];
      const best = bestIndex(values, this.view.metric === "loss" ? "loss" : "accuracy");
      return { last: values[run.epochs - 1], best: values[best], epoch: run.x.epochs[best] };
    }

    inWords(run) {
      if (!run.epochs) return "no epoch yet";
      const { last, best, epoch } = this.figures(run);
      return `last ${digits(last)}, best ${digits(best)}${epoch ? ` (epoch ${epoch})` : ""}`;
    }

    groupInWords(group) {
      const runs = group.runs.filter((run) => run.epochs), values = runs.map((run) => this.figures(run));
      if (!values.length) return "no epoch yet";
      const { mean, deviation } = spread(values.map(({ last }) => last));
      const around = values.length > 1 ? ` ± ${digits(deviation)}` : "";
      const bests = values.map((value) => value.best).filter(Number.isFinite);
      const best = Math[this.view.metric === "loss" ? "min" : "max"](...bests);
      const [least, most] = [Math.min, Math.max].map((end) => end(...group.runs.map((run) => run.epochs)));
      const lengths = least < most ? ` (after ${least} to ${most} epochs)` : ""; // As in a sweep that still trains.
      return `last ${digits(mean)}${around}, best ${digits(best)}${lengths}`;
    }

    syncList() {
      this.rows = new Map();
      const sign = this.view.metric === "loss" ? 1 : -1, found = (run) => this.isFound(run);
      // The value of a row: of a group the mean of the last ones, the best of the best ones.
      const key = (runs) => {
        const figures = runs.filter((run) => run.epochs).map((run) => sign * this.figures(run)[this.sort.value]);
        const known = figures.filter(Number.isFinite);
        return this.sort.value === "last" && known.length ? spread(known).mean : Math.min(...known);
      };
      const sorted = (rows, nameOf, runsOf) => {
        const byName = (a, b) => nameOf(a).localeCompare(nameOf(b), undefined, { numeric: true });
        if (this.sort.value === "given") return rows;
        return rows.sort(this.sort.value === "name" ? byName : (a, b) => key(runsOf(a)) - key(runsOf(b)) || 0);
      };
      const groups = sorted([...this.groups.values()].filter((group) => group.runs.some(found)),
        (group) => group.name, (group) => group.runs);
      const runsOf = (group) => sorted(group.runs.filter(found), (run) => run.label, (run) => [run]);
      const active = this.list.contains(document.activeElement) && document.activeElement.dataset.name;
      this.list.replaceChildren(...groups.flatMap((group) => this.rowsOf(group, runsOf(group))));
      if (active) this.list.querySelector(`[data-name="${CSS.escape(active)}"]`)?.focus();
      if (!groups.length) this.list.append(element("li", {}, "No run has this in its name."));
    }

    isFound(run) {
      const wanted = this.search.value.trim().toLowerCase();
      return `${run.label} ${run.group.name} ${run.details}`.toLowerCase().includes(wanted);
    }

    rowsOf(group, runs) {
      const isOpen = group.apart || this.expanded.has(group.name) || this.search.value.trim() !== "";
      if (group.runs.length === 1) return [this.row(runs[0], runs, runs[0].label, this.inWords(runs[0]))];
      const toggle = () => {
        this.expanded[isOpen ? "delete" : "add"](group.name);
        this.syncList();
      };
      const more = group.apart ? null : element("button", {
        type: "button", class: "cc-more", "aria-expanded": String(isOpen), "aria-label": `seeds of ${group.name}`,
        "data-name": `seeds of ${group.name}`, click: toggle,
      }, isOpen ? "▾" : "▸");
      const head = this.row(group, runs, `${group.name}, ${group.runs.length} runs`, this.groupInWords(group), more);
      const seeds = runs.map((run) => this.row(run, [run], run.label, this.inWords(run), null, "cc-seed"));
      return isOpen ? [head, ...seeds] : [head];
    }

    row(owner, runs, name, words, more = null, kind = "") {
      // Long lists say only how a run differs from a full one.
      const details = this.runs.length <= 4 && !owner.runs ? owner.details : runs[0].notes;
      const on = runs.filter((run) => !this.view.hide.has(run.label)).length;
      const change = (event) => {
        const hide = new Set(this.view.hide);
        for (const run of runs) hide[event.target.checked ? "delete" : "add"](run.label);
        this.change({ hide });
      };
      const kept = { "data-name": owner.runs ? owner.name : name }; // Over a refresh that adds a seed.
      const box = element("input", { type: "checkbox", "aria-label": `${name}: ${words}`, ...kept, change });
      box.checked = on > 0;
      box.indeterminate = on > 0 && on < runs.length;
      const { colour, marker } = this.style(owner);
      const drawn = owner.apart === true ? null : element("span", { class: "cc-line" }, SHAPES[marker]);
      if (drawn) drawn.style.cssText = `border-color:${colour};color:${colour}`;
      // A finger points at nothing: it taps, and no event reports that it is gone. Events of the mouse, as they follow
      // that with which Plotly's hover ends.
      const point = (target) => () => this.pointer === "mouse" && this.highlight(target);
      const pointed = { mouseenter: point(owner), mouseleave: point(null) };
      const texts = [["name", name], ["values", words], ["details", details]].filter(([, text]) => text);
      const spans = texts.map(([part, text]) => element("span", { class: `cc-${part}` }, text));
      const row = element("li", { class: kind, title: `${name}\n${owner.details || details}`, ...pointed },
        element("label", {}, box, drawn, ...spans), more);
      this.rows.set(owner, row);
      return row;
    }

    showAll(on) {
      const hide = new Set(this.view.hide);
      for (const run of this.runs) if (this.isFound(run)) hide[on ? "delete" : "add"](run.label);
      this.change({ hide });
    }

    refuse(field, reason) {
      field.setAttribute("aria-invalid", "true");
      this.report(`${reason} The view is unchanged.`, true);
    }

    typedNumber(field) {
      const text = field.value.trim();
      if (text && Number.isFinite(Number(text))) return Number(text);
      const comma = text.includes(",") ? "; write a point in place of the comma" : "";
      this.refuse(field, `"${text}" is not a number${comma}.`);
      return null;
    }

    typedLine() {
      if (!this.line.value.trim()) return this.change({ line: null });
      const value = this.typedNumber(this.line);
      if (value === null) return;
      if (this.view.scale === "log" && value <= 0) {
        return this.refuse(this.line, `A logarithmic axis needs a number above 0, not ${value}.`);
      }
      const [low, high] = this.ranges().y;
      this.change({ line: value });
      const shown = short([low, high]).join(" to "), isOutside = value < low || value > high;
      if (isOutside) this.report(`The line at ${value} is outside of ${shown}; zoom out to see it.`, true);
    }

    typedRange(index) {
      const [name, end] = RANGES[index], value = this.typedNumber(this.fields[index]);
      if (value === null) return;
      const axis = name[0], range = [...this.ranges()[axis]];
      const limits = this.ranges({ ...this.view, xrange: null, yrange: null })[axis];
      range[end] = value;
      const field = this.fields[index];
      const [typed, all] = [range, limits].map((ends) => short(ends).join(" to "));
      if (!(range[0] < range[1])) return this.refuse(field, `${typed} is no range; the first number must be smaller.`);
      if (axis === "y" && this.view.scale === "log" && value <= 0) {
        return this.refuse(field, `A logarithmic axis needs a number above 0, not ${value}.`);
      }
      if (range[0] >= limits[1] || range[1] <= limits[0]) {
        return this.refuse(field, `The range contains no curve: the visible curves reach from ${all}.`);
      }
      this.change({ [name]: range });
    }

    key(event) {
      const keys = {
        ArrowLeft: () => this.zoom(1, -0.1), ArrowRight: () => this.zoom(1, 0.1), ArrowUp: () => this.zoom(1, 0, 0.1),
        ArrowDown: () => this.zoom(1, 0, -0.1), "+": () => this.zoom(0.8), "-": () => this.zoom(1.25),
        Home: () => this.change({ xrange: null, yrange: null }), Backspace: () => this.goBack(),
      };
      if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      event.stopPropagation();
      keys[event.key]();
    }

    copy() {
      const view = this.encode(), call = `${this.data.call}${JSON.stringify(view)})`;
      const text = this.data.page ? `${location.href.split("#")[0]}#${view}` : call;
      this.copied.hidden = false;
      this.copied.value = text;
      this.copied.select();
      const done = () => this.report("Copied.");
      const failed = () => this.report("The browser does not allow copying here: copy the selected text.", true);
      if (navigator.clipboard) navigator.clipboard.writeText(text).then(done, failed);
      else failed();
    }
  }

  // Plotly, from this page or from its own server; the digest makes sure that it is the file that was tested. As a text
  // without `define`: in the classic Notebook Plotly would otherwise register with RequireJS.
  let loading = null;
  function plotly({ url, integrity }) {
    if (window.Plotly?.react) return Promise.resolve();
    loading ??= fetch(url, { integrity }).then((answer) => answer.text()).then((code) => {
      document.head.append(element("script", {}, `(function (define, module, exports) {${code}\n}).call(window);`));
    });
    return loading.catch((error) => {
      loading = null;
      throw error;
    });
  }

  function start(id) {
    const data = store[id]?.data;
    if (!data) return;
    plotly(data.plotly).then(() => "", (error) => error.message).then((failure) => {
      // Several, where a figure is shown twice.
      for (const root of document.querySelectorAll(`#colabcnn-${id}`)) {
        if (failure) root.textContent = `The curves cannot be zoomed here without ${data.plotly.url} (${failure}).`;
        else if (root.explorer) root.explorer.update();
        else {
          root.explorer = new Explorer(root, id);
          document.head.append(element("style", {}, `.colabcnn-static-${id} { display: none; }`));
        }
      }
    });
  }

  // The theme may change while a figure is shown. Once in a page, and without a hold on figures that are gone.
  if (!window.colabcnnExplorer) {
    const recolour = () => document.querySelectorAll(".colabcnn").forEach((root) => root.explorer?.recolour());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);
    const watched = { attributeFilter: ["theme", "class", "style", "data-jp-theme-light"] };
    for (const node of [document.documentElement, document.body]) new MutationObserver(recolour).observe(node, watched);
  }

  // Show new data; called by the scripts beside the data, before or after the figure itself is there.
  window.colabcnnExplorer = {
    update(id, data) {
      store[id] = { ...store[id], data };
      start(id);
    },
    start,
  };
})();
