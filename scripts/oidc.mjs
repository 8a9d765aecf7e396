// An issuer (oidc-provider), a server that trusts it, and a table of tokens; `scripts/oidc` runs it.

import { spawn } from 'node:child_process';
import { createHmac, createPublicKey, generateKeyPairSync, sign } from 'node:crypto';
import { createServer } from 'node:net';
import { Provider } from 'oidc-provider';

const AUDIENCE = 'https://shop.example';
const CLIENT = { client_id: 'seller', client_secret: 'a secret of the test' };

const sparePort = () => new Promise((resolve) => {
  const server = createServer().listen(0, '127.0.0.1', () => {
    const { port } = server.address();
    server.close(() => resolve(port));
  });
});

const keys = {
  RS256: ['rsa', { modulusLength: 2048 }],
  PS256: ['rsa', { modulusLength: 2048 }],
  ES256: ['ec', { namedCurve: 'P-256' }],
  EdDSA: ['ed25519', {}],
};
const pairs = Object.fromEntries(Object.entries(keys).map(([alg, [kind, options]]) => [alg, generateKeyPairSync(kind, options)]));
const jwks = Object.entries(pairs).map(([alg, { privateKey }]) => (
  { ...privateKey.export({ format: 'jwk' }), use: 'sig', alg: alg === 'EdDSA' ? 'EdDSA' : alg, kid: `key-${alg}` }
));

const issuerPort = await sparePort();
const issuer = `http://127.0.0.1:${issuerPort}`;
// Each algorithm has its own resource at the issuer; all resources have the same audience.
const algorithmOf = (resource) => new URL(resource).searchParams.get('alg');
const provider = new Provider(issuer, {
  clients: [{
    ...CLIENT, grant_types: ['client_credentials'], redirect_uris: [], response_types: [],
    token_endpoint_auth_method: 'client_secret_basic',
  }],
  jwks: { keys: jwks },
  enabledJWA: { idTokenSigningAlgValues: ['RS256', 'PS256', 'ES256', 'EdDSA'] },
  scopes: ['products:read', 'products:write', 'admin'],
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => `${AUDIENCE}/?alg=RS256`,
      getResourceServerInfo: (_context, resource) => ({
        scope: 'products:read products:write admin',
        audience: resource.startsWith(AUDIENCE) ? AUDIENCE : resource,
        accessTokenTTL: 300,
        accessTokenFormat: 'jwt',
        jwt: { sign: { alg: algorithmOf(resource) ?? 'RS256' } },
      }),
    },
  },
});
let fetches = 0;
provider.use(async (context, next) => {
  if (context.path === '/jwks') fetches += 1;
  await next();
});
const issuerServer = provider.listen(issuerPort, '127.0.0.1');

const token = async (resource, scope) => {
  const basic = Buffer.from(`${CLIENT.client_id}:${encodeURIComponent(CLIENT.client_secret)}`).toString('base64');
  const answer = await fetch(`${issuer}/token`, {
    method: 'POST',
    headers: { authorization: `Basic ${basic}` },
    body: new URLSearchParams({ grant_type: 'client_credentials', resource, scope }),
  });
  const body = await answer.json();
  if (!answer.ok) throw new Error(JSON.stringify(body));
  return body.access_token;
};

const encode = (value) => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');
const parts = (jwt) => jwt.split('.').slice(0, 2).map((part) => JSON.parse(Buffer.from(part, 'base64url')));
const rs256 = (header, claims, key = pairs.RS256.privateKey) => {
  const message = `${encode(header)}.${encode(claims)}`;
  return `${message}.${sign('sha256', Buffer.from(message), key).toString('base64url')}`;
};

const port = await sparePort();
const server = spawn(process.argv[2], ['serve', '--listen', `127.0.0.1:${port}`, '--no-worker'], {
  env: { PATH: process.env.PATH, PM_DATA_DIR: './data', PM_AUTH_ISSUER: issuer, PM_AUTH_AUDIENCE: AUDIENCE, PM_LOG: 'warn' },
  stdio: ['ignore', 'ignore', 'inherit'],
});
const base = `http://127.0.0.1:${port}`;
const end = (code) => {
  server.once('exit', () => process.exit(code));
  issuerServer.close();
  server.kill('SIGTERM');
};

