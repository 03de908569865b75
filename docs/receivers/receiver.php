<?php
// Verifies TIW callbacks: KEYRING=keyring.json SDK_APP_ID=1400000001 php -S 127.0.0.1:$PORT receiver.php
// Under php-fpm, set the two with env[…]. Needs APCu (php-apcu), which keeps the last good keys in memory.
declare(strict_types=1);
const LIMIT = 1 << 20;
http_response_code(500); // until the end is reached: PHP's own default is 200

function acceptedKeys(string $path): array {
    $keyring = json_decode((string) @file_get_contents($path), true);
    $keys = $keyring['accept'] ?? null;
    $isKey = fn($key) => is_string($key) && $key !== '';
    if (is_array($keys) && $keys && array_is_list($keys) && array_filter($keys, $isKey) === $keys) {
        apcu_store("tiw-keys $path", $keys);
        return $keys;
    }
    return apcu_fetch("tiw-keys $path") ?: []; // missing or half-written for a moment
}

function verify(string $body, array $keys): int {
    $callback = json_decode($body);
    if (!$callback instanceof stdClass) {
        return 400;
    }
    [$app, $expire, $sign] = [$callback->SdkAppId ?? null, $callback->ExpireTime ?? null, $callback->Sign ?? null];
    if ($app !== (int) getenv('SDK_APP_ID') || !is_int($expire) || $expire < time() || !is_string($sign)) {
        return 401;
    }
    foreach ($keys as $key) {
        if (hash_equals(md5($key . $expire), $sign)) {
            return 200;
        }
    }
    return 401;
}

$body = file_get_contents('php://input', false, null, 0, LIMIT + 1);
$keys = acceptedKeys(getenv('KEYRING'));
$code = $_SERVER['REQUEST_METHOD'] !== 'POST' ? 405 : (strlen($body) > LIMIT ? 413 : ($keys ? verify($body, $keys) : 503));
http_response_code($code);
echo json_encode(['error_code' => $code === 200 ? 0 : 1]);
