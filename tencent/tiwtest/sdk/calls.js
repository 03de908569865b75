// Calls Tencent's API with one of its own SDKs: a JSON object a line in, what the SDK made of the answer out.
'use strict';
const dns = require('dns');
const { createInterface } = require('readline');
const load = require('module').createRequire(process.argv[2] + '/');

// The SDKs sign for the service that the endpoint's name begins with, so that they need Tencent's. It leads here.
dns.lookup = (name, options, done) => {
  if (typeof options === 'function') [options, done] = [{}, options];
  if (options.all) done(null, [{ address: '127.0.0.1', family: 4 }]);
  else done(null, '127.0.0.1', 4);
};

const sdks = {
  mainland: (c, profile) => {
    const { Client } = load('tencentcloud-sdk-nodejs/tencentcloud/services/tiw').tiw.v20190919;
    const client = new Client({ credential: { secretId: c.id, secretKey: c.key, token: c.token }, region: c.region, profile: { httpProfile: profile } });
    return client[c.action](c.params);
  },
  intl: (c, profile) => {
    const { Client, Models } = load('tencentcloud-sdk-nodejs-intl-en/tencentcloud/tiw/v20190919');
    const [Credential, Profile, Http] = ['credential', 'profile/client_profile', 'profile/http_profile'].map(name => load('tencentcloud-sdk-nodejs-intl-en/tencentcloud/common/' + name));
    const client = new Client(new Credential(c.id, c.key, c.token), c.region, new Profile('TC3-HMAC-SHA256', Object.assign(new Http(), profile)));
    const request = new Models[c.action + 'Request']();
    request.deserialize(c.params);
    return new Promise((good, bad) => client[c.action](request, (error, answer) => error ? bad(error) : good(answer)));
  },
};

(async () => {
  for await (const line of createInterface({ input: process.stdin })) {
    const c = JSON.parse(line), out = {};
    try {
      out.answer = await sdks[c.sdk](c, { endpoint: c.endpoint, protocol: 'http://', reqTimeout: c.timeout });
    } catch (e) {
      out.error = { code: e.code, message: e.message, requestId: e.requestId, httpCode: e.httpCode, name: e.name };
    }
    console.log(JSON.stringify(out));
  }
})();
