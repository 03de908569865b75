//go:build !unix

package file

// It does not build here: what keeps keyrings from others, and from being half written, is a unix system's.
var _ = tiwkeyd_is_for_linux_macos_and_freebsd__on_windows_use_wsl_or_a_container
