package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"time"
)

// oneProcessor has the daemon take one, unless the environment wants it otherwise: what waits for
// others nearly all the time is not faster with more, it only wakes more of them for each answer.
func oneProcessor() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(1)
	}
}

const (
	// modestGC is the garbage collector's target percentage (runtime/debug.SetGCPercent) of a
	// daemon that has nothing to do but to wait.
	modestGC = 33
	// modestCheck is how often it is asked whether that is so.
	modestCheck = time.Second
)

// modest takes little memory, unless the environment wants it otherwise, once every target was dealt
// with: at the start thousands of keyrings pass through, and to collect often then would take a
// fifth of the time. What that took is given back.
func (w *watch) modest() {
	if os.Getenv("GOGC") != "" {
		return
	}
	tick := time.NewTicker(modestCheck)
	defer tick.Stop()
	for !w.monitor.Met() {
		select {
		case <-tick.C:
		case <-w.ctx.Done():
			return
		}
	}
	debug.SetGCPercent(modestGC)
	debug.FreeOSMemory()
}
