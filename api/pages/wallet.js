// What an app does with this API, step by step.

import { access, call, Refused, watch } from "./calls.js";
import { assertion, keptDevices, newDevice, newPasskey, registration, signsWhatIsShown, userOf } from "./keys.js";
import { action, browserOf, day, element, find, item, minorOf, money, show } from "./parts.js";

const MERCHANTS = {
  "coffee-42": { id: "coffee-42", name: "Corner Coffee", category_code: "5814", city: "Oslo", country: "NO" },
  "camera-7": { id: "camera-7", name: "Nimbus Cameras", category_code: "5732", city: "Bergen", country: "NO" },
};
const state = { registration: null, user: null, cards: [], waiting: null };

// ------------------------------------------------------------------------------------------------ forms

// Each form's fields come in, and what it has to say goes out. What it says stays in the form's `output`.
const steps = {
  app({ key }) {
    access.key = key.trim();
    sessionStorage.setItem("key", access.key);
    return "The key is set.";
  },

  async register({ name, email, phone, password }) {
    const body = { name, email, phone, ...(password && { password }) };
    state.registration = await call("POST", "/v1/registrations", body, { as: "app", secret: true });
    find("#register").reset();
    find("#codes").hidden = false;
    find("#codes input").focus();
    return "Two codes are on their way.";
  },

  async codes(codes) {
    const path = `/v1/registrations/${state.registration?.id}`;
    let known = await call("GET", path, undefined, { as: "app" });
    for (const contact of ["email", "phone"]) {
      if (known[contact].verified) continue;
      try {
        known = await call("POST", `${path}/verify_${contact}`, { code: codes[contact] }, { as: "app", secret: true });
      } catch (error) {
        if (error.param === "code") error.param = contact;
        throw error;
      }
    }
    if (!known.session) throw new Refused({ code: "", message: "You are registered already: sign in." });
    await enter(known.session, "You are registered. Add a passkey now: with it you sign in the next time.");
  },

  async password({ email, password }) {
    await enter(await call("POST", "/v1/sessions", { email, password }, { as: "app", secret: true }));
  },

  async "sign-in"() {
    const options = await call("POST", "/v1/sessions/passkey_options", {}, { as: "app" });
    const credential = await assertion(options.public_key);
    const user = userOf(credential);
    const device = user && (await keptDevices.find(user));
    const send = (proof) => call("POST", "/v1/sessions/passkey", { credential }, { as: "app", secret: true, proof });
    try {
      await enter(await send(device ?? null));
    } catch (error) {
      if (!device || error.code !== "device_proof_invalid") throw error;
      // The device was revoked elsewhere: its key opens nothing any more.
      await keptDevices.forget(user);
      await enter(await send(null));
    }
  },

  async "sign-out"() {
    await call("POST", "/v1/sessions/sign_out");
    leave("You are signed out.");
  },

  async sessions() {
    await call("DELETE", `/v1/users/${access.session.user}/sessions`);
    leave("All your sessions have ended.");
  },

  async "add-passkey"({ name }) {
    const options = await call("POST", "/v1/passkeys/registration_options");
    const credential = await newPasskey(options.public_key);
    const passkey = await call("POST", "/v1/passkeys", { name, credential });
    await refreshed(passkeys);
    return `${passkey.name} is added.`;
  },

  async "add-device"({ name }) {
    const asked = await call("POST", "/v1/devices/registration_options");
    const key = await newDevice();
    const body = { name, platform: "web", proof: await registration(key, asked) };
    const device = await call("POST", "/v1/devices", body);
    await keptDevices.keep(access.session.user, key);
    access.device = key;
    await refreshed(devices);
    return `${device.name} is a device. It signs your payments from now on.`;
  },

  async card({ number, expiry, cvc }) {
    const [month, year] = expiry.split("/").map(Number);
    const body = { user: access.session.user, number: number.replaceAll(" ", ""), exp_month: month, exp_year: 2000 + year, cvc };
    // The number leaves the page with the request, whatever comes of it.
    for (const name of ["number", "cvc"]) find(`#card [name=${name}]`).value = "";
    const added = await call("POST", "/v1/payment_methods/cards", body, { secret: true });
    find("#card").reset();
    const card = await watch(`/v1/payment_methods/${added.id}`, (shown) => shown.status !== "pending");
    await refreshed(methods);
    return `${cardName(card)} is ${card.status}.`;
  },

  async bank({ routing_number, account_number, account_type }) {
    const body = { user: access.session.user, routing_number, account_number, account_type };
    find("#bank [name=account_number]").value = "";
    const added = await call("POST", "/v1/payment_methods/bank_accounts", body, { secret: true });
    find("#bank").reset();
    await refreshed(methods);
    return `The account …${added.last4} is added. Verify it by two small deposits.`;
  },

  async banks() {
    await refreshed(methods);
  },

  async payments() {
    await refreshed(payments);
  },

  async pay({ dollars, card, merchant }) {
    const body = { amount_minor: minorOf(dollars), currency: "USD", payment_method: card, merchant: MERCHANTS[merchant] };
    try {
      let payment = await call("POST", "/v1/payments", body);
      if (payment.status === "processing") {
        payment = await watch(`/v1/payments/${payment.id}`, (shown) => shown.status !== "processing");
      }
      if (payment.status === "requires_action") await askPayer(payment);
      return `${money(payment.amount_minor, payment.currency)} to ${payment.merchant.name}: ${told(payment).status}.`;
    } finally {
      await refreshed(payments);
    }
  },

  async confirm({ code }) {
    const { payment, passkey } = state.waiting;
    const path = `/v1/payments/${payment.id}`;
    let proof = { code };
    if (passkey) {
      if (!(await signsWhatIsShown(passkey))) throw new Error("The challenge is not of what is shown.");
      proof = { passkey: { challenge: passkey.challenge, credential: await assertion(passkey.public_key) } };
    }
    try {
      const confirmed = await call("POST", `${path}/confirm`, proof, { secret: true });
      closeConfirmation(`${money(confirmed.amount_minor, confirmed.currency)} to ${confirmed.merchant.name}: ${told(confirmed).status}.`);
    } catch (error) {
      // A challenge is good for one answer; the next try needs a new one.
      if (error instanceof Refused && error.code.startsWith("step_up_challenge")) await askPayer(payment);
      throw error;
    } finally {
      await refreshed(payments);
    }
  },
};

