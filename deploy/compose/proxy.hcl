# What the proxy needs of Vault: `vault policy write tiwkeyd-proxy proxy.hcl`.
path "secret/data/tiw/*" {
  capabilities = ["read"]
}
