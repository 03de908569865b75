# What tiwkeyd needs of Vault, for the default mount and prefix, and no more:
# `vault policy write tiwkeyd policy.hcl`.

# Keyrings: read, begin, replace with check-and-set.
path "secret/data/tiw/*" {
  capabilities = ["create", "read", "update"]
}

# Older versions still hold retired keys: destroy them.
# Not needed with TIWKEYD_VAULT_KEEP_VERSIONS=true.
path "secret/destroy/tiw/*" {
  capabilities = ["update"]
}

# Tencent's credential. Needed with TIWKEYD_TENCENT_CREDENTIALS=vault:secret/tencent only; the path is
# secret/tencent in a mount of KV version 1.
#path "secret/data/tencent" {
#  capabilities = ["read"]
#}

# Names of the keyrings. Needed with TIWKEYD_DISCOVER=true only.
path "secret/metadata/tiw/*" {
  capabilities = ["list"]
}