// ------------------------------------------------------------------------------------------------ in and out

async function enter(session, notice = "") {
  access.session = session;
  state.user = await call("GET", `/v1/users/${session.user}`);
  for (const form of document.forms) clear(form);
  find("#codes").hidden = true;
  find("#outside").hidden = true;
  find("#inside").hidden = find("#sign-out").hidden = false;
  find("#who").textContent = state.user.name;
  say(notice || `Welcome, ${state.user.name}.`);
  find("#notice").focus();
  await refreshed(passkeys, devices, sessions, methods);
  await refreshed(payments);
}

// Nothing of the user stays on the page.
function leave(notice, tone = "") {
  access.session = access.device = state.user = state.waiting = null;
  state.cards = [];
  for (const form of document.forms) if (form.id !== "app") clear(form);
  for (const list of document.querySelectorAll("#inside ul")) list.replaceChildren();
  for (const text of [find("#who"), find("#confirmed")]) text.textContent = "";
  find("#pay select[name=card]").replaceChildren();
  find("#confirmation").close();
  find("#inside").hidden = find("#sign-out").hidden = true;
  find("#outside").hidden = false;
  say(notice, tone);
  find("#notice").focus();
}

access.ended = (notice) => leave(notice, "bad");

function clear(form) {
  if (form.id !== "app") form.reset();
  if (form.querySelector("output")) form.querySelector("output").textContent = "";
}

function say(text, tone = "") {
  find("#notice").className = `notice ${tone}`;
  find("#notice").textContent = text;
}

// ------------------------------------------------------------------------------------------------ lists

async function refreshed(...lists) {
  if (access.session) await Promise.all(lists.map((list) => list()));
}

async function methods() {
  const page = await call("GET", `/v1/payment_methods?user=${access.session.user}&limit=100`);
  const banks = page.data.filter((each) => each.type === "us_bank_account");
  state.cards = page.data.filter((each) => each.type === "card");
  show(find("#card-list"), state.cards.map(cardItem), "No card yet.");
  offer(find("#pay select[name=card]"), state.cards.filter((each) => each.status === "active"));
  const verifications = await Promise.all(banks.map(verificationOf));
  show(find("#bank-list"), banks.map((each, place) => bankItem(each, verifications[place])), "No bank account yet.");
}

// The card that was chosen stays chosen.
function offer(select, cards) {
  const chosen = select.value;
  const options = cards.map((each) => element("option", { value: each.id }, cardName(each)));
  select.replaceChildren(...(options.length ? options : [element("option", { value: "" }, "Add a card first")]));
  if (cards.some((each) => each.id === chosen)) select.value = chosen;
}

function cardName({ brand, last4 }) {
  return `${brand[0].toUpperCase()}${brand.slice(1)} …${last4}`;
}

