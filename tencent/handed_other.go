//go:build !linux

package tencent

func handedOut(string) bool { return false }
