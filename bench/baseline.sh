#!/usr/bin/env bash
# What most people have: a new key for each application, written to Vault and set at Tencent.
#   baseline.sh SDKAPPID…
# VAULT_ADDR and VAULT_TOKEN are for the vault command; TENCENTCLOUD_SECRET_ID, TENCENTCLOUD_SECRET_KEY
# and ENDPOINT (a URL) are Tencent's.
set -euo pipefail

sha256() { printf %s "$1" | openssl dgst -sha256 -hex | sed 's/^.* //'; }
hmac() { printf %s "$2" | openssl dgst -sha256 -mac HMAC -macopt "hexkey:$1" -hex | sed 's/^.* //'; }

# call ACTION BODY: one request, signed with TC3-HMAC-SHA256.
call() {
	local action=$1 body=$2 host=${ENDPOINT#*://} now day scope request to_sign key signature
	now=$(date +%s)
	day=$(date -u -d "@$now" +%F)
	scope=$day/tiw/tc3_request
	request=$(printf 'POST\n/\n\ncontent-type:application/json\nhost:%s\n\ncontent-type;host\n%s' "$host" "$(sha256 "$body")")
	to_sign=$(printf 'TC3-HMAC-SHA256\n%s\n%s\n%s' "$now" "$scope" "$(sha256 "$request")")
	key=$(printf 'TC3%s' "$TENCENTCLOUD_SECRET_KEY" | od -An -tx1 | tr -d ' \n')
	key=$(hmac "$key" "$day")
	key=$(hmac "$key" tiw)
	key=$(hmac "$key" tc3_request)
	signature=$(hmac "$key" "$to_sign")
	curl -sS --max-time 10 "$ENDPOINT/" -H 'Content-Type: application/json' -H "X-TC-Action: $action" -H 'X-TC-Version: 2019-09-19' \
		-H 'X-TC-Region: ap-singapore' -H "X-TC-Timestamp: $now" --data-binary "$body" \
		-H "Authorization: TC3-HMAC-SHA256 Credential=$TENCENTCLOUD_SECRET_ID/$scope, SignedHeaders=content-type;host, Signature=$signature"
}

failed=0
for app in "$@"; do
	new=$(openssl rand -hex 32)
	vault kv put -mount=secret "script/$app" "callback_key=$new" >/dev/null
	for try in 1 2 3; do
		answer=$(call SetWhiteboardPushCallbackKey "{\"SdkAppId\":$app,\"CallbackKey\":\"$new\"}")
		case $answer in
		*'"Error"'*) echo "$app: $answer" >&2; sleep "$try" ;;
		*) continue 2 ;;
		esac
	done
	echo "$app: given up" >&2
	failed=1
done
exit $failed