function cardItem(card) {
  const title = cardName(card);
  const expiry = `Expires ${String(card.exp_month).padStart(2, "0")}/${card.exp_year}`;
  const remove = async () => {
    await call("DELETE", `/v1/payment_methods/${card.id}`);
    await refreshed(methods);
    return `${title} is removed.`;
  };
  const actions = [action("Remove", `Remove ${title}`, doing("card", remove), { danger: true })];
  return item(title, { id: card.id, status: card.status, tone: card.status === "active" ? "good" : "waits", lines: [expiry], actions });
}

async function verificationOf(bank) {
  try {
    return await call("GET", `/v1/payment_methods/${bank.id}/micro_deposits`);
  } catch (error) {
    if (error.code === "resource_missing") return null;
    throw error;
  }
}

const DEPOSITS = {
  new: "Two small deposits are being prepared.",
  initiating: "Two small deposits are being handed to the bank.",
  origination_in_doubt: "The bank has not said whether it has the deposits. It is being asked; nothing is sent twice.",
  sent: "Two deposits of 1 to 49 cents are on their way to your account.",
  awaiting_confirmation: "Two deposits of 1 to 49 cents are on your bank statement. Which amounts are they?",
  verified: "You have shown that the account is yours.",
  failed: "The verification failed.",
  expired: "The amounts were not named in time.",
  returned: "The bank sent the deposits back.",
  canceled: "You canceled the verification.",
};
const UNDER_WAY = ["new", "initiating", "origination_in_doubt", "sent", "awaiting_confirmation"];

function bankItem(bank, deposits) {
  const title = `${bank.account_type === "savings" ? "Savings" : "Checking"} …${bank.last4}`;
  const path = `/v1/payment_methods/${bank.id}/micro_deposits`;
  const lines = [`At ${bank.routing_number}`, deposits ? DEPOSITS[deposits.status] : "Not verified yet."];
  if (deposits?.reason) lines.push(`Reason: ${deposits.reason}.`);
  if (deposits?.status === "sent" && deposits.effective_on) lines.push(`They arrive by ${day(deposits.effective_on)}.`);
  const open = deposits && UNDER_WAY.includes(deposits.status);
  const start = async () => {
    await call("POST", path);
    const found = await watch(path, (shown) => !["new", "initiating"].includes(shown.status));
    await refreshed(methods);
    return DEPOSITS[found.status];
  };
  const cancel = async () => {
    await call("POST", `${path}/cancel`);
    await refreshed(methods);
    return `The verification of ${title} is canceled.`;
  };
  const actions = [];
  if (bank.status === "pending" && !open) {
    actions.push(action("Send two deposits", `Send two deposits to ${title}`, doing("banks", start)));
  }
  if (open) actions.push(action("Cancel the verification", `Cancel the verification of ${title}`, doing("banks", cancel), { danger: true }));
  const remove = async () => {
    await call("DELETE", `/v1/payment_methods/${bank.id}`);
    await refreshed(methods);
    return `${title} is removed.`;
  };
  actions.push(action("Remove", `Remove ${title}`, doing("banks", remove), { danger: true }));
  const tone = deposits?.status === "verified" ? "good" : open || !deposits ? "waits" : "bad";
  const made = item(title, { id: bank.id, status: (deposits?.status ?? bank.status).replaceAll("_", " "), tone, lines, actions });
  if (deposits?.status === "awaiting_confirmation") made.lastChild.before(amountsForm(title, path, deposits));
  return made;
}

function amountsForm(title, path, deposits) {
  const cents = (label) =>
    element("label", {}, label, element("input", {
      name: "amount", inputmode: "numeric", pattern: "[1-9]|[1-4][0-9]", title: "Cents, 1 to 49", autocomplete: "off",
      placeholder: "1 to 49", "aria-label": `${label} to ${title}`, required: true,
    }));
  const left = deposits.attempts_remaining;
  const until = deposits.expires ? ` Until ${day(deposits.expires)}.` : "";
  const form = element("form", {},
    element("p", {}, `${left} ${left === 1 ? "attempt is" : "attempts are"} left.${until}`),
    element("div", { class: "row" }, cents("First, in cents"), cents("Second, in cents")),
    element("button", { "aria-label": `Confirm the amounts for ${title}` }, "Confirm the amounts"));
  const confirm = async () => {
    const amounts = new FormData(form).getAll("amount").map(Number);
    try {
      await call("POST", `${path}/confirm`, { amounts_minor: amounts });
      return `${title} is verified.`;
    } finally {
      await refreshed(methods);
    }
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    return doing("banks", confirm)(event);
  });
  return form;
}

