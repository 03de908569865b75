// Package secrets is the ground that everything stands on: what a callback key is, and what has one.
// It imports nothing of this program.
package secrets
