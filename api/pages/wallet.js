// What an app does with this API, step by step. Tokens live in this module's memory and nowhere else.

const state = { key: null, registration: null, session: null, card: null, payment: null, asked: null };

class Refused extends Error {}

async function call(method, path, body, { as = "session" } = {}) {
  const token = as === "app" ? state.key : state.session?.token;
  if (!token) throw new Refused(as === "app" ? "Give a publishable key first." : "Sign in first.");
  const headers = { Authorization: `Bearer ${token}` };
  if (method === "POST") {
    headers["Content-Type"] = "application/json";
    headers["Idempotency-Key"] = crypto.randomUUID();
  }
  const response = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  const answer = response.status === 204 ? null : await response.json();
  if (!response.ok) throw new Refused(`${answer.error.code}: ${answer.error.message}`);
  return answer;
}

// Each step gets the form's fields and returns what it has to say.
const steps = {
  app({ key }) {
    state.key = key.trim();
    return "The key is set.";
  },

  async register({ name, email, phone }) {
    state.registration = await call("POST", "/v1/registrations", { name, email, phone }, { as: "app" });
    return "Two codes are on their way.";
  },

  async codes({ email, phone }) {
    const path = `/v1/registrations/${state.registration?.id}`;
    const begun = await call("GET", path, undefined, { as: "app" });
    if (!begun.email.verified) await call("POST", `${path}/verify_email`, { code: email }, { as: "app" });
    const done = await call("POST", `${path}/verify_phone`, { code: phone }, { as: "app" });
    state.session = done.session;
    return `Registered and signed in as ${done.user}.`;
  },

  async "add-passkey"({ name }) {
    const options = await call("POST", "/v1/passkeys/registration_options", {});
    const publicKey = PublicKeyCredential.parseCreationOptionsFromJSON(options.public_key);
    const credential = await navigator.credentials.create({ publicKey });
    const passkey = await call("POST", "/v1/passkeys", { name, credential: credential.toJSON() });
    return `${passkey.name} is added (${passkey.id}).`;
  },

  async "sign-in"() {
    const options = await call("POST", "/v1/sessions/passkey_options", {}, { as: "app" });
    const credential = await assertion(options.public_key);
    state.session = await call("POST", "/v1/sessions/passkey", { credential }, { as: "app" });
    return `Signed in as ${state.session.user}.`;
  },

  async card({ number, expiry, cvc }) {
    const [month, year] = expiry.split("/").map(Number);
    const body = { user: state.session?.user, number, exp_month: month, exp_year: 2000 + year, cvc };
    let card = await call("POST", "/v1/payment_methods/cards", body);
    while (card.status === "pending") {
      await new Promise((later) => setTimeout(later, 300));
      card = await call("GET", `/v1/payment_methods/${card.id}`);
    }
    state.card = card;
    return `${card.brand} …${card.last4} is ${card.status}.`;
  },

  async pay({ dollars }) {
    state.asked = null;
    state.payment = await call("POST", "/v1/payments", {
      amount_minor: Math.round(Number(dollars) * 100),
      currency: "USD",
      payment_method: state.card?.id ?? "",
      merchant: { id: "coffee-42", name: "Corner Coffee", category_code: "5814", city: "Oslo", country: "NO" },
    });
    if (state.payment.status === "requires_action") await ask();
    return `${state.payment.id} is ${state.payment.status}.`;
  },

  async confirm() {
    if (state.payment?.status !== "requires_action") throw new Refused("No payment waits for you.");
    if (!(await matches(await ask()))) throw new Refused("The challenge is not of what is shown.");
    const credential = await assertion(state.asked.public_key);
    const passkey = { challenge: state.asked.challenge, credential };
    state.payment = await call("POST", `/v1/payments/${state.payment.id}/confirm`, { passkey });
    return `${state.payment.id} is ${state.payment.status}.`;
  },
};

async function assertion(options) {
  const publicKey = PublicKeyCredential.parseRequestOptionsFromJSON(options);
  const credential = await navigator.credentials.get({ publicKey });
  return credential.toJSON();
}

async function ask() {
  const found = await call("GET", `/v1/payments/${state.payment.id}/step_up`);
  if (!found.passkey) throw new Refused("You have no passkey: confirm with the code from the SMS.");
  state.asked = found.passkey;
  const { amount_minor: amount, currency, merchant } = JSON.parse(state.asked.document);
  const shown = new Intl.NumberFormat("en", { style: "currency", currency }).format(amount / 100);
  document.querySelector("#confirmed").textContent = `${shown} to ${merchant}`;
  return state.asked;
}

// The challenge is the SHA-256 of the document that is shown, so what is signed is what was seen.
async function matches({ document: text, public_key: options }) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text)));
  const base64 = btoa(String.fromCharCode(...digest)).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
  return base64 === options.challenge;
}

for (const form of document.forms) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const [button, output] = [form.querySelector("button"), form.querySelector("output")];
    button.disabled = true;
    output.className = "";
    output.textContent = "…";
    try {
      output.textContent = await steps[form.id](Object.fromEntries(new FormData(form)));
      output.className = "good";
    } catch (error) {
      output.textContent = error.message;
      output.className = "bad";
    } finally {
      button.disabled = false;
    }
  });
}
