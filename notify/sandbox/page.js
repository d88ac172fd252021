// Keeps the list fresh without a reload: what was typed and how far one scrolled stays.
const REFRESH_MILLISECONDS = 2000;
const steps = [["day", 86400], ["hour", 3600], ["minute", 60]];
const words = new Intl.RelativeTimeFormat("en", { numeric: "auto" });

function tellTimes() {
  for (const time of document.querySelectorAll("time")) {
    const seconds = Math.max(0, (Date.now() - Date.parse(time.dateTime)) / 1000);
    const [unit, length] = steps.find(([, length]) => seconds >= length) ?? ["second", 1];
    time.textContent = seconds < 5 ? "just now" : words.format(-Math.floor(seconds / length), unit);
  }
}

let shown = document.querySelector("main").innerHTML;

async function refresh() {
  try {
    const answer = await fetch(location.href, { cache: "no-store" });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.querySelector("main").innerHTML;
    if (fresh !== shown) {
      const open = [...document.querySelectorAll("details[open]")].map((details) => details.id);
      shown = fresh;
      document.querySelector("main").innerHTML = fresh;
      for (const id of open) document.getElementById(id)?.setAttribute("open", "");
    }
    document.body.classList.remove("offline");
  } catch {
    document.body.classList.add("offline");
  }
  tellTimes();
  setTimeout(refresh, REFRESH_MILLISECONDS);
}

tellTimes();
setTimeout(refresh, REFRESH_MILLISECONDS);
