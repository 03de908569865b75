# What a receiver needs of Vault (`tiwkeyd proxy`, the Go package, Vault Agent), and no more:
# `vault policy write tiw-receiver receiver.hcl`. It reads keys and changes nothing. Write
# `secret/data/tiw/1400000001/whiteboard-push` for a receiver that serves this target alone.
path "secret/data/tiw/*" {
  capabilities = ["read"]
}
