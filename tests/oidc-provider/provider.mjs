// An OpenID provider that nobody here wrote, for the tests: oidc-provider with one client that gets
// tokens for itself, and two APIs that it can get them for.
//
//   node provider.mjs PORT KEY,KEY,...
//
// The keys are files in the working directory, made where there are none. The first one signs.

import { generateKeyPairSync } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { Provider } from 'oidc-provider';

const [port, names] = process.argv.slice(2);
const issuer = `http://127.0.0.1:${port}`;

function key(name) {
  const file = `${name}.json`;
  if (!existsSync(file)) {
    const jwk = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ format: 'jwk' });
    writeFileSync(file, JSON.stringify({ ...jwk, kid: name, use: 'sig', alg: 'ES256' }), { mode: 0o600 });
  }
  return JSON.parse(readFileSync(file, 'utf8'));
}

// By resource: who may be meant, and in which form the token comes.
const servers = {
  'urn:api': { scope: 'read write', audience: 'api', accessTokenFormat: 'jwt', accessTokenTTL: 600 },
  'urn:other': { scope: 'read', audience: 'other', accessTokenFormat: 'jwt', accessTokenTTL: 600 },
  'urn:opaque': { scope: 'read', audience: 'api', accessTokenFormat: 'opaque', accessTokenTTL: 600 },
};

const provider = new Provider(issuer, {
  jwks: { keys: names.split(',').map(key) },
  cookies: { keys: ['for tests only'] },
  clients: [
    {
      client_id: 'reporter',
      client_secret: 'a secret of the tests',
      grant_types: ['client_credentials'],
      redirect_uris: [],
      response_types: [],
      id_token_signed_response_alg: 'ES256',
    },
  ],
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (_context, resource) => ({
        ...servers[resource],
        jwt: { sign: { alg: 'ES256' } },
      }),
    },
  },
});

provider.listen(port, '127.0.0.1');
