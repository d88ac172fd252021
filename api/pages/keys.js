// Keys that do not leave this browser: passkeys (WebAuthn), and the key of this browser as a device (WebCrypto).

const utf8 = new TextEncoder();

export async function newPasskey(options) {
  const publicKey = PublicKeyCredential.parseCreationOptionsFromJSON(options);
  return (await navigator.credentials.create({ publicKey })).toJSON();
}

export async function assertion(options) {
  const publicKey = PublicKeyCredential.parseRequestOptionsFromJSON(options);
  return (await navigator.credentials.get({ publicKey })).toJSON();
}

// Whose passkey signed, as the passkey itself says.
export function userOf(credential) {
  const handle = credential.response.userHandle;
  return handle ? atob(handle.replaceAll("-", "+").replaceAll("_", "/")) : null;
}

// The challenge is the SHA-256 of the document that is shown, so what is signed is what was seen.
export async function signsWhatIsShown({ document: text, public_key: options }) {
  return (await digest(text)) === options.challenge;
}

// A device's proof of one request, after RFC 9449, with the body's digest.
export async function prove(device, { method, path, text, token }) {
  const claims = {
    htm: method, htu: location.origin + path, iat: now(), jti: crypto.randomUUID(), body_sha256: await digest(text ?? ""),
  };
  if (token) claims.ath = await digest(token);
  return signed(device, "dpop+jwt", claims);
}

export async function newDevice() {
  // Not extractable: scripts may use the private key, and cannot read it.
  return crypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, false, ["sign", "verify"]);
}

export async function registration(device, { challenge, audience }) {
  return signed(device, "device-registration+jwt", { challenge, aud: audience, iat: now() });
}

// The key of each user's device stays in this browser; the rest of the page's memory goes with the tab.
export const keptDevices = {
  find: async (user) => done((await store("readonly")).get(user)),
  keep: async (user, device) => done((await store("readwrite")).put(device, user)),
  forget: async (user) => done((await store("readwrite")).delete(user)),
};

async function store(mode) {
  const opening = indexedDB.open("durapay", 1);
  opening.onupgradeneeded = () => opening.result.createObjectStore("devices");
  const database = await done(opening);
  return database.transaction("devices", mode).objectStore("devices");
}

function done(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

async function signed(device, typ, claims) {
  const { kty, crv, x, y } = await crypto.subtle.exportKey("jwk", device.publicKey);
  const header = { typ, alg: "ES256", jwk: { kty, crv, x, y } };
  const content = [header, claims].map((part) => base64url(utf8.encode(JSON.stringify(part)))).join(".");
  const algorithm = { name: "ECDSA", hash: "SHA-256" };
  const signature = await crypto.subtle.sign(algorithm, device.privateKey, utf8.encode(content));
  return `${content}.${base64url(new Uint8Array(signature))}`;
}

async function digest(text) {
  return base64url(new Uint8Array(await crypto.subtle.digest("SHA-256", utf8.encode(text))));
}

function base64url(bytes) {
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

function now() {
  return Math.floor(Date.now() / 1000);
}