const PAYMENTS = {
  processing: ["under way", "waits"],
  requires_action: ["waits for you", "waits"],
  in_review: ["being looked at", "waits"],
  in_doubt: ["in doubt: being resolved", "waits"],
  authorized: ["authorized", "good"],
  captured: ["paid", "good"],
  settled: ["paid", "good"],
  voided: ["not charged", ""],
  expired: ["not charged", ""],
  canceled: ["canceled", ""],
  declined: ["declined", "bad"],
  blocked: ["stopped", "bad"],
};

function told(payment) {
  const [status, tone] = PAYMENTS[payment.status] ?? [payment.status, ""];
  return { status: status === payment.status ? status : `${status} (${payment.status})`, tone };
}

async function payments() {
  const page = await call("GET", "/v1/payments?limit=20");
  const refunds = await Promise.all(page.data.map((each) => (["captured", "settled"].includes(each.status) ? refundsOf(each) : [])));
  show(find("#payment-list"), page.data.map((each, place) => paymentItem(each, refunds[place])), "No payment yet.");
}

async function refundsOf(payment) {
  return (await call("GET", `/v1/payments/${payment.id}/refunds`)).data;
}

function paymentItem(payment, refunds) {
  const title = `${money(payment.amount_minor, payment.currency)} to ${payment.merchant.name}`;
  const card = state.cards.find((each) => each.id === payment.payment_method);
  const lines = [[day(payment.created), card && cardName(card), payment.decline_code ?? payment.status_reason].filter(Boolean).join(" · ")];
  for (const each of refunds) lines.push(`Refund of ${money(each.amount_minor, each.currency)}: ${each.status.replace("_", " ")}`);
  const ask = async () => {
    await askPayer(payment);
  };
  const actions = payment.status === "requires_action" ? [action("Confirm", `Confirm ${title}`, doing("payments", ask))] : [];
  return item(title, { id: payment.id, ...told(payment), lines, actions });
}

async function passkeys() {
  const page = await call("GET", "/v1/passkeys");
  const made = page.data.map((each) => {
    const used = each.last_used_at ? `Last used ${day(each.last_used_at)}` : "Not used yet";
    const remove = removal(`/v1/passkeys/${each.id}`, each.name, passkeys);
    const actions = [action("Remove", `Remove the passkey ${each.name}`, doing("add-passkey", remove), { danger: true })];
    return item(each.name, { id: each.id, status: each.status, tone: each.status === "active" ? "good" : "bad", lines: [used], actions });
  });
  show(find("#passkey-list"), made, "No passkey yet.");
}

async function devices() {
  const page = await call("GET", "/v1/devices");
  const here = page.data.find((each) => each.current);
  access.device = here ? ((await keptDevices.find(access.session.user)) ?? null) : null;
  const made = page.data.map((each) => {
    const revoke = async () => {
      await call("DELETE", `/v1/devices/${each.id}`);
      if (each.current) {
        await keptDevices.forget(access.session.user);
        leave(`${each.name} is revoked, and its sessions have ended.`);
        return "";
      }
      await refreshed(devices, sessions);
      return `${each.name} is revoked.`;
    };
    const actions = [action("Revoke", `Revoke the device ${each.name}`, doing("add-device", revoke), { danger: true })];
    return item(each.name, { id: each.id, status: each.current ? "this browser" : each.platform, tone: each.current ? "good" : "", lines: [`Since ${day(each.created)}`], actions });
  });
  show(find("#device-list"), made, "No device yet.");
  find("#add-device").hidden = Boolean(here);
}

const PROOFS = { pwd: "password", sms: "codes", hwk: "passkey", swk: "passkey", client: "an app's word" };

async function sessions() {
  const { user } = access.session;
  const page = await call("GET", `/v1/users/${user}/sessions`);
  const made = page.data.map((each) => {
    const name = browserOf(each.device_name);
    const how = each.methods.map((method) => PROOFS[method]).filter(Boolean).join(", ");
    const end = removal(`/v1/users/${user}/sessions/${each.id}`, "The session", sessions);
    const began = day(each.authenticated_at);
    const actions = each.current ? [] : [action("End", `End the session of ${began}`, doing("sessions", end), { danger: true })];
    return item(name, { id: each.id, status: each.current ? "this one" : "", tone: "good", lines: [`Signed in ${began} by ${how}`], actions });
  });
  show(find("#session-list"), made, "No session.");
}

function removal(path, name, list) {
  return async () => {
    await call("DELETE", path);
    await refreshed(list);
    return `${name} is gone.`;
  };
}

// ------------------------------------------------------------------------------------------------ confirming

