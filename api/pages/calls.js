// Requests to the platform, as an app makes them. Tokens are in this module's memory and nowhere else.

import { prove } from "./keys.js";

// `session` has the tokens of who signed in; `device` the key that signs payments, once the session is bound to it.
export const access = { key: null, session: null, device: null, ended: () => {} };

// The platform said no. `param` names the field that is wrong, `details` is all that it said.
export class Refused extends Error {
  constructor(error, retryAfter = null) {
    const left = error.attempts_remaining === undefined ? "" : ` Attempts remaining: ${error.attempts_remaining}.`;
    super(`${error.message}${left}${retryAfter ? ` Try again in ${retryAfter} s.` : ""}`);
    this.code = error.code;
    this.param = error.param ?? null;
    this.details = error;
  }
}

// Nobody knows whether the platform got the request. Sending the same again has its effect once.
export class Unanswered extends Error {
  constructor() {
    super("No answer came. Try again: nothing is done twice.");
  }
}

// `as` is "app" for what an app does without a user. `secret` bodies are not remembered, not even in memory.
export async function call(method, path, body, { as = "session", secret = false, proof = null } = {}) {
  const text = body === undefined ? (method === "POST" ? "{}" : undefined) : JSON.stringify(body);
  const what = secret ? null : `${path} ${text}`;
  const key = method === "POST" ? (unanswered.get(what) ?? crypto.randomUUID()) : null;
  if (key && what) unanswered.set(what, key);
  const send = () => ask(method, path, text, { token: tokenOf(as), key, proof });
  let { response, answer } = await send();
  if (as === "session" && answer?.error?.code === "session_expired") {
    await refresh();
    ({ response, answer } = await send());
  }
  // What was not decided is asked for again under the same key; everything else is a new request.
  if (response.status < 500 && response.status !== 429) unanswered.delete(what);
  if (response.ok) return answer;
  if (as === "session" && answer.error.code === "credentials_invalid") access.ended("Your session has ended.");
  throw new Refused(answer.error, response.headers.get("Retry-After"));
}

// What `path` shows once it `isRight`, or at the end of the patience.
export async function watch(path, isRight, seconds = 30) {
  const until = Date.now() + seconds * 1000;
  let found = await call("GET", path);
  while (!isRight(found) && Date.now() < until) {
    await new Promise((later) => setTimeout(later, 500));
    found = await call("GET", path);
  }
  return found;
}

const unanswered = new Map();
let refreshing = null;

function tokenOf(as) {
  const token = as === "app" ? access.key : access.session?.token;
  if (token) return token;
  throw new Refused({ code: "", message: as === "app" ? "Give a publishable key first." : "Sign in first." });
}

async function ask(method, path, text, { token, key, proof }) {
  const headers = { "Content-Type": "application/json" };
  if (token) headers.Authorization = `Bearer ${token}`;
  if (key) headers["Idempotency-Key"] = key;
  // A session that is bound to a device signs what it does with payments; each proof is good once.
  const bound = access.device && method !== "GET" && path.startsWith("/v1/payments");
  if (bound) headers.DPoP = await prove(access.device, { method, path, text, token });
  if (proof) headers.DPoP = await prove(proof, { method, path, text });
  try {
    const response = await fetch(path, { method, headers, body: text, credentials: "omit", cache: "no-store" });
    return { response, answer: response.status === 204 ? null : await response.json() };
  } catch {
    throw new Unanswered();
  }
}

// A refresh token is good once, so whoever needs a new pair at the same moment waits for the same one.
function refresh() {
  refreshing ??= renewed().finally(() => (refreshing = null));
  return refreshing;
}

async function renewed() {
  const body = JSON.stringify({ refresh_token: access.session.refresh_token });
  const { response, answer } = await ask("POST", "/v1/sessions/refresh", body, {});
  if (response.ok) {
    access.session = answer;
    return;
  }
  if (response.status === 401) access.ended("Your session has ended: sign in again.");
  throw new Refused(answer.error, response.headers.get("Retry-After"));
}
