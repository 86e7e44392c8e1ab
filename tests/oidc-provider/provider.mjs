// An OpenID provider that nobody here wrote, for the tests: oidc-provider with a client that gets
// tokens for itself, one that gets them for users, and APIs that they are for. Whoever says who they
// are by `login_hint` is believed.
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
    {
      client_id: 'web',
      token_endpoint_auth_method: 'none',
      grant_types: ['authorization_code'],
      redirect_uris: ['https://app.test/callback'],
      response_types: ['code'],
      id_token_signed_response_alg: 'ES256',
    },
  ],
  findAccount: (_context, accountId) => ({ accountId, claims: () => ({ sub: accountId }) }),
  interactions: { url: (_context, interaction) => `/interaction/${interaction.uid}` },
  async loadExistingGrant({ oidc }) {
    const grant = new oidc.provider.Grant({
      clientId: oidc.client.clientId,
      accountId: oidc.session.accountId,
    });
    grant.addOIDCScope('openid');
    grant.addResourceScope('urn:api', 'read write');
    await grant.save();
    return grant;
  },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      useGrantedResource: () => true,
      getResourceServerInfo: (_context, resource) => ({
        ...servers[resource],
        jwt: { sign: { alg: 'ES256' } },
      }),
    },
  },
});

provider.use(async (context, next) => {
  if (!context.path.startsWith('/interaction/')) {
    await next();
    return;
  }
  const { params } = await provider.interactionDetails(context.req, context.res);
  const result = { login: { accountId: params.login_hint } };
  context.redirect(await provider.interactionResult(context.req, context.res, result));
});

provider.listen(port, '127.0.0.1');
