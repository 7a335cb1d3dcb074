/*
 * The page's script, second part: calls over time on a canvas, a lane for each connection as far as there is room, with zoom and a
 * range to drag. Text between back quotes is JavaScript for a browser.
 */
export const TIMELINE_SCRIPT = `
const LANE = 16;
const AXIS = 20;
const MAX_LANES = 10;

/** Connections to lanes: one that has ended leaves its lane to the next. */
function lanesOf() {
  const spans = new Map();
  for (const record of records) {
    const span = spans.get(record.c) || { c: record.c, from: record.t, to: record.t };
    span.to = Math.max(span.to, record.t + (record.kind === "call" ? record.ms || 0 : 0));
    spans.set(record.c, span);
  }
  const ends = [];
  const lanes = new Map();
  for (const span of [...spans.values()].sort((a, b) => a.from - b.from)) {
    let lane = ends.findIndex((end) => end < span.from);
    if (lane < 0) lane = ends.length < MAX_LANES ? ends.length : span.c % MAX_LANES;
    ends[lane] = Math.max(ends[lane] || 0, span.to);
    lanes.set(span.c, { lane, span });
  }
  return { lanes, count: Math.max(1, ends.length) };
}

function createTimeline(canvas, tip, hooks) {
  const { lanes, count } = lanesOf();
  const height = AXIS + count * LANE + 8;
  let view = [0, Math.max(lastTime, 0.001)];
  let drag = null;
  canvas.style.height = height + "px";

  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const width = () => canvas.clientWidth || 1;
  const toX = (t) => 10 + ((t - view[0]) / (view[1] - view[0])) * (width() - 20);
  const toT = (x) => view[0] + ((x - 10) / (width() - 20)) * (view[1] - view[0]);
  const laneTop = (c) => AXIS + (lanes.get(c) ? lanes.get(c).lane : 0) * LANE + 3;

  function step(span) {
    const rough = span / Math.max(2, Math.floor(width() / 120));
    const power = Math.pow(10, Math.floor(Math.log10(rough)));
    return [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= rough) || power;
  }

  function label(t, every) {
    if (every >= 1000) return (t / 1000).toFixed(0) + " s";
    if (view[1] >= 10000) return (t / 1000).toFixed(every >= 100 ? 1 : 3) + " s";
    return t.toFixed(every >= 1 ? 0 : 3) + " ms";
  }

  function draw() {
    const scale = window.devicePixelRatio || 1;
    canvas.width = Math.round(width() * scale);
    canvas.height = Math.round(height * scale);
    const context = canvas.getContext("2d");
    context.scale(scale, scale);
    context.font = "10.5px " + color("--mono");
    const every = step(view[1] - view[0]);
    for (let t = Math.ceil(view[0] / every) * every; t <= view[1]; t += every) {
      const x = Math.round(toX(t)) + 0.5;
      context.fillStyle = color("--edge");
      context.fillRect(x, AXIS - 4, 1, height);
      context.fillStyle = color("--dim");
      const text = label(t, every);
      if (x + 4 + context.measureText(text).width < width()) context.fillText(text, x + 4, 13);
    }
    for (const { span } of lanes.values()) {
      const x = toX(span.from);
      context.fillStyle = color("--raised");
      context.fillRect(x, laneTop(span.c) - 1, Math.max(1, toX(span.to) - x), LANE - 4);
    }
    const visible = hooks.visible();
    const colors = new Map();
    for (const faded of [true, false]) {
      for (let index = 0; index < records.length; index++) {
        const record = records[index];
        if (record.kind !== "call" && !lines[index].bad) continue;
        if (visible.has(index) === faded) continue;
        const x = toX(record.t);
        const wide = Math.max(1.5, toX(record.t + (record.ms || 0)) - x);
        if (x + wide < 0 || x > width()) continue;
        const name = lines[index].bad ? "--bad" : "--c-" + lines[index].cls;
        if (!colors.has(name)) colors.set(name, color(name) || color("--c-other"));
        context.globalAlpha = faded ? 0.16 : 0.92;
        context.fillStyle = colors.get(name);
        context.fillRect(x, laneTop(record.c), wide, LANE - 6);
      }
    }
    context.globalAlpha = 1;
    const picked = records[hooks.picked()];
    if (picked) {
      const x = toX(picked.t);
      context.fillStyle = color("--accent");
      context.fillRect(Math.round(x) - 1, AXIS - 4, 1.5, height);
      context.strokeStyle = color("--accent");
      context.strokeRect(x - 2, laneTop(picked.c) - 2, Math.max(2, toX(picked.t + (picked.ms || 0)) - x) + 4, LANE - 2);
    }
    const range = drag ? [toT(drag.from), toT(drag.to)].sort((a, b) => a - b) : hooks.range();
    if (range) {
      context.globalAlpha = 0.16;
      context.fillStyle = color("--accent");
      context.fillRect(toX(range[0]), 0, toX(range[1]) - toX(range[0]), height);
      context.globalAlpha = 1;
    }
  }

  function at(event) {
    const box = canvas.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  }

  /** The call under the pointer, or the nearest one of the lane within a few pixels. */
  function hit(place) {
    let best = -1;
    let distance = 5;
    for (let index = 0; index < records.length; index++) {
      const record = records[index];
      if (record.kind !== "call" && !lines[index].bad) continue;
      const top = laneTop(record.c);
      if (place.y < top - 3 || place.y > top + LANE - 3) continue;
      const from = toX(record.t);
      const to = Math.max(from + 1.5, toX(record.t + (record.ms || 0)));
      const away = place.x < from ? from - place.x : place.x > to ? place.x - to : 0;
      if (away < distance || (away === 0 && distance === 0)) {
        best = index;
        distance = away;
      }
    }
    return best;
  }

  canvas.addEventListener("pointerdown", (event) => {
    const { x } = at(event);
    drag = { from: x, to: x };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    const place = at(event);
    if (drag) {
      drag.to = place.x;
      tip.hidden = true;
      draw();
      return;
    }
    const index = hit(place);
    tip.hidden = index < 0;
    if (index < 0) return;
    const record = records[index];
    tip.textContent = "c" + record.c + "  " + lines[index].name + "  " + lines[index].result + "  " + duration(record.ms);
    tip.style.left = Math.min(place.x + 12, Math.max(0, width() - tip.offsetWidth - 8)) + "px";
    tip.style.top = Math.min(place.y + 12, height - 4) + "px";
  });
  canvas.addEventListener("pointerleave", () => { tip.hidden = true; });
  canvas.addEventListener("pointerup", (event) => {
    if (!drag) return;
    const [from, to] = [toT(drag.from), toT(drag.to)].sort((a, b) => a - b);
    const moved = Math.abs(drag.to - drag.from) > 4;
    drag = null;
    if (moved) hooks.choose([from, to]);
    else {
      const index = hit(at(event));
      if (index >= 0) hooks.pick(index);
    }
    draw();
  });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(event.deltaY > 0 ? 1.25 : 0.8, toT(at(event).x));
  }, { passive: false });
  canvas.addEventListener("dblclick", () => zoom(0, 0));
  canvas.addEventListener("keydown", (event) => {
    const by = event.key === "ArrowRight" ? 0.2 : event.key === "ArrowLeft" ? -0.2 : 0;
    if (by === 0) return;
    event.preventDefault();
    event.stopPropagation();
    const span = view[1] - view[0];
    view = [view[0] + by * span, view[1] + by * span];
    draw();
  });

  /** A factor below 1 shows less; 0 shows all. */
  function zoom(factor, around) {
    const all = Math.max(lastTime, 0.001);
    if (factor === 0) view = [0, all];
    else {
      const span = Math.min(all * 1.02, Math.max(0.01, (view[1] - view[0]) * factor));
      const share = (around - view[0]) / (view[1] - view[0]);
      const from = Math.max(-0.01 * all, Math.min(around - share * span, all * 1.01 - span));
      view = [from, from + span];
    }
    draw();
  }

  new ResizeObserver(draw).observe(canvas);
  return { draw, zoom };
}
`;
