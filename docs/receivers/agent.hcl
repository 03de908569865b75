# Vault Agent: keeps the file that the receivers read as KEYRING. Run it as the receiver's user: vault agent -config=agent.hcl
vault {
  address = "https://vault.example.com:8200"
}

auto_auth {
  method "approle" {
    config = {
      role_id_file_path                   = "/etc/tiw/role-id"
      secret_id_file_path                 = "/etc/tiw/secret-id"
      remove_secret_id_file_after_reading = false # the agent needs it again after a restart
    }
  }
}

# How often the secret is read; 5m is Vault's default. After Vault was away, up to a minute goes by before the agent asks again.
# TIWKEYD_PROPAGATION has to be longer than the interval and that minute: its default, 6m, has just room. "1m" here allows 2m there.
template_config {
  static_secret_render_interval = "5m"
}

# The file is written beside its place and renamed, so that no receiver sees half of it.
template {
  destination          = "/run/tiw/keyring.json"
  perms                = "0600"
  error_on_missing_key = true
  contents             = <<EOT
{{ with secret "secret/data/tiw/1400000001/whiteboard-push" }}{{ .Data.data | toJSON }}{{ end }}
EOT
}
