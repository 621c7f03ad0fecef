// Keeps a page as it is on the server: replaces sections that changed, adds lines of output.
// The browser's EventSource reconnects by itself and says which line it saw last.

const main = document.querySelector("main");
const log = document.querySelector("#log");
const link = document.querySelector("#link");
const search = document.querySelector("#search");
const pause = document.querySelector("#pause");
const MAX_LINES = 2000;

function replace(name, html) {
  const place = document.querySelector(`[data-section="${name}"]`);
  if (!place || place.contains(document.activeElement) && document.activeElement.tagName === "BUTTON") return;
  const scroll = place.querySelector(".scroll");
  const left = scroll ? scroll.scrollLeft : 0;
  const focused = place.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  place.innerHTML = html;
  const now = place.querySelector(".scroll");
  if (now) now.scrollLeft = left;
  if (focused) place.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
}

function visible(line) {
  const words = search ? search.value.toLowerCase() : "";
  line.hidden = words !== "" && !line.textContent.toLowerCase().includes(words);
}

function append(html) {
  if (!log) return;
  const still = pause ? pause.checked : log.scrollHeight - log.scrollTop - log.clientHeight > 40;
  const box = document.createElement("template");
  box.innerHTML = html;
  for (const line of [...box.content.children]) {
    visible(line);
    log.append(line);
  }
  while (log.children.length > MAX_LINES) log.firstElementChild.remove();
  if (!still) log.scrollTop = log.scrollHeight;
}

if (main.dataset.live) {
  const source = new EventSource(`/-/live?page=${main.dataset.live}`);
  source.addEventListener("section", (event) => {
    const { name, html } = JSON.parse(event.data);
    replace(name, html);
  });
  source.addEventListener("lines", (event) => append(JSON.parse(event.data).html));
  source.addEventListener("open", () => { link.textContent = "live"; link.className = "link on"; });
  source.addEventListener("error", () => { link.textContent = "reconnecting…"; link.className = "link off"; });
}

if (log) log.scrollTop = log.scrollHeight;
search?.addEventListener("input", () => [...log.children].forEach(visible));

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  const before = button.textContent;
  if (button.dataset.copy) {
    await navigator.clipboard.writeText(button.dataset.copy);
    button.textContent = "copied";
  } else if (button.dataset.post) {
    button.disabled = true;
    const answer = await fetch(button.dataset.post, { method: "POST" });
    button.textContent = answer.ok ? "done" : (await answer.json()).detail;
    button.disabled = false;
    button.blur();
  } else return;
  setTimeout(() => { button.textContent = before; }, 2000);
});
