// Package browser tests the status page in a real Chromium: how it looks, that a keyboard is
// enough, that all of its text can be read, and that nothing is blocked by its own policy. It
// is a module of its own, so that nobody who builds the program needs a browser's library.
package browser
