#!/bin/sh
# Verifies one TIW callback: KEYRING=keyring.json SDK_APP_ID=1400000001 sh receiver.sh < callback.json
# Exit status: 0 genuine; 1 not, and why is on stderr; 2 no keys could be read: answer 503. Needs jq, sed, awk and md5sum.
# The keys go through the shell's variables, its builtin printf and pipes only: nobody sees them in the process list.
LC_ALL=C
export LC_ALL
refuse() {
    echo "$2" >&2
    exit "$1"
}
[ "$(command -v printf)" = printf ] || refuse 2 "printf is not builtin in this shell"

keys=$(jq -rs '.[0].accept | if type == "array" and length > 0 and all(type == "string" and . != "" and (contains("\n") | not))
    then .[] else error("no") end' "$KEYRING" 2>/dev/null) || refuse 2 "no keys in KEYRING"

body=$(head -c 1048577; echo .)
body=${body%.}
[ "${#body}" -le 1048576 ] || refuse 1 "longer than 1 MiB"
types=$(printf '%s' "$body" | jq -ers 'if length == 1 then .[0] | map_values(type) | "\(.SdkAppId) \(.ExpireTime) \(.Sign)"
    else error("no") end' 2>/dev/null) || refuse 1 "not a JSON object"
[ "$types" = "number number string" ] || refuse 1 "unsigned, or SdkAppId, ExpireTime or Sign is of the wrong type"
sign=$(printf '%s' "$body" | jq -r 'if .Sign | length == 32 then .Sign else "" end')

# Every number as it was written, in quotes: to jq, 1.0 and 1e0 are integers, too.
written=$(printf '%s' "$body" | sed 's/\\./?/g' | awk 'BEGIN { RS = "\"" } NR > 1 { printf "\"" }
    NR % 2 { gsub(/-?[0-9][0-9.eE+-]*/, "\"&\"") } { printf "%s", $0 }' | jq -r '"\(.SdkAppId) \(.ExpireTime)"')
[ "${written% *}" = "$SDK_APP_ID" ] || refuse 1 "of another application"
expire=${written#* }
case $expire in '' | *[!0-9]* | 0* | ????????????????*) refuse 1 "ExpireTime is not an integer" ;; esac
[ "$expire" -ge "$(date +%s)" ] || refuse 1 "expired"

printf '%s\n' "$keys" | while IFS= read -r key; do
    [ "$(printf '%s%s' "$key" "$expire" | md5sum)" != "$sign  -" ] || exit 3
done
[ $? -eq 3 ] || refuse 1 "signed with none of the accepted keys"
