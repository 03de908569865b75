// The verification for nginx.conf (njs 0.7.9 or newer). njs keeps nothing between requests: the last good keys go to a file.
import crypto from 'crypto';
import fs from 'fs';

function keysIn(path) {
    try {
        const keys = JSON.parse(fs.readFileSync(path, 'utf8')).accept;
        return Array.isArray(keys) && keys.every(key => key && typeof key === 'string') ? keys : [];
    } catch (e) { return []; } // missing or half-written for a moment
}

function acceptedKeys(path, copy) {
    const keys = keysIn(path), lastGood = keysIn(copy);
    if (!keys.length || keys.join('\n') === lastGood.join('\n')) return lastGood;
    fs.writeFileSync(`${copy}.${process.pid}`, JSON.stringify({ accept: keys }), { mode: 0o600 });
    fs.renameSync(`${copy}.${process.pid}`, copy);
    return keys;
}

function status(text, keys) {
    const callback = JSON.parse(text);
    if (text.trim()[0] !== '{') return 400;
    const app = callback.SdkAppId, expire = callback.ExpireTime, sign = callback.Sign;
    if (app !== Number(process.env.SDK_APP_ID) || !Number.isSafeInteger(expire) || typeof sign !== 'string') return 401;
    // To JSON.parse, 1.0 and 1e0 are integers, too; and a name may be written with escapes.
    if (/"(SdkAppId|ExpireTime)"\s*:\s*-?\d+[.eE]/.test(text)) return 401;
    if (!text.includes('"SdkAppId"') || !text.includes('"ExpireTime"')) return 401;
    if (expire < Math.floor(Date.now() / 1000)) return 401;
    const md5 = text => crypto.createHash('md5').update(text).digest('hex');
    const blind = (key, text) => crypto.createHmac('sha256', key).update(text).digest('hex'); // === would tell time
    return keys.some(key => blind(key, md5(key + expire)) === blind(key, sign)) ? 200 : 401;
}

function verify(r) {
    const keys = acceptedKeys(process.env.KEYRING, process.env.LAST_GOOD);
    let code = keys.length ? 400 : 503;
    try { if (keys.length) code = status(r.requestText, keys); } catch (e) { code = 400; } // no JSON
    if (code === 200) r.internalRedirect('@verified'); else r.return(code);
}
export default { verify };