let failed = 0;
const expect = async (what, status, jwt, { method = 'GET', path = '/products', body } = {}) => {
  const headers = { ...(jwt && { authorization: `Bearer ${jwt}` }), ...(body && { 'content-type': 'application/json' }) };
  const answer = await fetch(base + path, { method, headers, body: body && JSON.stringify(body) });
  const challenge = answer.headers.get('www-authenticate') ?? '';
  const reason = /error_description="([^"]*)"/.exec(challenge)?.[1] ?? '';
  const right = answer.status === status;
  failed += right ? 0 : 1;
  console.log(`${right ? 'ok  ' : 'FAIL'} ${String(answer.status)} ${what.padEnd(44)} ${reason}`);
};

try {
  for (let tries = 0; ; tries += 1) {
    const up = await fetch(`${base}/healthz`).then((answer) => answer.ok, () => false);
    if (up) break;
    if (tries > 300) throw new Error('the server does not answer');
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  for (const alg of Object.keys(keys)) {
    await expect(`${alg}, as it was issued`, 200, await token(`${AUDIENCE}/?alg=${alg}`, 'products:read'));
  }
  const read = await token(`${AUDIENCE}/?alg=RS256`, 'products:read');
  const write = await token(`${AUDIENCE}/?alg=RS256`, 'products:read products:write');
  const [header, claims] = parts(read);
  const now = Math.floor(Date.now() / 1000);
  const product = { product_name: 'Sample Product', product_price: 1 };
  await expect('its own product', 201, write, { method: 'POST', body: product });
  await expect('a product of somebody else', 403, write, { method: 'POST', body: { ...product, user_id: 'another' } });
  await expect('writing with the scope to read', 403, read, { method: 'POST', body: product });
  await expect('the queue without `admin`', 403, write, { path: '/queue' });
  await expect('the queue with `admin`', 200, await token(`${AUDIENCE}/?alg=RS256`, 'admin'), { path: '/queue' });
  await expect('no token', 401, undefined);
  await expect('another audience, as it was issued', 401, await token('https://other.example/', 'products:read'));
  await expect('expired', 401, rs256(header, { ...claims, exp: now - 60 }));
  await expect('not valid yet', 401, rs256(header, { ...claims, nbf: now + 120 }));
  await expect('another issuer', 401, rs256(header, { ...claims, iss: 'https://evil.example' }));
  await expect('typ JWT', 401, rs256({ ...header, typ: 'JWT' }, claims));
  await expect('crit', 401, rs256({ ...header, crit: ['exp'] }, claims));
  await expect('an unknown kid', 401, rs256({ ...header, kid: 'another' }, claims));
  await expect("a stranger's signature", 401, rs256(header, claims, generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey));
  await expect('RS256 under a key for PS256', 401, rs256({ ...header, kid: 'key-PS256' }, claims, pairs.PS256.privateKey));
  await expect('alg none', 401, `${encode({ ...header, alg: 'none' })}.${encode(claims)}.`);
  const pem = createPublicKey(pairs.RS256.privateKey).export({ type: 'spki', format: 'pem' });
  const forged = `${encode({ ...header, alg: 'HS256' })}.${encode(claims)}`;
  await expect('HS256 with the public key', 401, `${forged}.${createHmac('sha256', pem).update(forged).digest('base64url')}`);
  const [, , signature] = read.split('.');
  await expect('other claims under the signature', 401, `${encode(header)}.${encode({ ...claims, scope: 'admin' })}.${signature}`);
  const once = fetches <= 1;
  failed += once ? 0 : 1;
  console.log(`${once ? 'ok  ' : 'FAIL'} the keys were asked for ${fetches} time(s)`);
} catch (error) {
  failed += 1;
  console.error(error);
}
end(failed === 0 ? 0 : 1);