// Opens the dialog that says what is to be confirmed, in the words that are signed.
async function askPayer(payment) {
  const { passkey } = await call("GET", `/v1/payments/${payment.id}/step_up`);
  state.waiting = { payment, passkey };
  const { amount_minor: amount, currency, merchant } = passkey ? JSON.parse(passkey.document) : { ...payment, merchant: payment.merchant.name };
  find("#confirmed").textContent = `${money(amount, currency)} to ${merchant}`;
  find("#confirm-code").hidden = Boolean(passkey);
  find("#confirm-code input").required = !passkey;
  find("#confirm-button").textContent = passkey ? "Confirm with a passkey" : "Confirm";
  if (!find("#confirmation").open) {
    clear(find("#confirm"));
    find("#confirmation").showModal();
  }
}

function closeConfirmation(text) {
  find("#confirmation").close();
  answer(find("#pay output"), text, "good");
}

// The button that opened it was waiting then, and could not have the focus that comes back.
find("#confirmation").addEventListener("close", () => {
  if (document.activeElement === document.body) find("#payments-title").focus();
});
find("#confirm-later").addEventListener("click", () => find("#confirmation").close());
find("#confirm-cancel").addEventListener("click", (event) =>
  doing("confirm", async () => {
    await call("POST", `/v1/payments/${state.waiting.payment.id}/void`);
    closeConfirmation("The payment is canceled.");
    await refreshed(payments);
  })(event));

// ------------------------------------------------------------------------------------------------ doing

// Which field of the page a parameter of the API is typed into, where it has another name.
const FIELDS = { exp_month: "expiry", exp_year: "expiry", amount_minor: "dollars" };

// What the browser refuses, in plainer words than its own.
const BROWSER = {
  NotAllowedError: "No passkey was used: it was refused, there is none, or the time ran out.",
  InvalidStateError: "This authenticator has a passkey of yours already.",
};

// Runs `work` and says in the form's output what came of it. The button waits meanwhile.
function doing(formId, work) {
  return async (event) => {
    const output = find(`#${formId}`).querySelector("output");
    const button = event.submitter ?? event.currentTarget;
    const heading = button.closest("section")?.querySelector("h2");
    const fields = event.target.elements ?? [];
    for (const field of fields) {
      field.removeAttribute("aria-invalid");
      field.removeAttribute("aria-describedby");
    }
    // What was said before about the same things may not be so any more.
    for (const old of output.closest("section")?.querySelectorAll("output") ?? []) answer(old, "", "");
    button.disabled = true;
    answer(output, "…", "");
    try {
      answer(output, (await work()) ?? "", "good");
    } catch (error) {
      const code = [error.details?.code, error.details?.decline_code].filter(Boolean).join(": ");
      answer(output, code ? `${error.message} (${code})` : (BROWSER[error.name] ?? error.message), "bad");
      const wrong = error.param && fields.namedItem?.(FIELDS[error.param] ?? error.param);
      if (wrong instanceof HTMLInputElement) {
        output.id = `${formId}-said`;
        wrong.setAttribute("aria-invalid", "true");
        wrong.setAttribute("aria-describedby", output.id);
        wrong.focus();
      }
    } finally {
      button.disabled = false;
      // A button that waits has lost the focus, and a list that was made anew has other buttons.
      if (document.activeElement === document.body) (stillThere(button) ?? heading)?.focus();
    }
  };
}

function stillThere(button) {
  if (button.isConnected) return button;
  const label = button.getAttribute("aria-label");
  return label && [...document.querySelectorAll("button")].find((each) => each.getAttribute("aria-label") === label);
}

function answer(output, text, tone) {
  output.className = tone;
  output.textContent = text;
}

for (const form of document.forms) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const fields = Object.fromEntries(new FormData(form));
    return doing(form.id, () => steps[form.id](fields))(event);
  });
}

for (const button of document.querySelectorAll("[data-resend]")) {
  button.addEventListener("click", doing("codes", async () => {
    await call("POST", `/v1/registrations/${state.registration.id}/resend`, { contact: button.dataset.resend }, { as: "app" });
    return "Another code is on its way.";
  }));
}

addEventListener("offline", () => say("This browser is offline. What you do now waits until you try it again.", "bad"));
addEventListener("online", () => say("This browser is online again."));

// The key of the app may be in the address, behind the #: it is not sent to the server.
const given = decodeURIComponent(location.hash.slice(1)) || sessionStorage.getItem("key") || "";
if (given.startsWith("pk_")) {
  find("#app input").value = given;
  find("#app").requestSubmit();
}
history.replaceState(null, "", location.pathname);
