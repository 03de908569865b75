# One Vault on one machine. It has no TLS because nothing but the containers of compose.yaml and
# this machine's loopback address reaches it; a Vault that others reach needs a certificate.
storage "file" { path = "/vault/file" }
listener "tcp" {
  address     = "0.0.0.0:8200"
  tls_disable = true
}
api_addr      = "http://vault:8200"
# mlock needs a capability: turn the machine's swap off, or encrypt it.
disable_mlock = true
