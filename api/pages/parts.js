// Pieces of the page. Texts that come from the platform are only ever set as text.

export const find = (selector) => document.querySelector(selector);

// `attributes` that begin with "on" are handlers.
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

// One thing of a list: what it is, how it stands (`tone`: good, bad, waits), what there is to say and to do.
export function item(title, { id, status = "", tone = "", lines = [], actions = [] }) {
  const told = lines.filter(Boolean).map((line) => element("p", {}, line));
  const head = element("strong", {}, title, element("span", { class: `status ${tone}` }, status));
  const buttons = actions.length ? [element("div", { class: "row" }, ...actions)] : [];
  return element("li", { "data-id": id }, head, ...told, ...buttons);
}

// `label` says it to who cannot see which line the button is in.
export function action(text, label, run, { danger = false } = {}) {
  const name = danger ? "plain danger" : "plain";
  return element("button", { type: "button", class: name, "aria-label": label, onclick: run }, text);
}

export function show(list, items, nothing) {
  list.replaceChildren(...(items.length ? items : [element("li", {}, element("p", {}, nothing))]));
}

export function money(amountMinor, currency) {
  const format = new Intl.NumberFormat("en", { style: "currency", currency });
  return format.format(amountMinor / 10 ** format.resolvedOptions().maximumFractionDigits);
}

// "12.5" is 1250, without a detour over fractions that no computer can hold.
export function minorOf(dollars) {
  const [whole, cents = ""] = dollars.split(".");
  return Number(whole) * 100 + Number(cents.padEnd(2, "0"));
}

export function day(text) {
  return new Date(text).toLocaleString("en", { dateStyle: "medium", timeStyle: text.includes("T") ? "short" : undefined });
}

export function browserOf(agent) {
  const browser = /Edg|Firefox|Chrome|Safari/.exec(agent ?? "")?.[0].replace("Edg", "Edge");
  const system = /Windows|Android|iPhone|iPad|Mac|Linux/.exec(agent ?? "")?.[0];
  return browser ? [browser, system].filter(Boolean).join(" on ") : agent || "Unknown browser";
}
