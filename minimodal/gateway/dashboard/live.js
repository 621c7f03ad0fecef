// Keeps a page as it is on the server: replaces parts that changed, adds lines of output.
// The browser's EventSource reconnects by itself and says which line it saw last.

const main = document.querySelector("main");
const log = document.querySelector("#log");
const link = document.querySelector("#link");
const search = document.querySelector("#search");
const pause = document.querySelector("#pause");
const errors = document.querySelector("#errors");
const MAX_LINES = 2000;

// --- parts ---

const named = (element) => {
  for (const name of ["data-post", "data-copy", "data-show", "data-key", "href"]) {
    const value = element?.getAttribute?.(name);
    if (value) return `[${name}="${CSS.escape(value)}"]`;
  }
  return element?.tagName === "SUMMARY" ? `${named(element.parentElement)} > summary` : null;
};

function replace(name, html) {
  const place = document.querySelector(`[data-section="${CSS.escape(name)}"]`);
  if (!place || place.querySelector("button.asked, button[disabled]")) return;
  const selection = getSelection();
  if (!selection.isCollapsed && place.contains(selection.anchorNode)) return; // somebody copies
  const scrolled = [...place.querySelectorAll(".scroll")].map((each) => each.scrollLeft);
  const details = [...place.querySelectorAll("details")].map((each) => [named(each), each.open]);
  const focused = place.contains(document.activeElement) ? named(document.activeElement) : null;
  const stacks = place.querySelector(".shown");
  place.innerHTML = html;
  place.querySelectorAll(".scroll").forEach((each, n) => { each.scrollLeft = scrolled[n] ?? 0; });
  for (const [which, open] of details) place.querySelector(which)?.toggleAttribute("open", open);
  if (stacks) place.append(stacks);
  if (focused) place.querySelector(focused)?.focus({ preventScroll: true });
}

// --- times ---

function words(seconds) {
  for (const [unit, size, limit] of [["s", 1, 120], ["min", 60, 7200], ["h", 3600, 172800]])
    if (seconds < limit) return `${Math.round(seconds / size)} ${unit}`;
  return `${Math.round(seconds / 86400)} days`;
}

setInterval(() => {
  const now = Math.round(Date.now() / 1000);
  for (const each of document.querySelectorAll("time[data-at]")) {
    const away = now - Number(each.dataset.at);
    const text = away === 0 ? "now" : away < 0 ? `in ${words(-away)}` : `${words(away)} ago`;
    if (each.textContent !== text) each.textContent = text;
  }
}, 1000);

// --- output ---

function visible(line) {
  const wanted = search ? search.value.toLowerCase() : "";
  const right = !errors?.checked || line.className === "stderr";
  line.hidden = !right || (wanted !== "" && !line.textContent.toLowerCase().includes(wanted));
}

function append(html) {
  if (!log) return;
  const still = pause?.checked || log.scrollHeight - log.scrollTop - log.clientHeight > 40;
  const box = document.createElement("template");
  box.innerHTML = html;
  for (const line of [...box.content.children]) {
    visible(line);
    log.append(line);
  }
  while (log.children.length > MAX_LINES) log.firstElementChild.remove();
  if (!still) log.scrollTop = log.scrollHeight;
}

for (const each of document.querySelectorAll("svg.lanes")) each.parentElement.scrollLeft = each.clientWidth;
if (log) log.scrollTop = log.scrollHeight;
for (const each of [search, errors]) each?.addEventListener("input", () => [...log.children].forEach(visible));

// --- the stream ---

if (document.querySelector("[data-section]") || log) {
  const at = encodeURIComponent(location.pathname + location.search);
  const source = new EventSource(`/-/live?at=${at}&after=${main.dataset.after}`);
  source.addEventListener("section", (event) => {
    const { name, html } = JSON.parse(event.data);
    replace(name, html);
  });
  source.addEventListener("lines", (event) => append(JSON.parse(event.data).html));
  source.addEventListener("gone", () => { source.close(); link.textContent = "gone"; link.className = "link off"; });
  source.addEventListener("open", () => { link.textContent = "live"; link.className = "link on"; });
  source.addEventListener("error", () => { link.textContent = "reconnecting…"; link.className = "link off"; });
  addEventListener("pagehide", () => source.close());
}

// --- buttons ---

async function detail(answer) {
  try { return (await answer.json()).detail ?? answer.statusText; } catch { return answer.statusText; }
}

function thread({ name, frames }) {
  const lines = frames.map(([file, line, func, text]) => `  ${file}:${line} ${func}\n    ${text}`);
  return [name, ...lines].join("\n");
}

async function press(button) {
  const { copy, post, show, sure } = button.dataset;
  if (sure && !button.classList.contains("asked")) {
    button.classList.add("asked");
    return sure;
  }
  button.classList.remove("asked");
  if (copy) {
    await navigator.clipboard.writeText(copy);
    return "copied";
  }
  button.disabled = true;
  try {
    const answer = await fetch(post ?? show, { method: post ? "POST" : "GET" });
    if (!answer.ok) return await detail(answer);
    if (!show) return "done";
    const body = button.closest("[data-section]");
    body.querySelector(".shown")?.remove();
    const place = document.createElement("pre");
    place.className = "shown";
    place.tabIndex = 0;
    place.textContent = (await answer.json()).threads.map(thread).join("\n\n");
    body.append(place);
    return "shown";
  } catch {
    return "no answer";
  } finally {
    button.disabled = false;
  }
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[type=button]");
  if (!button) return;
  const before = (button.dataset.name ??= button.textContent);
  button.textContent = await press(button);
  setTimeout(() => {
    button.classList.remove("asked");
    button.textContent = before;
  }, 2500);
});
