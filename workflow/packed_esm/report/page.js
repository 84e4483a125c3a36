
"use strict";
// Makes the page one to explore: a map of the proteins, a table of them, and tables that sort and search.
// Without it the page shows pictures. Texts come from FASTA headers: they go into the page as text, never as HTML.
(() => {
  const $ = id => document.getElementById(id);
  const PAGE_ROWS = 20; // of the list of proteins at a time
  const LIST_COLUMNS = 6;
  const SEARCHABLE_ROWS = 10; // a table with more gets a search field
  const countText = value => value.toLocaleString("en-US");

  // A number of a column: a whole one may be an identifier, so all its digits and nothing else are shown.
  function number(value) {
    if (Number.isInteger(value)) return String(value);
    const rounded = value.toPrecision(6);
    return rounded.includes("e+") ? rounded : String(Number(rounded));
  }

  function element(tag, properties = {}, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  }

  function decode({ type, bytes }) {
    const text = atob(bytes);
    const raw = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) raw[i] = text.charCodeAt(i);
    return new { Uint16Array, Uint32Array, Float32Array, Float64Array }[type](raw.buffer);
  }

  // ---- data -------------------------------------------------------------------------------------------------------

  const data = JSON.parse($("data").textContent);
  const count = data.ids.length;
  const views = data.views.map(view => ({ ...view, axes: view.axes.map(axis => ({ ...axis, places: decode(axis.places) })) }));
  const columns = data.columns.map(column =>
    column.numbers ? { ...column, numbers: decode(column.numbers) } : { ...column, codes: decode(column.codes) });
  const colourings = columns.slice(0, data.colourings); // the others have a value of its own for each protein
  const neighbours = { ...data.neighbours, rows: decode(data.neighbours.rows), cosines: decode(data.neighbours.cosines) };
  const dark = matchMedia("(prefers-color-scheme: dark)");

  function cell(column, i) {
    if (!column.numbers) return column.values[column.codes[i]];
    return Number.isNaN(column.numbers[i]) ? "" : number(column.numbers[i]);
  }

  // What is shown: everything that draws reads this, and everything that reacts changes it.
  const state = { view: 0, colour: data.colour, zoom: 1, x: 0, y: 0, matches: null, group: null, chosen: -1, pointed: -1 };

  // ---- colours ----------------------------------------------------------------------------------------------------

  // The paint of each protein is a number; `order` has the proteins paint by paint, common ones first.
  let paint, order, starts, groups;

  function choosePaints() {
    const column = columns[state.colour];
    groups = column.numbers ? null : groupsOf(column);
    const colours = groups ? groups.length : data.scales.light.length;
    paint = new Uint8Array(count);
    if (groups) for (let i = 0; i < count; i++) paint[i] = Math.min(column.codes[i], colours - 1);
    else paintNumbers(column, colours);
    starts = new Uint32Array(colours + 2);
    for (let i = 0; i < count; i++) starts[paint[i] + 1]++;
    for (let p = 0; p <= colours; p++) starts[p + 1] += starts[p];
    const next = starts.slice();
    order = new Uint32Array(count);
    for (let i = 0; i < count; i++) order[next[paint[i]]++] = i;
  }

  function groupsOf(column) { // values are sorted, the most frequent first: the last colour is for all the rest
    const most = data.palette.length;
    const sizes = new Uint32Array(column.values.length);
    for (const code of column.codes) sizes[code]++;
    const found = column.values.slice(0, most).map((name, i) => ({ name, size: sizes[i] }));
    if (column.values.length > most) found[most - 1] = { name: "other", size: sizes.subarray(most - 1).reduce((a, b) => a + b, 0) };
    return found;
  }

  function paintNumbers(column, colours) {
    let low = Infinity, high = -Infinity;
    for (const value of column.numbers) { if (value < low) low = value; if (value > high) high = value; }
    Object.assign(column, { low, high });
    for (let i = 0; i < count; i++) {
      const value = column.numbers[i]; // without one: the paint after the last
      paint[i] = Number.isNaN(value) ? colours : high > low ? Math.round((value - low) / (high - low) * (colours - 1)) : 0;
    }
  }

  const palette = () => [...(groups ? data.palette.slice(0, groups.length) : data.scales[dark.matches ? "dark" : "light"]), data.grey];

  // ---- map --------------------------------------------------------------------------------------------------------

  const canvas = $("canvas");
  const MARGIN = 26; // pixels around the points when all are shown; the labels stand there
  let waiting = false;

  const shown = i => (!state.matches || state.matches[i] === 1) && (state.group === null || paint[i] === state.group);

  // From a place (0 to 65,535) to a pixel: multiply and add, along each axis.
  function scale() {
    const width = canvas.clientWidth, height = canvas.clientHeight, steps = 65535;
    const across = (width - 2 * MARGIN) / steps, down = (height - 2 * MARGIN) / steps;
    return {
      ax: across * state.zoom, bx: MARGIN * state.zoom + state.x,
      ay: -down * state.zoom, by: (height - MARGIN) * state.zoom + state.y,
    };
  }

  function draw() {
    waiting = false;
    const ratio = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    const pen = canvas.getContext("2d", { alpha: false });
    const style = getComputedStyle(document.documentElement);
    const ink = style.getPropertyValue("--text"), page = style.getPropertyValue("--page");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.fillStyle = page;
    pen.fillRect(0, 0, width, height);
    drawPoints(pen, page);
    if (state.chosen >= 0) drawNeighbours(pen, ink);
    if (state.pointed >= 0) ring(pen, state.pointed, ink, 1.5);
    drawLabels(pen, ink, width, height);
  }

  function drawPoints(pen, page) {
    const [x, y] = views[state.view].axes.map(axis => axis.places);
    const { ax, bx, ay, by } = scale(), colours = palette(), radius = pointRadius();
    const width = canvas.clientWidth + radius, height = canvas.clientHeight + radius;
    const some = state.matches || state.group !== null;
    pen.lineWidth = 1;
    pen.strokeStyle = page;
    const paintThem = (p, wanted, size) => {
      for (let k = starts[p]; k < starts[p + 1]; k++) {
        const i = order[k];
        if (some && shown(i) !== wanted) continue;
        const sx = ax * x[i] + bx, sy = ay * y[i] + by;
        if (sx < -size || sy < -size || sx > width || sy > height) continue;
        if (size < 2.5) pen.fillRect(sx - size, sy - size, 2 * size, 2 * size);
        else {
          pen.beginPath();
          pen.arc(sx, sy, size, 0, 7);
          pen.fill();
          if (wanted) pen.stroke(); // so that points that touch can be told apart
        }
      }
    };
    if (some) {
      pen.fillStyle = data.grey;
      for (let p = 0; p < colours.length; p++) paintThem(p, false, Math.max(.7, radius / 3));
    }
    for (let p = 0; p < colours.length; p++) {
      pen.fillStyle = colours[p];
      paintThem(p, true, radius);
    }
  }

  function pointRadius() {
    const base = count < 1000 ? 5 : count < 5000 ? 3.5 : count < 20000 ? 2 : 1.2;
    return Math.min(7, base * Math.sqrt(Math.sqrt(state.zoom)));
  }

  function drawNeighbours(pen, ink) {
    const [x, y] = views[state.view].axes.map(axis => axis.places);
    const { ax, bx, ay, by } = scale();
    pen.strokeStyle = ink;
    pen.lineWidth = 1;
    for (const { row } of nearest(state.chosen)) {
      pen.beginPath();
      pen.moveTo(ax * x[state.chosen] + bx, ay * y[state.chosen] + by);
      pen.lineTo(ax * x[row] + bx, ay * y[row] + by);
      pen.stroke();
      ring(pen, row, ink, 1);
    }
    ring(pen, state.chosen, ink, 3);
  }

  function ring(pen, i, ink, thickness) {
    const [x, y] = views[state.view].axes.map(axis => axis.places);
    const { ax, bx, ay, by } = scale();
    pen.strokeStyle = ink;
    pen.lineWidth = thickness;
    pen.beginPath();
    pen.arc(ax * x[i] + bx, ay * y[i] + by, pointRadius() + 3, 0, 7);
    pen.stroke();
  }

  function drawLabels(pen, ink, width, height) {
    const [across, up] = views[state.view].axes.map(axis => axis.label);
    pen.fillStyle = ink;
    pen.font = "13px system-ui, sans-serif";
    pen.textAlign = "right";
    pen.fillText(`${across} \u2192`, width - 8, height - 8);
    pen.save();
    pen.translate(17, 8);
    pen.rotate(-Math.PI / 2);
    pen.fillText(`${up} \u2192`, 0, 0);
    pen.restore();
  }

  function redraw() {
    if (!canvas || waiting) return;
    waiting = true;
    requestAnimationFrame(draw);
  }

  function zoomAt(factor, x = canvas.clientWidth / 2, y = canvas.clientHeight / 2) {
    const zoom = Math.min(500, Math.max(.5, state.zoom * factor));
    state.x = x - (x - state.x) * zoom / state.zoom;
    state.y = y - (y - state.y) * zoom / state.zoom;
    state.zoom = zoom;
    redraw();
  }

  function move(x, y) {
    state.x += x;
    state.y += y;
    redraw();
  }

  function showAll() {
    Object.assign(state, { zoom: 1, x: 0, y: 0 });
    redraw();
  }

  function proteinAt(px, py) {
    const [x, y] = views[state.view].axes.map(axis => axis.places);
    const { ax, bx, ay, by } = scale();
    let best = -1, least = Math.max(8, pointRadius() + 3) ** 2;
    for (let i = 0; i < count; i++) {
      const distance = (ax * x[i] + bx - px) ** 2 + (ay * y[i] + by - py) ** 2;
      if (distance < least && shown(i)) { best = i; least = distance; }
    }
    return best;
  }

  function point(i, x, y) {
    if (i !== state.pointed) {
      state.pointed = i;
      redraw();
    }
    const tip = $("tip");
    tip.hidden = i < 0;
    if (i < 0) return;
    const own = columns[state.colour];
    const lines = [`${cell(columns[0], i)} residues, ${cell(columns[1], i)}`];
    if (state.colour > 1) lines.push(`${own.name}: ${cell(own, i)}`);
    tip.replaceChildren(element("b", { textContent: data.ids[i] }), ...lines.map(text => element("div", { textContent: text })));
    const left = Math.min(x + 14, canvas.clientWidth - tip.offsetWidth - 4);
    const top = y + 18 + tip.offsetHeight > canvas.clientHeight ? y - tip.offsetHeight - 10 : y + 18;
    tip.style.transform = `translate(${Math.max(4, left)}px, ${Math.max(4, top)}px)`;
  }

  function listenToMap() {
    const fingers = new Map(); // pointers that are down: {x, y}
    let moved = 0;
    const at = event => ({ x: event.offsetX, y: event.offsetY });
    const middle = () => {
      const all = [...fingers.values()], [a, b] = [all[0], all[all.length - 1]];
      return { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, apart: Math.hypot(a.x - b.x, a.y - b.y) };
    };
    canvas.addEventListener("pointerdown", event => {
      canvas.setPointerCapture(event.pointerId);
      fingers.set(event.pointerId, at(event));
      moved = fingers.size > 1 ? Infinity : 0;
    });
    canvas.addEventListener("pointermove", event => {
      const here = at(event);
      if (!fingers.has(event.pointerId)) return point(proteinAt(here.x, here.y), here.x, here.y);
      const before = middle();
      fingers.set(event.pointerId, here);
      const after = middle();
      moved += Math.hypot(after.x - before.x, after.y - before.y);
      point(-1);
      move(after.x - before.x, after.y - before.y);
      if (before.apart > 10 && after.apart > 10) zoomAt(after.apart / before.apart, after.x, after.y);
    });
    canvas.addEventListener("pointerup", event => {
      if (fingers.delete(event.pointerId) && moved < 4) choose(proteinAt(event.offsetX, event.offsetY));
    });
    canvas.addEventListener("pointercancel", event => fingers.delete(event.pointerId));
    canvas.addEventListener("pointerleave", () => point(-1));
    canvas.addEventListener("wheel", event => {
      if (!event.ctrlKey && !event.metaKey && document.activeElement !== canvas) return;
      event.preventDefault();
      zoomAt(Math.exp(-event.deltaY * (event.deltaMode ? .05 : .002)), event.offsetX, event.offsetY);
    }, { passive: false });
    canvas.addEventListener("dblclick", event => zoomAt(2, event.offsetX, event.offsetY));
    const keys = {
      ArrowLeft: () => move(40, 0), ArrowRight: () => move(-40, 0), ArrowUp: () => move(0, 40), ArrowDown: () => move(0, -40),
      "+": () => zoomAt(1.5), "=": () => zoomAt(1.5), "-": () => zoomAt(1 / 1.5), 0: showAll, Escape: () => choose(-1),
    };
    canvas.addEventListener("keydown", event => {
      if (!keys[event.key] || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      keys[event.key]();
    });
    $("in").addEventListener("click", () => zoomAt(1.5));
    $("out").addEventListener("click", () => zoomAt(1 / 1.5));
    $("all").addEventListener("click", showAll);
    new ResizeObserver(redraw).observe(canvas);
    dark.addEventListener("change", () => { showKey(); redraw(); });
  }

  // ---- key: what the colours mean, and which group is shown --------------------------------------------------------

  function showKey() {
    const column = columns[state.colour], colours = palette();
    if (!groups) return showScale(column, colours);
    $("key").replaceChildren(...groups.map((group, p) => {
      const dot = element("i");
      dot.style.background = colours[p];
      const button = element("button", { type: "button" }, dot, `${group.name || "no value"} (${countText(group.size)})`);
      button.setAttribute("aria-pressed", state.group === p);
      button.title = "Show only these";
      button.addEventListener("click", () => {
        state.group = state.group === p ? null : p;
        for (const [q, other] of [...$("key").children].entries()) other.setAttribute("aria-pressed", state.group === q);
        update();
      });
      return button;
    }));
  }

  function showScale({ name, low, high }, colours) {
    const bar = element("span", { className: "scale" });
    bar.style.background = `linear-gradient(90deg, ${colours.slice(0, -1).join(", ")})`;
    $("key").replaceChildren(element("span", { textContent: `${name}: ${number(low)}` }), bar, number(high));
  }

  // ---- search and list --------------------------------------------------------------------------------------------

  const listed = colourings.slice(0, LIST_COLUMNS);
  let lowerIds, lowerValues, sorted = null, sorting = { column: null, down: false }, rows = PAGE_ROWS;

  // Every word must be in the id or in one of the texts, or numbers as they are shown, of a protein.
  function search(text) {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    state.matches = words.length ? new Uint8Array(count).fill(1) : null;
    lowerIds ??= data.ids.map(id => id.toLowerCase());
    lowerValues ??= columns.map(column => (column.values ?? Array.from(column.numbers, (_, i) => cell(column, i))).map(value => value.toLowerCase()));
    for (const word of words) {
      const texts = columns.map((column, c) => [column.codes, Uint8Array.from(lowerValues[c], value => value.includes(word))]);
      for (let i = 0; i < count; i++) {
        if (state.matches[i]) state.matches[i] = lowerIds[i].includes(word) || texts.some(([codes, hit]) => hit[codes ? codes[i] : i]) ? 1 : 0;
      }
    }
  }

  function sortedProteins() {
    if (sorted) return sorted;
    sorted = Uint32Array.from({ length: count }, (_, i) => i);
    const { column, down } = sorting, sign = down ? -1 : 1;
    if (column === null) return sorted;
    if (column === "id") return sorted.sort((a, b) => sign * compare(data.ids[a], data.ids[b]));
    if (!column.numbers) {
      const ranks = new Uint32Array(column.values.length);
      [...column.values.keys()].sort((a, b) => compare(column.values[a], column.values[b])).forEach((code, rank) => { ranks[code] = rank; });
      return sorted.sort((a, b) => sign * (ranks[column.codes[a]] - ranks[column.codes[b]]));
    }
    const last = i => Number.isNaN(column.numbers[i]); // whichever way it is sorted
    return sorted.sort((a, b) => last(a) - last(b) || (last(a) ? 0 : sign * (column.numbers[a] - column.numbers[b])));
  }

  const { compare } = new Intl.Collator("en", { numeric: true });

  function showList() {
    let total = 0;
    const found = [];
    for (const i of sortedProteins()) if (shown(i) && ++total <= rows) found.push(i);
    $("list").tBodies[0].replaceChildren(...found.map(listRow));
    $("more").hidden = total <= rows;
    const all = `${countText(count)} protein${count === 1 ? "" : "s"}`;
    $("found").textContent = total < count ? `${countText(total)} of ${all}` : all;
  }

  function listRow(i) {
    const row = element("tr", { protein: i }, element("td", {}, nameButton(i)));
    mark(row);
    row.append(...listed.map(column => element("td", { className: column.numbers ? "number" : "", textContent: cell(column, i) })));
    return row;
  }

  function mark(row) {
    row.className = row.protein === state.chosen ? "chosen" : "";
  }

  function nameButton(i) {
    const button = element("button", { type: "button", className: "name", textContent: data.ids[i] });
    button.addEventListener("click", () => choose(i, true));
    return button;
  }

  function listenToList() {
    const heads = ["id", ...listed].map(column => {
      const head = element("th", { scope: "col", className: column.numbers ? "number" : "" });
      addSortButton(head, column.name ?? "id", down => {
        sorting = { column, down };
        sorted = null;
        showList();
      });
      return head;
    });
    $("list").tHead.append(element("tr", {}, ...heads));
    $("more").addEventListener("click", () => { rows += PAGE_ROWS; showList(); });
    $("search").addEventListener("input", () => { search($("search").value); update(); });
  }

  // ---- the chosen protein -----------------------------------------------------------------------------------------

  function nearest(i) {
    const first = i * neighbours.count;
    return Array.from({ length: neighbours.count }, (_, k) => ({ row: neighbours.rows[first + k], cosine: neighbours.cosines[first + k] }));
  }

  function choose(i, bringIntoView = false) {
    state.chosen = i;
    if (i >= 0 && bringIntoView && canvas) bringToMap(i);
    const inDetails = $("details").contains(document.activeElement);
    showDetails();
    if (inDetails) $("details").focus(); // what had the focus is gone
    for (const row of $("list").tBodies[0].rows) mark(row); // the list stays, and with it the focus
    redraw();
  }

  function bringToMap(i) {
    const [x, y] = views[state.view].axes.map(axis => axis.places);
    const { ax, bx, ay, by } = scale(), width = canvas.clientWidth, height = canvas.clientHeight;
    const sx = ax * x[i] + bx, sy = ay * y[i] + by;
    if (sx < 0 || sy < 0 || sx > width || sy > height) move(width / 2 - sx, height / 2 - sy);
  }

  function showDetails() {
    const i = state.chosen, box = $("details");
    if (i < 0) {
      const how = canvas ? "Click a point, or a name in the table, to see" : "Click a name in the table to see";
      return box.replaceChildren(element("p", { className: "note", textContent: `${how} a protein and its nearest ones.` }));
    }
    const facts = columns.map(column => [column.name, cell(column, i)]).filter(([, value]) => value);
    const list = element("dl", {}, ...facts.flatMap(([name, value]) => [
      element("dt", { textContent: name }), element("dd", { textContent: name === "length" ? `${value} residues` : value })]));
    list.tabIndex = 0; // it may scroll
    const clear = element("button", { type: "button", className: "clear", textContent: "Clear" });
    clear.addEventListener("click", () => choose(-1));
    box.replaceChildren(element("h3", { textContent: data.ids[i] }), list, ...nearestTable(i), clear);
  }

  function nearestTable(i) {
    if (!neighbours.count) return [];
    const lines = nearest(i).map(({ row, cosine }) => element("tr", {},
      element("td", {}, nameButton(row)), element("td", { textContent: cell(columns[state.colour], row) }),
      element("td", { className: "number", textContent: cosine.toFixed(4) })));
    const title = `Nearest by cosine${neighbours.exact ? "" : " (approximate)"}`;
    const heads = [title, columns[state.colour].name, "cosine"].map((textContent, place) =>
      element("th", { scope: "col", className: place === 2 ? "number" : "", textContent }));
    const head = element("thead", {}, element("tr", {}, ...heads));
    return [element("table", { id: "nearest" }, head, element("tbody", {}, ...lines))];
  }

  // ---- tables that stand in the page -------------------------------------------------------------------------------

  function addSortButton(head, name, sort) {
    const button = element("button", { type: "button", textContent: name });
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      sort(down);
    });
    head.replaceChildren(button);
  }

  function valueOf(row, place) {
    const text = row.cells[place].textContent.trim(), value = Number(text.replaceAll(",", ""));
    return text && !Number.isNaN(value) ? value : text;
  }

  function sortTable(table, place, down) {
    const order = (a, b) => typeof a === "number" && typeof b === "number" ? a - b : compare(String(a), String(b));
    const sorted = [...table.tBodies[0].rows].map(row => [valueOf(row, place), row]).sort(([a], [b]) => (down ? -1 : 1) * order(a, b));
    table.tBodies[0].append(...sorted.map(([, row]) => row));
  }

  function searchTable(table) {
    const field = element("input", { type: "search", autocomplete: "off" });
    field.addEventListener("input", () => {
      const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
      for (const row of table.tBodies[0].rows) row.hidden = !words.every(word => row.textContent.toLowerCase().includes(word));
    });
    table.parentNode.before(element("label", {}, "Search this table ", field));
  }

  function listenToTables() {
    for (const table of document.querySelectorAll("table.sortable")) {
      [...table.tHead.rows[0].cells].forEach((head, place) => addSortButton(head, head.textContent, down => sortTable(table, place, down)));
      if (table.tBodies[0].rows.length > SEARCHABLE_ROWS) searchTable(table);
    }
  }

  // ---- start ------------------------------------------------------------------------------------------------------

  function update() { // after a change of what is shown
    rows = PAGE_ROWS;
    showList();
    redraw();
  }

  function fill(select, names, chosen, change) {
    select.append(...names.map((name, value) => new Option(name, value, value === chosen, value === chosen)));
    select.addEventListener("change", () => { change(Number(select.value)); });
  }

  function startMap() {
    fill($("colour"), colourings.map(column => column.name), data.colour, chosen => {
      Object.assign(state, { colour: chosen, group: null });
      choosePaints();
      showKey();
      showDetails();
      update();
    });
    fill($("view"), views.map(view => view.name), 0, chosen => { state.view = chosen; showAll(); });
    choosePaints();
    showKey();
    listenToMap();
  }

  $("explorer").hidden = false;
  $("pictures").open = false;
  listenToTables();
  listenToList();
  if (canvas) startMap();
  showDetails();
  showList();
  if (canvas) draw();
  document.documentElement.dataset.drawn = Math.round(performance.now());
})();
