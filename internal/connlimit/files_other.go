//go:build !unix

package connlimit

// files is a guess where the system has no such limit.
func files() int { return 1 << 16 }
